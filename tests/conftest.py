"""Settings for every suite."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec

import pytest
import structlog
from _pytest.logging import LogCaptureHandler
from hypothesis import HealthCheck, settings

# The machines are shared and slow at times: an example that takes long says nothing about the code.
# CI tries Hypothesis's usual number of examples; they are a tenth of the time of make check.
settings.register_profile(
    "patient",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    max_examples=100 if os.environ.get("CI") else 40,
)
settings.load_profile("patient")

_own_folder = pytest.StashKey[str]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if find_spec("carrier_simulator") is None:
        raise pytest.UsageError("the simulator of the carriers is not installed here: run make setup")
    _give_a_folder_of_its_own(config)


def _give_a_folder_of_its_own(config: pytest.Config) -> None:
    """A folder of this run's own for what tests write: runs side by side trip over one another where pytest tidies up
    what it keeps of earlier ones."""
    if config.option.basetemp is None and not hasattr(config, "workerinput"):
        config.option.basetemp = config.stash[_own_folder] = tempfile.mkdtemp(prefix="connector-tests-")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """What a failed run has left stays, to be looked at."""
    folder = session.config.stash.get(_own_folder, None)
    if folder is not None and exitstatus == pytest.ExitCode.OK:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """A command of the CLI sets logging up for its process, which in a test is everybody's."""
    root, configuration = logging.getLogger(), structlog.get_config()
    handlers, level = set(root.handlers), root.level
    yield
    structlog.configure(**configuration)
    # Not all as before: pytest has handlers of its own here, one for each phase of a test.
    root.handlers[:] = [each for each in root.handlers if each in handlers or isinstance(each, LogCaptureHandler)]
    root.setLevel(level)
