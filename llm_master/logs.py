"""The log on standard error, where settings ask for it and the program has none of its own."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import msgspec

_OWN = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {"message", "asctime", "taskName"}
"""What every record has; all else was given as ``extra``."""


class JSONFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, message, and the fields that the record was given."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line."""
        fields = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **{name: value for name, value in vars(record).items() if name not in _OWN and value is not None},
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(fields, enc_hook=str).decode()


def show(level: str, form: str) -> None:
    """Show the library's log on standard error, unless the program has its own handlers.

    Args:
        level: ``DEBUG``, ``INFO``, ...
        form: ``text`` or ``json``.
    """
    package = logging.getLogger("llm_master")
    package.setLevel(level.upper())
    if not package.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(JSONFormatter() if form == "json" else logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        package.addHandler(handler)
