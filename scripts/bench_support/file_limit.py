"""How many files, and so connections, a process may open."""

from __future__ import annotations

import resource


def raise_file_limit() -> int:
    """Open as many files as this user may; return how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
