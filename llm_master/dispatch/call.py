"""One query on its way: what is sent, by whom, and what is written down of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Protocol

from llm_master.clock import Clock
from llm_master.dispatch.choosing import Outlook
from llm_master.dispatch.deciding import again, ask_of
from llm_master.dispatch.forms import in_form
from llm_master.dispatch.hooks import Hooks, Watch, observed
from llm_master.dispatch.keys import KeyState
from llm_master.dispatch.lease import Lease
from llm_master.dispatch.line import Line
from llm_master.dispatch.pool import NoCapacity
from llm_master.dispatch.retry import FALLBACK_WAIT, rule_for
from llm_master.dispatch.sending import send, wrapped
from llm_master.dispatch.settling import settle
from llm_master.dispatch.successors import Successors
from llm_master.dispatch.target import Target
from llm_master.dispatch.time_limit import TimeLimit, TimeLimitPassed
from llm_master.dispatch.told import log_attempt, no_capacity, out_of_time, shows_a_key, translated
from llm_master.errors import InvalidOutputError, LLMError, RateLimitError
from llm_master.model_rows import ModelConfig
from llm_master.types import Attempt, CostState, LLMResponse, Message, RateLimitState, Receipt, StreamPiece

if TYPE_CHECKING:
    # What few queries need is loaded when one does.
    from llm_master.structured import How, Wanted

logger = logging.getLogger("llm_master.dispatch")


class Provider(Protocol):
    """What is asked of a provider here."""

    async def generate(self, messages: Sequence[Message], model: str, **options: Any) -> LLMResponse | str:
        """A whole answer."""

    def stream(self, messages: Sequence[Message], model: str, **options: Any) -> AsyncIterator[StreamPiece]:
        """An answer in pieces."""

    def rate_limits(self, headers: Mapping[str, str]) -> RateLimitState | None:
        """What an answer's headers say of the limits, if anything."""


