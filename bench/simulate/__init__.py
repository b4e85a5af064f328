"""Outages, played in virtual time against the gateway's real planner and its real memory.

`python -m bench simulate` plays every scenario with every setting that is compared, which takes
under a minute on one core, and writes docs/simulation.md and docs/simulation.svg. What happens
is decided by seeds alone: the same code gives the same figures.
"""
