"""A short-lived token: fetched once however many wait for it, renewed before it ends, fetched anew when it is refused.

One engine serves several event loops and threads, so whoever needs a token while another fetches it waits for that fetch on a
loop of his own.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
import logging
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

import attrs

from llm_master.clock import Clock
from llm_master.dispatch.time_limit import TimeLimit, TimeLimitPassed
from llm_master.errors import ProviderConnectionError
from llm_master.providers.failures import clock_of

EARLY = 60.0
"""Seconds before its end from which on a token is renewed."""

FETCH_TIMEOUT = 30.0
"""Seconds that one fetch may take."""

PATIENCE = 5.0
"""Seconds that the one who renews a token waits for the new one, while the old one holds; the renewal itself goes on."""

PAUSE = 5.0
"""Seconds after a renewal that failed before the next is tried, while the old token holds."""


@attrs.frozen
class Token:
    """What a token endpoint gave.

    Attributes:
        text: The token. It is shown nowhere.
        lifetime: Seconds for which it holds from now on; ``None`` where nobody said.
    """

    text: str = attrs.field(repr=False)
    lifetime: float | None = None


@attrs.frozen
class _Held:
    text: str = attrs.field(repr=False)
    renew_at: float
    ends_at: float


_Outcome: TypeAlias = "Token | Exception | None"
"""Of a fetch; ``None`` where it was given up, because nobody waited or its loop ended."""


class TokenKeeper:
    """Keeps one token.

    Args:
        fetch: Asks for a token. What it raises, everybody who waits is told, and nothing of it is kept.
        clock: Whose time counts; asked at each use.
        name: What is fetched, for the log.
    """

    def __init__(self, fetch: Callable[[], Awaitable[Token]], clock: Callable[[], Clock], name: str) -> None:
        self._fetch = fetch
        self._clock = clock
        self._name = name
        self._lock = threading.Lock()
        self._held: _Held | None = None
        self._run: _Run | None = None
        self._not_before = 0.0

    def ready(self) -> str | None:
        """The token, where it can be used at once and need not be renewed: the way of nearly all calls."""
        held = self._held
        return held.text if held is not None and self._clock().monotonic() < held.renew_at else None

    async def get(self) -> str:
        """The token, fetched where there is none. One that ends soon is renewed by one, while the others go on with it.

        Raises:
            ProviderError: It could not be fetched.
        """
        while True:
            held = self._held
            if held is not None:
                now = self._clock().monotonic()
                if now < held.renew_at:
                    return held.text
                if now < held.ends_at:
                    return await self._renewed(held, now)
            outcome = await self._wait(self._begin(renews=False)[0])
            if isinstance(outcome, Exception):
                # Each call has an error of its own: the engine writes into it what that call did.
                raise copy.copy(outcome).with_traceback(outcome.__traceback__) from outcome.__cause__
            if outcome is not None:
                return outcome.text

    def discard(self, text: str) -> None:
        """Throw this token away, which was refused; another one stays."""
        with self._lock:
            if self._held is not None and self._held.text == text:
                self._held = None

    async def _renewed(self, held: _Held, now: float) -> str:
        """A new token for who comes first, the old one for the others, and for all where no new one is to be had."""
        if now < self._not_before:
            return held.text
        run, is_first = self._begin(renews=True)
        if not is_first:
            return held.text
        try:
            with TimeLimit(self._clock(), PATIENCE):
                outcome = await self._wait(run)
        except TimeLimitPassed:
            return held.text
        return outcome.text if isinstance(outcome, Token) else held.text

    def _begin(self, *, renews: bool) -> tuple[_Run, bool]:
        """The fetch that runs, or a new one; and whether it is new."""
        with self._lock:
            now = self._clock().monotonic()
            run = self._run
            is_new = run is None or run.is_lost(now)
            if run is None or is_new:
                run = self._run = _Run(renews, now)
                run.task = asyncio.get_running_loop().create_task(self._fetched())
                run.task.add_done_callback(functools.partial(self._end, run))
            return run, is_new

    async def _fetched(self) -> Token:
        try:
            with TimeLimit(self._clock(), FETCH_TIMEOUT):
                return await self._fetch()
        except TimeLimitPassed:
            raise ProviderConnectionError(f"{self._name} did not answer within {FETCH_TIMEOUT:g} s") from None

    def _end(self, run: _Run, task: asyncio.Task[Token]) -> None:
        outcome: _Outcome = None
        if not task.cancelled():
            error = task.exception()
            if error is not None and not isinstance(error, Exception):
                error = None  # the loop is being torn down, and raises it itself
            outcome = error if error is not None else task.result()
        with self._lock:
            now = self._clock().monotonic()
            if isinstance(outcome, Token):
                self._held = _held(outcome, now)
            elif outcome is not None and run.renews:
                self._not_before = now + PAUSE
            if self._run is run:
                self._run = None
            run.is_over, run.outcome = True, outcome
            waiters, run.waiters = run.waiters, []
        if run.renews and isinstance(outcome, Exception):
            logging.getLogger(__name__).warning("%s was not renewed, and is used until it ends: %s", self._name, outcome)
        for woken in waiters:
            with contextlib.suppress(RuntimeError):  # its loop is closed
                woken.get_loop().call_soon_threadsafe(_wake, woken)

    async def _wait(self, run: _Run) -> _Outcome:
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        with self._lock:
            if run.is_over:
                return run.outcome
            run.waiters.append(woken)
        try:
            await woken
        finally:
            with self._lock:
                unwanted = False
                if woken in run.waiters:  # cancelled
                    run.waiters.remove(woken)
                    unwanted = not run.waiters and not run.renews
                    if unwanted and self._run is run:
                        self._run = None
            if unwanted:
                # Nobody would ever close the connection of a fetch that hangs.
                with contextlib.suppress(RuntimeError):
                    run.loop.call_soon_threadsafe(run.task.cancel)
        return run.outcome


def _wake(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)


class _Run:
    """One fetch. All loops may wait for it, each on a future of its own."""

    __slots__ = ("_began", "is_over", "loop", "outcome", "renews", "task", "waiters")

    task: asyncio.Task[Token]

    def __init__(self, renews: bool, began: float) -> None:  # noqa: FBT001  # private, and named at its one use
        self.renews = renews
        self.loop = asyncio.get_running_loop()
        self.waiters: list[asyncio.Future[None]] = []
        self.outcome: _Outcome = None
        self.is_over = False
        self._began = began

    def is_lost(self, now: float) -> bool:
        """Whether its loop is closed, or has been standing still for so long that it will not go on."""
        return self.loop.is_closed() or now - self._began > 2 * FETCH_TIMEOUT


def _held(token: Token, now: float) -> _Held:
    if token.lifetime is None:
        return _Held(token.text, float("inf"), float("inf"))
    return _Held(token.text, now + token.lifetime - EARLY, now + token.lifetime)


def lifetime(ends_at: object, headers: Mapping[str, str], clock: Clock) -> float | None:
    """Seconds until a moment that an answer names, in seconds or milliseconds since the epoch; ``None`` where it names none.

    What was just given has not ended: where it seems so, this machine's clock is wrong, and the answer's own date counts.
    """
    try:
        moment = float(ends_at)  # type: ignore[arg-type]  # whatever it is: a number, its text, or neither
    except (TypeError, ValueError):
        return None
    if moment > 1e11:
        moment /= 1000
    left = moment - clock.time()
    if left <= 0:
        left = moment - clock_of(headers)
    return left if left > 0 else None
