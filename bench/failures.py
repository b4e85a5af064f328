"""What can go wrong in a run. Each stays with the gateway it befell; the run goes on.

BenchError
├── Missing   it cannot be had on this machine
├── Died      it ended, or never answered
├── Wrong     what it answered is not what the upstream said
└── Unloaded  the load generator itself failed
"""


class BenchError(Exception):
    """The text is for people, and says why."""


class Missing(BenchError):
    """A program cannot be had on this machine."""


class Died(BenchError):
    """A process ended before it was asked to, or did not answer in time."""


class Wrong(BenchError):
    """An answer differs from what the upstream sent."""


class Unloaded(BenchError):
    """The load generator failed, so nothing was measured."""
