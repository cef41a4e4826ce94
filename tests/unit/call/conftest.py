from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    """The fakes capture the log; nobody after them shall lose it."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)
