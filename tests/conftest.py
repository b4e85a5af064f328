"""What holds for all tests.

Properties here are about what comes out, not about how fast: on a busy machine a single example
may take long, and so may drawing it. Neither is a failure.

Files that start processes come first. A few of their tests take as long as thousands of others:
were one of them the last, one of two processes would run it while the other has nothing left.

What is there once all tests are collected stays, and is not collected as garbage: the collector
would walk through thousands of tests again and again.

How a test has the log configured is forgotten behind it. Loggers are not kept as they were when
they were used first: what a command logs in one test would be all that the next one hears."""

import gc
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, settings

settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

SLOW = ("process", "model", "node")


def _configured(configure: Any, **settings: Any) -> None:
    configure(**settings | {"cache_logger_on_first_use": False})


def pytest_configure(config: pytest.Config) -> None:
    structlog.configure = partial(_configured, structlog.configure)
    # xdist would deal out first the files with the most tests, which are the quickest ones.
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    slow = {item.path for item in items if any(item.get_closest_marker(name) for name in SLOW)}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _log_of_its_own() -> Iterator[None]:
    yield
    structlog.reset_defaults()
