"""What tests of code that uses llm_master need, too.

Names are loaded on first use (PEP 562), so that a test of a clock does not pay for a server.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    "FakeClock": "llm_master.testing.clock",
    "Fault": "llm_master.testing.script",
    "FaultServer": "llm_master.testing.fault_server",
    "Limit": "llm_master.testing.script",
    "SeenRequest": "llm_master.testing.seen",
}

__all__ = sorted(_HOME)  # noqa: PLE0605  # computed, so that no name stands in two lists


def __getattr__(name: str) -> Any:
    module = _HOME.get(name)
    if module is None:
        raise AttributeError(f"module 'llm_master.testing' has no attribute {name!r}")
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)


if TYPE_CHECKING:
    from llm_master.testing.clock import FakeClock as FakeClock
    from llm_master.testing.fault_server import FaultServer as FaultServer
    from llm_master.testing.script import Fault as Fault
    from llm_master.testing.script import Limit as Limit
    from llm_master.testing.seen import SeenRequest as SeenRequest
