"""The benchmark: Manyways and its peers, on the same work, in one run.

`python -m bench --help` tells how to run it, `docs/benchmark.md` what it measures.
"""
