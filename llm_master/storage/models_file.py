"""Which models the providers list, kept in memory and in a file, over restarts and for other processes.

No key is kept: a list is found by a fingerprint of who was asked, where, and with what. Times are those of the wall clock.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import attrs
import msgspec

from llm_master.results import ListedModel
from llm_master.storage.files import locked, write_whole

logger = logging.getLogger("llm_master.storage")

KEPT = 30 * 86400.0
"""Seconds after which a list that nobody has asked for again is forgotten."""

_open: weakref.WeakValueDictionary[str, SeenModels] = weakref.WeakValueDictionary()
_open_lock = threading.Lock()


@attrs.frozen(slots=False)
class Listing:
    """What one provider listed.

    Attributes:
        provider: Name of its row, for people who read the file.
        at: When, in seconds since 1970.
        models: The models.
    """

    provider: str
    at: float
    models: tuple[ListedModel, ...]

    @cached_property
    def ids(self) -> frozenset[str]:
        """The models' ids."""
        return frozenset(model.id for model in self.models)


class _Model(msgspec.Struct, omit_defaults=True):
    """A model as it stands in the file."""

    id: str
    context_window: int | None = None
    owned_by: str | None = None
    created: float | None = None


class _Listing(msgspec.Struct):
    provider: str
    at: float
    models: list[_Model]


class _File(msgspec.Struct):
    version: int
    listings: dict[str, _Listing]


_decode = msgspec.json.Decoder(_File).decode


def models_at(path: str | None, time: Callable[[], float]) -> SeenModels:
    """The lists that are kept at this path: one object per process, whoever asks. Without a path, in memory alone."""
    if path is None:
        return SeenModels(None, time)
    path = os.path.abspath(path)
    with _open_lock:
        found = _open.get(path)
        if found is None or found.time != time:
            found = _open[path] = SeenModels(path, time)
        return found


class SeenModels:
    """Lists of models by the fingerprint of who was asked.

    Several processes may have the file: of one fingerprint the latest list holds. A file that is broken, or cannot be
    written, is told of in the log and costs no more than another request.

    Args:
        path: The file; it is made, with its folder, when there is something to keep.
        time: Tells the wall clock's time.
    """

    def __init__(self, path: str | None, time: Callable[[], float]) -> None:
        self.path = Path(path) if path is not None else None
        self.time = time
        self._listings: dict[str, Listing] = {}
        self._stamp: tuple[int, int, int] | None = None
        self._lock = threading.RLock()

    def find(self, name: str) -> Listing | None:
        """The list that is kept under a fingerprint, however old; ``None`` where there is none. Reads no file."""
        return self._listings.get(name)

    def look(self) -> None:
        """Take over what other processes have written since, if they have."""
        if self.path is None:
            return
        try:
            found = os.stat(self.path)
        except OSError:  # most often there is none yet
            return
        stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
        if stamp != self._stamp:
            with self._lock:
                self._read()
                self._stamp = stamp

    def keep(self, name: str, listing: Listing) -> None:
        """Keep a list in memory; :meth:`save` writes it."""
        with self._lock:
            self._listings = {**self._listings, name: listing}

    def save(self) -> None:
        """Write what is kept, together with what others have written."""
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._lock, locked(self.path):
                self._read()
                write_whole(self.path, msgspec.json.encode(_File(1, {name: _written(own) for name, own in self._listings.items()})))
        except OSError as exc:
            logger.warning(
                "the lists of models could not be written to %s: %s. Give models_file= another path", self.path, exc.strerror or exc
            )

    def _read(self) -> None:
        """Take over the lists of the file that are newer than ours, and forget those that are too old."""
        assert self.path is not None
        theirs: dict[str, Listing] = {}
        try:
            file = _decode(self.path.read_bytes())
            if file.version == 1:
                theirs = {name: _read_back(own) for name, own in file.listings.items()}
        except FileNotFoundError:
            pass  # there is none yet
        except OSError as exc:
            logger.warning("the lists of models in %s cannot be read: %s. Providers are asked anew", self.path, exc.strerror or exc)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            logger.warning("%s holds no lists of models: it is written anew when a provider has been asked", self.path)
        now = self.time()
        both = {**self._listings, **{name: own for name, own in theirs.items() if self._is_newer(name, own, now)}}
        self._listings = {name: own for name, own in both.items() if own.at > now - KEPT}

    def _is_newer(self, name: str, listing: Listing, now: float) -> bool:
        own = self._listings.get(name)
        # One of a time to come was written by a clock that has been put right.
        return listing.at <= now and (own is None or own.at < listing.at or own.at > now)


def _written(listing: Listing) -> _Listing:
    return _Listing(
        listing.provider, listing.at, [_Model(model.id, model.context_window, model.owned_by, model.created) for model in listing.models]
    )


def _read_back(listing: _Listing) -> Listing:
    models = tuple(
        ListedModel(model.id, context_window=model.context_window, owned_by=model.owned_by, created=model.created)
        for model in listing.models
    )
    return Listing(listing.provider, listing.at, models)
