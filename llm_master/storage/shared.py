"""What processes share through Redis: one script call per round trip, and never more than a moment's wait for it.

Redis being away is no failure: whoever asks is told that nothing is known (``None``), one warning is logged, and connecting is
tried again beside the calls that come, until it is back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import threading
import time
import weakref
from urllib.parse import urlsplit

from llm_master.errors import ConfigurationError
from llm_master.storage.redis_link import Link, client_library
from llm_master.transport.session import close_with_loop

logger = logging.getLogger("llm_master.storage")

_PAUSES = (0.1, 5.0)
"""Seconds between two tries to connect: at first, and at most."""

_open: weakref.WeakValueDictionary[tuple[str, str], SharedStore] = weakref.WeakValueDictionary()
_open_lock = threading.Lock()


def shared_at(url: str, prefix: str) -> SharedStore:
    """The store at this address: one per process, whoever asks.

    Raises:
        ConfigurationError: The ``redis`` package is not installed.
    """
    try:
        client_library()
    except ImportError as exc:
        raise ConfigurationError(
            f"redis_url is set and the redis package cannot be imported ({exc}): pip install 'llm_master[redis]'"
        ) from None
    with _open_lock:
        store = _open.get((url, prefix))
        if store is None:
            store = _open[url, prefix] = SharedStore(url, prefix)
        return store


class SharedStore:
    """Limits, states and use counts in one Redis.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``. Its password is shown nowhere.
        prefix: What all names begin with.

    Attributes:
        is_away: Redis is not to be had for now.
    """

    def __init__(self, url: str, prefix: str) -> None:
        self.url = url
        self.prefix = f"{prefix}:"
        self.is_away = False
        # Counts outages: a connection of before one is not used after it.
        self.era = 0
        self._lock = threading.Lock()
        self._next_try = 0.0
        self._pause = _PAUSES[0]
        self._trying = False
        self._links: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Link] = weakref.WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"<SharedStore at {shown(self.url)}>"

    def link(self) -> Link:
        """The running loop's connection, made on first use."""
        loop = asyncio.get_running_loop()
        link = self._links.get(loop)
        if link is None:
            link = self._links[loop] = Link(self, loop)
            close_with_loop(link.close)
        return link

    def forget(self, link: Link) -> None:
        """A link was closed."""
        if self._links.get(link.loop) is link:
            del self._links[link.loop]

    def lost(self, error: BaseException) -> None:
        """A round trip failed: go on without Redis, and say so once."""
        with self._lock:
            now = time.monotonic()
            if self.is_away:
                self._pause = min(self._pause * 2, _PAUSES[1])
            else:
                self._pause = _PAUSES[0]
                self.era += 1
            first, self.is_away = not self.is_away, True
            # Not all processes at the same moment.
            self._next_try = now + self._pause * random.uniform(0.75, 1.0)
        if first:
            logger.warning(
                "Redis at %s is away (%s): limits and key states hold for this process alone until it is back. Check that it runs there, "
                "and LLM_MASTER_REDIS_URL (redis_url) with its password",
                shown(self.url),
                _said(error, self.url),
            )

    def found(self) -> None:
        """A round trip went well."""
        with self._lock:
            again, self.is_away = self.is_away, False
        if again:
            logger.info("Redis at %s is back: limits and key states are shared again", shown(self.url))

    def may_try(self) -> bool:
        """Whether it is time to look if Redis is back; whoever is told so does it."""
        with self._lock:
            if self._trying or time.monotonic() < self._next_try:
                return False
            self._trying = True
            return True

    def tried(self) -> None:
        """The look is over."""
        self._trying = False


def shown(url: str) -> str:
    """A URL without what may be secret in it."""
    try:
        parts = urlsplit(url)
        host = f"[{parts.hostname}]" if parts.hostname and ":" in parts.hostname else parts.hostname or ""
        return f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}{parts.path}"
    except ValueError:
        return "the address given"


def _said(error: BaseException, url: str) -> str:
    text = str(error) or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)
    with contextlib.suppress(ValueError):
        if password := urlsplit(url).password:
            text = text.replace(password, "…")
    return text
