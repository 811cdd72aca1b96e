"""What tests of code that uses llm_master need, too."""

from __future__ import annotations

from llm_master.testing.clock import FakeClock

__all__ = ["FakeClock"]
