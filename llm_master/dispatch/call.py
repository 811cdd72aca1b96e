"""One query on its way: what is sent, by whom, and what is written down of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from llm_master.clock import Clock
from llm_master.dispatch.estimate import estimate_tokens, payload_tokens
from llm_master.dispatch.hooks import Hooks
from llm_master.dispatch.keys import INVALID_FOR, NO_FUNDS_FOR, KeyState
from llm_master.dispatch.lease import Lease, Line, Outlook
from llm_master.dispatch.limits import NEVER, ONE, Ask
from llm_master.dispatch.pool import NoCapacity
from llm_master.dispatch.retry import FALLBACK_WAIT, KeyEffect, Rule, backoff, rule_for, spoken
from llm_master.dispatch.sending import send, total_cost, wrapped
from llm_master.dispatch.target import Target
from llm_master.dispatch.time_limit import TimeLimit, TimeLimitPassed
from llm_master.dispatch.told import no_capacity, out_of_time, shows_a_key, translated
from llm_master.errors import InvalidOutputError, InvalidRequestError, LLMError, RateLimitError
from llm_master.pricing import STANDARD_TIERS, PriceList
from llm_master.rows import ModelConfig
from llm_master.types import Attempt, CostState, LLMResponse, Message, RateLimitState, Receipt, StreamPiece, Usage, WireAnswer

if TYPE_CHECKING:
    # What few queries need is loaded when one does.
    from llm_master.results import Result
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
        "_failures",
        "_lookup",
        "_max_attempts",
        "_refused",
        "_ticket",
        "_translate",
        "_wait",
        "_why",
        "attempt",
        "before",
        "began",
        "clock",
        "deadline",
        "deadline_at",
        "fallbacks",
        "hooks",
        "how",
        "lease",
        "line",
        "messages",
        "operation",
        "options",
        "priority",
        "provider",
        "receipt",
        "repair",
        "sends",
        "spent",
        "streams",
        "target",
        "timeout",
        "wanted",
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
        # Calls that answer in its place where it fails, in order; their own receipts are not used.
        self.fallbacks: list[Call] | None = None
        self.clock = clock
        self.deadline = deadline
        self.deadline_at = clock.monotonic() + deadline
        self.priority = 0
        self.hooks = hooks
        self._translate = translate
        self._max_attempts = max_attempts
        self.sends = 0
        self._failures = 0
        self._refused: frozenset[KeyState] = frozenset()
        self._ticket: int | None = None
        self._lookup: asyncio.Future[ModelConfig | None] | None = None
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

    async def answer(self) -> Any:
        """Send until there is an answer or no sense in going on: an ``LLMResponse``, or the operation's ``Result``.

        Raises:
            LLMError: What failed, with the receipt.
        """
        if self.before is not None:
            await self.prepare()
        while True:
            attempt = await self.begin() if self.line.counts_tokens else self.begun() or await self.begin()
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
            await self.settle(response)
            if self.wanted is not None:
                return await self._structured(response)
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
        lease = line.pool.lease(line, None, self._refused)
        return self._opened(lease) if lease is not None else None

    async def begin(self) -> Attempt:
        """Open the next attempt, once a key is to be had; at the next target, where this one has none in time."""
        while True:
            line = self.line
            ask = self._ask()
            lease = line.pool.lease(line, ask, self._refused)
            if lease is not None:
                return self._opened(lease)
            began = self.clock.monotonic()
            until = min(self.deadline_at, began + FALLBACK_WAIT) if self.fallbacks else self.deadline_at
            if self._ticket is None:
                self._ticket = line.pool.ticket()
            try:
                with TimeLimit(self.clock, until - began):
                    lease, why = await line.pool.wait(line, ask, self._refused, (-self.priority, self._ticket), until)
            except (NoCapacity, TimeLimitPassed) as exc:
                if isinstance(exc, TimeLimitPassed):
                    outlook = Outlook(line, line.need(ask), self._refused, self.clock.monotonic())
                    exc = NoCapacity(max(outlook.wait, 0.0), outlook.why)
                waited = self.clock.monotonic() - began
                if self.fallbacks:
                    self._wait += waited
                    self._switch(f"{self.target.route.provider} had no capacity in time ({exc.why})")
                    continue
                error = no_capacity(self, exc, waited, self._error)
                error.receipt = self.receipt
                raise error from (self._error.__cause__ if error is self._error else None)
            waited = self.clock.monotonic() - began
            if waited > 0:
                self._wait += waited
                self._why = self._why or why
            return self._opened(lease)

    def _ask(self) -> Ask:
        line = self.line
        if not line.counts_tokens:
            return None
        options = self.options
        if self.operation is None:
            estimated = estimate_tokens(self.messages, options.get("tools"))
            most = options.get("max_tokens") or options.get("max_completion_tokens") or options.get("max_output_tokens")
        else:
            estimated, most = payload_tokens(self.messages), 0
        ask = (estimated, most if isinstance(most, int) else self.target.max_output_tokens)
        need = line.need(ask)
        if need[1] > line.smallest and (reason := line.too_large(need)) is not None:
            error = InvalidRequestError(
                f"the request to {self.target.name} can never be sent: {reason}. Shorten it, or correct the limit",
                provider=self.target.route.provider,
                model=self.target.route.model,
            )
            error.receipt = self.receipt
            raise error
        return ask

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
        if self._lookup is None and self.target.look_up is not None:
            # Beside the request, in a thread, and at most once per model.
            self._lookup = asyncio.get_running_loop().run_in_executor(None, self.target.look_up)
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
            self._refused |= {lease.slot.state}
        wait, why = self._again(rule, asked, cooling)
        if wait is None and rule.fallback and self.fallbacks and self.sends < self._max_attempts:
            self.write_failure(error, f"{why}; fallback to {self.fallbacks[0].target.name!r}")
            self._switch(f"fallback, since {self.target.name!r} failed")
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

    def _again(self, rule: Rule, asked: float | None, cooling: float | None) -> tuple[float | None, str]:
        """After how many seconds it is sent again, ``None`` for never; and why."""
        if rule.then == "raise":
            return None, "sending it again would not help"
        if self.sends >= self._max_attempts:
            return None, f"given up: {self.sends} sends, which is max_attempts"
        now = self.clock.monotonic()
        left = self.deadline_at - now
        if rule.then == "backoff":
            if self._failures >= self.target.row.max_retries:
                return None, f"given up after {self._failures} repetitions (max_retries)"
            if not self.target.budget.take():
                return None, "given up: too much fails at this provider just now, and the process's retry budget for it is used up"
            wait = backoff(self._failures, asked)
            self._failures += 1
            if wait < left:
                return wait, f"it may pass: again in {spoken(wait)}"
        else:
            outlook = Outlook(self.line, ONE, self._refused, now)
            wait = outlook.wait
            if wait == NEVER:
                return None, f"sending it again would not help: {outlook.why}" if len(
                    self.line.slots
                ) > 1 else "sending it again would not help"
            if wait == 0:
                return (
                    0.0,
                    "rate limited: again at once, as the provider asks"
                    if cooling == 0
                    else f"{_LEFT_ALONE[rule.key]}; another key at once",
                )
            by_provider = asked is not None and cooling is not None and wait <= cooling and wait <= asked
            why = f"rate limited: again in {spoken(wait)}" + (", as the provider asks" if by_provider else "")
            if wait < (min(left, FALLBACK_WAIT) if self.fallbacks else left):
                return wait, why
        return None, f"given up: it could be sent again in {spoken(wait)}, and the deadline is in {spoken(max(left, 0))}"

    def _switch(self, why: str) -> None:
        """Go on as the next fallback."""
        assert self.fallbacks
        other = self.fallbacks.pop(0)
        if self.spent is not None and other.target.row.currency != self.receipt.currency:
            self.spent = (None, "unknown")
        for name in _OF_THE_TARGET:
            setattr(self, name, getattr(other, name))
        self.why = f"{why}; {other.target.route.why}"
        self._failures = 0
        self._refused = frozenset()
        self._ticket = self._lookup = self._error = None
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
        self.close_attempt(then)

    def close_attempt(self, then: str | None) -> None:
        """The attempt is over, well or not."""
        attempt = self.attempt
        if attempt is None:
            return
        attempt.then = then
        if attempt.latency is None:
            attempt.latency = self.clock.monotonic() - self.began
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug(
                "attempt %d: %s %s with %s: %s in %.3f s%s",
                len(self.receipt.attempts),
                attempt.provider,
                attempt.model,
                attempt.key or "no key",
                attempt.error or attempt.status or "answered",
                attempt.latency,
                f"; {then}" if then else "",
            )
        if self.hooks is not None:
            self.hooks.attempt(attempt, self.receipt)

    # After an answer.

    async def settle(self, response: LLMResponse | Result) -> None:
        """Give the key back and the answer its names, its cost and its receipt."""
        attempt = self.attempt
        target = self.target
        receipt = self.receipt
        wire = response.wire
        lease = self.lease
        assert attempt is not None
        assert lease is not None
        attempt.model_served = response.model_name or None
        response.model_name = target.name
        response.provider = target.route.provider
        response.receipt = receipt
        read = sent_at = None
        if wire is not None:
            attempt.status = wire.status
            attempt.request_id = wire.request_id
            if (headers := wire.headers) is not None:
                read = partial(self.provider.rate_limits, headers)
            sent_at = wire.sent_at
        lease.done(response.usage, read, sent_at)
        if target.budget.left < target.budget.FULL:
            target.budget.answered()
        if self._lookup is not None:
            try:
                model = await self._lookup
            except Exception as exc:
                # The answer is there and paid for; that its price is not known is said by the receipt.
                logger.warning("no price for %s: the price list failed: %s: %s", target.name, type(exc).__name__, exc)
                model = None
            target.look_up = None
            target.prices = PriceList(model) if model is not None else None
        cost, cost_state = self.cost_of(response.usage, wire)
        response.cost = attempt.cost = receipt.cost = cost
        attempt.cost_state = receipt.cost_state = cost_state
        if self.spent is not None:
            receipt.cost, receipt.cost_state = total_cost(self.spent, (cost, cost_state))
        if self.hooks is not None or logger.isEnabledFor(logging.DEBUG):
            self.close_attempt(None)
            if self.hooks is not None and self.wanted is None:
                self.hooks.response(response)

    def cost_of(self, usage: Usage, wire: WireAnswer | None) -> tuple[Decimal | None, CostState]:
        """What the attempt cost, and how that is known. What the provider itself billed wins."""
        if usage.cost is not None:
            return usage.cost, "billed"
        prices = self.target.prices
        if prices is None or self.target.row.skip_cost_calculation or (wire is not None and wire.service_tier not in STANDARD_TIERS):
            return None, "unknown"
        return prices.cost(usage)

    async def _structured(self, response: LLMResponse) -> LLMResponse:
        """Read the form that was asked for; where it is not there, ask once more if that was agreed."""
        from llm_master.structured import finish, repair_messages

        assert self.wanted is not None
        repaired = self.repair is None
        try:
            finish(self.wanted, self.how, response, repaired=repaired)
        except InvalidOutputError as exc:
            otherwise = "raised: " + ("it was asked once more already" if repaired else "repair=True would ask once more")
            self.note_invalid(exc, "asked once more" if self.repair else otherwise)
            if not self.repair:
                raise
            self.repair = None
            self.spent = (self.receipt.cost, self.receipt.cost_state)
            self.messages = repair_messages(self.messages, response, exc.__cause__ or exc)
            again: LLMResponse = await self.answer()
            return again
        if self.hooks is not None:
            self.hooks.response(response)
        return response

    def note_invalid(self, exc: InvalidOutputError, then: str) -> None:
        """Write down that an answer is not of the form that was asked for."""
        exc.provider, exc.model, exc.receipt = self.target.route.provider, self.target.route.model, self.receipt
        if self.attempt is not None:
            self.attempt.error, self.attempt.then = f"{type(exc).__name__}: {exc}", then


_LEFT_ALONE: dict[KeyEffect, str] = {
    "invalid": f"the key is not used for {spoken(INVALID_FOR)}",
    "denied": f"the key is not used for this model for {spoken(INVALID_FOR)}",
    "no_funds": f"the key is not used for {spoken(NO_FUNDS_FOR)}",
    "limited": "the key is left to cool",
}

_OF_THE_TARGET = ("target", "line", "messages", "options", "operation", "streams", "timeout", "before", "wanted", "how", "provider")
"""What changes when a fallback takes over."""
