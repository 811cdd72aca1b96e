"""Fixtures for pytest: ``pytest_plugins = ["llm_master.testing.fixtures"]`` in ``conftest.py``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from llm_master.testing.fault_server import FaultServer


@pytest.fixture(scope="session")
def _fault_server() -> Iterator[FaultServer]:
    with FaultServer() as server:
        yield server


@pytest.fixture
def fault_server(_fault_server: FaultServer) -> Iterator[FaultServer]:
    """A :class:`~llm_master.testing.FaultServer` without script and limits. One process serves a whole session of tests."""
    _fault_server.reset()
    yield _fault_server
    _fault_server.reset()
