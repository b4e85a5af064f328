"""One TOML file and the environment in, the stages' own frozen settings out.

`load` finds, reads and judges; `Settings` is what comes of it; `show` writes it down again
without its secrets, `doubts` says what may be meant otherwise. `ConfigProblems` holds
everything that is wrong, at once.
"""

from manyways.config.document import ConfigProblems, Problem
from manyways.config.doubts import doubts
from manyways.config.loading import load
from manyways.config.settings import Cluster, Defaults, Settings
from manyways.config.shown import show

__all__ = [
    "Cluster",
    "ConfigProblems",
    "Defaults",
    "Problem",
    "Settings",
    "doubts",
    "load",
    "show",
]
