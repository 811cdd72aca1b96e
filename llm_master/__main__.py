"""``python -m llm_master``."""

from __future__ import annotations

from llm_master.cli import main

main(prog_name="llm-master")
