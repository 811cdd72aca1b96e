"""What is known of keys, kept over restarts in a small file: fingerprints, states and counts, and no key.

Times are those of the wall clock, which may jump: a state never holds for longer than it was set for.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from llm_master.errors import ConfigurationError
from llm_master.storage.files import locked, write_whole

logger = logging.getLogger("llm_master.storage")

_SAVE_AFTER = 1.0
"""Seconds for which changes are collected before they are written."""

_KEPT = 30 * 86400.0
"""Seconds after which a count that nobody has added to is dropped."""

_open: weakref.WeakValueDictionary[str, StateFile] = weakref.WeakValueDictionary()
_open_lock = threading.Lock()


class Counted(Protocol):
    """Whose uses are counted."""

    uses: int


def state_at(path: str, time: Callable[[], float]) -> StateFile:
    """The file at this path: one object per process, whoever asks.

    Raises:
        ConfigurationError: There can be no such file.
    """
    path = os.path.abspath(path)
    with _open_lock:
        found = _open.get(path)
        if found is None or found.time != time:
            found = _open[path] = StateFile(path, time)
        return found


class StateFile:
    """States and counts by name, in one JSON file.

    Several processes may have it: of what they say of one name, the latest holds, and counts add up.

    Args:
        path: The file; it is made when there is something to say, and readable for its owner alone.
        time: Tells the wall clock's time.

    Raises:
        ConfigurationError: The path is a folder's, or its folder is not there.
    """

    def __init__(self, path: str, time: Callable[[], float]) -> None:
        self.path = Path(path)
        self.time = time
        if self.path.is_dir() or not self.path.parent.is_dir():
            what = "is a folder" if self.path.is_dir() else "is in a folder that is not there"
            raise ConfigurationError(f"state is {path!r}, which {what}: give the path of a file, as ~/.llm_master_keys.json")
        # What was read last, and what has changed since: name -> [value, when it ends, when it was set].
        self._states: dict[str, list[Any]] = {}
        self._changed: dict[str, list[Any]] = {}
        # Name -> [count, when it was written last].
        self._uses: dict[str, list[float]] = {}
        # Whose uses are counted under which name, and how many of them have been.
        self._counted: list[tuple[str, weakref.ref[Counted], int]] = []
        self._lock = threading.RLock()
        self._timer: threading.Timer | None = None
        with self._lock:
            self._read()
        atexit.register(_save_at_exit, weakref.ref(self))

    def recall(self, name: str) -> tuple[str, float] | None:
        """A state and for how many seconds it still holds; ``None`` where there is none."""
        with self._lock:
            state = self._changed.get(name) or self._states.get(name)
        if state is None or not state[0]:
            return None
        value, ends, since = state
        left = min(ends - self.time(), ends - since)
        return (value, left) if left > 0 else None

    def note(self, name: str, value: str, seconds: float) -> None:
        """Set a state for so long; it is written a moment later."""
        now = self.time()
        with self._lock:
            self._changed[name] = [value, now + seconds, now]
            self._save_soon()

    def clear(self, name: str) -> None:
        """Take a state back."""
        known = self._changed.get(name) or self._states.get(name)
        if known is not None:
            with self._lock:
                # Other processes may have it still: that it is gone is written down as long.
                self._changed[name] = ["", known[1], self.time()]
                self._save_soon()

    def uses(self, name: str) -> int | None:
        """How often a key was used by all, as far as is known."""
        known = self._uses.get(name)
        return int(known[0]) if known is not None else None

    def counts(self, name: str, state: Counted) -> None:
        """Add what ``state.uses`` grows by to the count of this name, whenever the file is written."""
        with self._lock:
            if not any(known == name and of() is state for known, of, _ in self._counted):
                self._counted.append((name, weakref.ref(state), state.uses))

    def save(self) -> None:
        """Write what has changed, now. That it cannot be written is logged, and breaks nothing."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            try:
                with locked(self.path):
                    if self._read() and self._changed_counts() | bool(self._changed):
                        self._write()
            except OSError as exc:
                logger.warning("the key states could not be written to %s: %s. Give state= another path", self.path, exc.strerror or exc)

    def _save_soon(self) -> None:
        if self._timer is None:
            self._timer = threading.Timer(_SAVE_AFTER, self.save)
            self._timer.daemon = True
            self._timer.start()

    def _read(self) -> bool:
        """Take over what the file says; whether it may be written over."""
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            return True
        except OSError as exc:
            logger.warning("the key states in %s cannot be read: %s. They are not remembered now", self.path, exc.strerror or exc)
            return False
        try:
            self._states, self._uses = _parsed(text)
        except (ValueError, RecursionError, AttributeError, TypeError, KeyError):
            aside = self.path.with_name(f"{self.path.name}.broken")
            try:
                os.replace(self.path, aside)
            except OSError as exc:
                logger.warning(
                    "%s is no file of key states, and cannot be renamed to %s: %s. Nothing is remembered now; give state= another path",
                    self.path,
                    aside,
                    exc.strerror or exc,
                )
                return False
            logger.warning("%s is no file of key states: it is now %s, and a new one is begun", self.path, aside)
        return True

    def _changed_counts(self) -> bool:
        changed = False
        now = self.time()
        counted, self._counted = self._counted, []
        for name, of, before in counted:
            if (state := of()) is None:  # its engine is gone
                continue
            uses = state.uses
            if uses > before:
                known = self._uses.get(name, [0, now])
                self._uses[name] = [known[0] + uses - before, now]
                changed = True
            self._counted.append((name, of, uses))
        return changed

    def _write(self) -> None:
        now = self.time()
        for name, state in self._changed.items():
            other = self._states.get(name)
            # One that was set in a time to come was set by a clock that has been put right.
            if other is None or other[2] <= state[2] or other[2] > now:
                self._states[name] = state
        self._changed.clear()
        self._states = {name: state for name, state in self._states.items() if state[1] > now}
        self._uses = {name: count for name, count in self._uses.items() if count[1] > now - _KEPT}
        text = json.dumps({"version": 1, "states": self._states, "uses": self._uses}, indent=1)
        write_whole(self.path, text)


def _parsed(text: bytes) -> tuple[dict[str, list[Any]], dict[str, list[float]]]:
    """What a file says.

    Raises:
        ValueError, TypeError, KeyError: It is no such file.
    """
    said = json.loads(text)
    states = {str(name): [str(value), float(ends), float(since)] for name, (value, ends, since) in said["states"].items()}
    uses = {str(name): [int(count), float(at)] for name, (count, at) in said["uses"].items()}
    return states, uses


def _save_at_exit(reference: weakref.ref[StateFile]) -> None:
    state = reference()
    if state is not None:
        state.save()