class Call:
    """One query, resolved and translated. It sends, changes key or target, repeats what may pass, and keeps the receipt."""

    __slots__ = (
        "_error",
        "_ticket",
        "_translate",
        "_wait",
        "_why",
        "again",
        "attempt",
        "before",
        "began",
        "clock",
        "deadline",
        "deadline_at",
        "failures",
        "hooks",
        "how",
        "lease",
        "line",
        "lookup",
        "max_attempts",
        "messages",
        "operation",
        "options",
        "priority",
        "provider",
        "receipt",
        "refused",
        "repair",
        "sends",
        "spent",
        "streams",
        "successors",
        "target",
        "timeout",
        "told",
        "wanted",
        "watch",
        "why",
    )

    def __init__(
        self,
        target: Target,
        line: Line,
        messages: Sequence[Any],
        options: dict[str, Any],
        renamed: Mapping[str, str],
        dropped: Sequence[str],
        *,
        operation: str | None,
        streams: bool,
        timeout: float,
        deadline: float,
        max_attempts: int,
        clock: Clock,
        translate: Callable[[Exception, str | None], Exception],
        hooks: Hooks | None,
    ) -> None:
        self.target = target
        self.line = line
        self.messages = messages
        self.options = options
        # The method of the provider that is called with messages, where it is not to generate.
        self.operation = operation
        # Whether it is asked for a stream, where the caller wants one.
        self.streams = streams
        # Seconds for one attempt; of a stream, for each gap.
        self.timeout = timeout
        # What is awaited before anything is sent: media are loaded, the request is judged.
        self.before: list[Callable[[Call], Awaitable[None]]] | None = None
        self.wanted: Wanted | None = None
        self.how: How = "json_schema"
        # Whether to ask once more where the answer does not fit; None once that was done.
        self.repair: bool | None = False
        # Makes the same call once more, for a hedge.
        self.again: Callable[[Call], Call | None] | None = None
        # Who answers in its place where it fails: calls whose own receipts are not used.
        self.successors: Successors | None = None
        self.clock = clock
        self.deadline = deadline
        self.deadline_at = clock.monotonic() + deadline
        self.priority = 0
        self.hooks = hooks
        # Where somebody observes the query, from its beginning to its end; and the attempt of which hooks were told last.
        self.watch: Watch | None = None
        self.told: Attempt | None = None
        self._translate = translate
        self.max_attempts = max_attempts
        self.sends = 0
        self.failures = 0
        self.refused: frozenset[KeyState] = frozenset()
        self._ticket: int | None = None
        # Of a model that the registry does not know: the price list's word on it, under way.
        self.lookup: asyncio.Future[ModelConfig | None] | None = None
        # Of the next attempt: what it has waited, and why.
        self._wait = 0.0
        self._why: str | None = None
        self._error: Exception | None = None
        self.began = 0.0
        # Why this target.
        route = target.route
        self.why = route.why
        self.lease: Lease | None = None
        # The object that speaks with the leased key; until then, with the first one.
        self.provider: Provider = line.slots[0].provider
        self.attempt: Attempt | None = None
        # What earlier sends that brought an answer have cost.
        self.spent: tuple[Decimal | None, CostState] | None = None
        self.receipt = Receipt(
            model_name=target.name,
            provider=route.provider,
            why=route.why,
            options=options,
            renamed=renamed,
            dropped=tuple(dropped),
            currency=target.row.currency,
        )

    def answer(self) -> Coroutine[Any, Any, Any]:
        """Send until there is an answer or no sense in going on: an ``LLMResponse``, or the operation's ``Result``.

        Raises:
            LLMError: What failed, with the receipt.
        """
        # Nobody observes, or this is one more request of a query that is observed: no coroutine around it.
        return self._answer() if self.hooks is None or self.watch is not None else observed(self.hooks, self, self._answer())

    async def _answer(self) -> Any:
        if self.before is not None:
            await self.prepare()
        while True:
            attempt = self.begun() or await self.begin()
            left = self.deadline_at - self.began
            is_deadline = left <= self.timeout
            try:
                with TimeLimit(self.clock, left if is_deadline else self.timeout):
                    response = await send(self)
                if response.__class__ is not LLMResponse or self.operation is not None:
                    response = wrapped(self, response)
            except BaseException as exc:
                await self.failed(exc, is_deadline=is_deadline)
                continue
            response.latency = attempt.latency = self.clock.monotonic() - self.began
            await settle(self, response)
            if self.wanted is not None:
                return await in_form(self, response)
            return response

    async def prepare(self) -> None:
        """Do what must be done before the first send, within the deadline."""
        steps, self.before = self.before or [], None
        try:
            for step in steps:
                with TimeLimit(self.clock, self.deadline_at - self.clock.monotonic()):
                    await step(self)
        except TimeLimitPassed:
            error = out_of_time(self, "passed before anything was sent to")
            error.receipt = self.receipt
            raise error from None
        except LLMError as exc:
            exc.receipt = self.receipt
            raise

    # Before an attempt: a lease.

    def begun(self) -> Attempt | None:
        """Open the next attempt, if a key is to be had at once."""
        line = self.line
        pool = line.pool
        if pool.waiting or pool.sharing is not None:  # which has to be asked
            return None
        lease = pool.lease(line, ask_of(self) if line.counts_tokens else None, self.refused)
        return self._opened(lease) if lease is not None else None

    async def begin(self) -> Attempt:
        """Open the next attempt, once a key is to be had; at the next target, where this one has none in time."""
        since: float | None = None
        while True:
            line = self.line
            ask = ask_of(self)
            sharing = line.pool.sharing
            if sharing is not None and self._ticket is None:  # refused there, it keeps its place here
                self._ticket = line.pool.ticket()
            lease = line.pool.lease(line, ask, self.refused) if not line.pool.waiting else None
            if lease is not None:
                if sharing is None or await sharing.admit(lease):
                    return self._opened(lease)
                continue
            began = self.clock.monotonic()
            if since is None:
                since = began
            until = min(self.deadline_at, since + FALLBACK_WAIT) if self.successors else self.deadline_at
            if self._ticket is None:
                self._ticket = line.pool.ticket()
            try:
                with TimeLimit(self.clock, until - began):
                    lease, why = await line.pool.wait(line, ask, self.refused, (-self.priority, self._ticket), until)
            except (NoCapacity, TimeLimitPassed) as exc:
                if isinstance(exc, TimeLimitPassed):
                    outlook = Outlook(line, line.need(ask), self.refused, self.clock.monotonic())
                    exc = NoCapacity(max(outlook.wait, 0.0), outlook.why)
                waited = self.clock.monotonic() - began
                if self.successors and (other := self.successors.take()) is not None:
                    self._wait += waited
                    self._switch(other, f"{self.target.route.provider} had no capacity in time ({exc.why})")
                    since = None
                    continue
                error = no_capacity(self, exc, waited, self._error)
                error.receipt = self.receipt
                raise error from (self._error.__cause__ if error is self._error else None)
            waited = self.clock.monotonic() - began
            if waited > 0:
                self._wait += waited
                self._why = self._why or why
            if sharing is None or await sharing.admit(lease):
                return self._opened(lease)

    def _opened(self, lease: Lease) -> Attempt:
        self.lease = lease
        slot = lease.slot
        self.provider = slot.provider
        route = self.target.route
        self.attempt = attempt = Attempt(
            provider=route.provider,
            model=route.model,
            why=self.why,
            key=slot.state.name,
            wait=self._wait,
            wait_reason=self._why,
            options=self.options,
        )
        self.receipt.attempts.append(attempt)
        self.sends += 1
        self._wait, self._why = 0.0, None
        self.began = lease.at
        if self.lookup is None and self.target.look_up is not None:
            # Beside the request, in a thread, and at most once per model.
            self.lookup = asyncio.get_running_loop().run_in_executor(None, self.target.look_up)
        return attempt

    def time_left(self) -> tuple[float, bool]:
        """Seconds that the attempt may still take, and whether it is the deadline that says so."""
        left = self.deadline_at - self.clock.monotonic()
        return (self.timeout, False) if self.timeout < left else (left, True)

    # After a failure: another key, another target, another time, or none of them.

    async def failed(self, exc: BaseException, *, is_deadline: bool) -> None:
        """Write the failure down; return if it is to be sent again, once it may be, else raise."""
        lease = self.lease
        assert lease is not None
        if not isinstance(exc, Exception):
            lease.release()
            self.close_attempt("cancelled")
            raise exc
        error = self.translated(exc, is_deadline=is_deadline)
        rule = rule_for(error)
        asked: float | None = getattr(error, "retry_after", None)
        cooling = lease.failed(rule.key, error)
        if rule.then == "other_key":
            self.refused |= {lease.slot.state}
        wait, why = again(self, rule, asked, cooling)
        successors = self.successors
        if successors is not None:
            if successors.member is not None and (rule.fallback or rule.route) and rule.then != "raise":
                successors.member.health.broke(error, self.clock.monotonic())
            if wait is None and self.sends < self.max_attempts:
                other = successors.take(of_route=rule.fallback or rule.route, fallback=rule.fallback)
                if other is not None:
                    to_route = successors.member is not None
                    self.write_failure(error, f"{why}; {'next of the route is' if to_route else 'fallback to'} {other.target.name!r}")
                    told = f"route {successors.name!r}" if to_route else "fallback"
                    self._switch(other, f"{told}, since {self.target.name!r} failed")
                    return
        self.write_failure(error, why)
        if wait is None:
            if isinstance(error, RateLimitError):
                error.args = (f"{error.args[0]} ({why})",)
            raise error from self.cause(exc, error)
        self._error = error
        if rule.then == "backoff":
            await self.clock.sleep(wait)
            self._wait, self._why = wait, why
        elif wait > 0:  # for the limit: in the queue, where another key may be there sooner
            self._why = why

    def _switch(self, other: Call, why: str) -> None:
        """Go on as another call, which takes over."""
        if self.spent is not None and other.target.row.currency != self.receipt.currency:
            self.spent = (None, "unknown")
        for name in _OF_THE_TARGET:
            setattr(self, name, getattr(other, name))
        self.why = f"{why}; {other.target.route.why}"
        self.failures = 0
        self.refused = frozenset()
        self._ticket = self.lookup = self._error = None
        receipt, theirs = self.receipt, other.receipt
        receipt.options, receipt.renamed, receipt.dropped = theirs.options, theirs.renamed, theirs.dropped
        receipt.structured_output, receipt.currency = theirs.structured_output, theirs.currency

    def translated(self, exc: Exception, *, is_deadline: bool) -> Exception:
        """The library's error for whatever was raised, naming the provider and hiding the key."""
        error = out_of_time(self) if is_deadline and isinstance(exc, TimeLimitPassed) else exc
        return translated(self, error, self._translate)

    def cause(self, exc: Exception, error: Exception) -> BaseException | None:
        """What an error is raised from; nothing that a traceback would show the key with."""
        cause = exc.__cause__ if error is exc else exc
        return None if shows_a_key(self, cause) else cause

    def write_failure(self, error: Exception, then: str) -> None:
        """Close the attempt with an error, and give the error the receipt."""
        attempt = self.attempt
        if attempt is not None:
            attempt.status = getattr(error, "status", None)
            attempt.request_id = getattr(error, "request_id", None)
            attempt.error = f"{type(error).__name__}: {error}"
        if isinstance(error, LLMError):
            error.receipt = self.receipt
        self.close_attempt(then, getattr(error, "response", None))

    def close_attempt(self, then: str | None, response: Any = None) -> None:
        """The attempt is over, well or not."""
        attempt = self.attempt
        if attempt is None:
            return
        attempt.then = then
        if attempt.latency is None:
            attempt.latency = self.clock.monotonic() - self.began
        if logger.isEnabledFor(logging.DEBUG):
            log_attempt(attempt, len(self.receipt.attempts))
        if self.hooks is not None:
            self.hooks.attempt(self, response)

    def over(self, response: Any, error: BaseException | None = None) -> None:
        """Tell whoever observes that the query has ended."""
        watch, self.watch = self.watch, None
        if watch is not None:
            watch.ended(response, error)

    # After an answer: see settling.py.

    def note_invalid(self, exc: InvalidOutputError, then: str) -> None:
        """Write down that an answer is not of the form that was asked for."""
        exc.provider, exc.model, exc.receipt = self.target.route.provider, self.target.route.model, self.receipt
        if self.attempt is not None:
            self.attempt.error, self.attempt.then = f"{type(exc).__name__}: {exc}", then


_OF_THE_TARGET = ("target", "line", "messages", "options", "operation", "streams", "timeout", "before", "wanted", "how", "provider")
"""What changes when a fallback takes over."""
