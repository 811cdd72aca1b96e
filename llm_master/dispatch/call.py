"""One query on its way: what is sent, by whom, and what is written down of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Protocol

from llm_master.clock import Clock
from llm_master.dispatch.gate import Gate
from llm_master.dispatch.keys import Key
from llm_master.dispatch.retry import Retries
from llm_master.dispatch.target import Target
from llm_master.dispatch.time_limit import TimeLimit, TimeLimitPassed
from llm_master.errors import (
    ConfigurationError,
    DeadlineExceededError,
    InvalidOutputError,
    LLMError,
    ProviderError,
    RateLimitError,
    RequestTimeoutError,
)
from llm_master.pricing import STANDARD_TIERS, PriceList
from llm_master.rows import ModelConfig
from llm_master.types import Attempt, CostState, LLMResponse, Message, Receipt, StreamPiece, Usage, WireAnswer

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


class Call:
    """One query, resolved and translated. It sends, repeats what may pass, and keeps the receipt."""

    __slots__ = (
        "_began",
        "_deadline",
        "_deadline_at",
        "_lookup",
        "_retries",
        "_timeout",
        "_translate",
        "attempt",
        "before",
        "clock",
        "gate",
        "how",
        "key",
        "messages",
        "operation",
        "options",
        "provider",
        "receipt",
        "repair",
        "spent",
        "target",
        "wanted",
    )

    def __init__(
        self,
        target: Target,
        provider: Provider,
        key: Key | None,
        messages: Sequence[Any],
        options: dict[str, Any],
        renamed: Mapping[str, str],
        dropped: Sequence[str],
        *,
        operation: str | None = None,
        gate: Gate | None = None,
        timeout: float,
        deadline: float,
        max_attempts: int,
        clock: Clock,
        translate: Callable[[Exception, str | None], Exception],
    ) -> None:
        self.target = target
        self.provider = provider
        self.key = key
        self.messages = messages
        self.options = options
        self.clock = clock
        self._timeout = timeout
        self._deadline = deadline
        self._deadline_at = clock.monotonic() + deadline
        self._translate = translate
        self._retries = Retries(target.row.max_retries, max_attempts)
        self._lookup: asyncio.Future[ModelConfig | None] | None = None
        self._began = 0.0
        route = target.route
        self.attempt: Attempt | None = None
        # The method of the provider that is called with messages, where it is not to generate.
        self.operation = operation
        # What bounds the requests in flight to the provider, if anything does.
        self.gate = gate
        # What is awaited before anything is sent: media are loaded, the request is judged.
        self.before: list[Callable[[Call], Awaitable[None]]] | None = None
        self.wanted: Wanted | None = None
        self.how: How = "json_schema"
        # Whether to ask once more where the answer does not fit; None once that was done.
        self.repair: bool | None = False
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
        wait, why = 0.0, None
        gate = self.gate
        while True:
            if gate is not None:
                wait, why = await self.enter(gate, wait, why)
            attempt = self.begin(wait, why)
            limit, is_deadline = self.time_left()
            try:
                with TimeLimit(self.clock, limit):
                    response = await self._send()
            except BaseException as exc:
                if gate is not None:
                    gate.leave()
                if not isinstance(exc, Exception):
                    raise
                wait, why = await self.failed(exc, is_deadline=is_deadline)
                continue
            if gate is not None:
                gate.leave()
            if response.__class__ is not LLMResponse or self.operation is not None:
                response = self._wrapped(response)
            response.latency = attempt.latency = self.clock.monotonic() - self._began
            await self.settle(response)
            return response if self.wanted is None else await self._structured(response)

    async def prepare(self) -> None:
        """Do what must be done before the first send, within the deadline."""
        steps, self.before = self.before or [], None
        try:
            for step in steps:
                with TimeLimit(self.clock, self._deadline_at - self.clock.monotonic()):
                    await step(self)
        except TimeLimitPassed:
            error = DeadlineExceededError(
                f"the deadline of {self._deadline:g} s passed before anything was sent to {self.target.route.provider}; give more with deadline="
            )
            error.receipt = self.receipt
            raise error from None
        except LLMError as exc:
            exc.receipt = self.receipt
            raise

    async def enter(self, gate: Gate, wait: float, why: str | None) -> tuple[float, str | None]:
        """Wait for a place at the gate, within the deadline; return what the next attempt has waited in all, and why."""
        began = self.clock.monotonic()
        try:
            with TimeLimit(self.clock, self._deadline_at - began):
                await gate.enter()
        except TimeLimitPassed:
            error = self.expired(is_deadline=True)
            error.args = (f"{error.args[0]}: it waited for one of the {gate.limit} places that max_concurrent allows",)
            error.receipt = self.receipt
            raise error from None
        waited = self.clock.monotonic() - began
        if waited <= 0:
            return wait, why
        reason = f"{gate.limit} requests were in flight, and max_concurrent allows no more"
        return wait + waited, f"{why}; {reason}" if why else reason

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
        return response

    def note_invalid(self, exc: InvalidOutputError, then: str) -> None:
        """Write down that an answer is not of the form that was asked for."""
        exc.provider, exc.model, exc.receipt = self.receipt.provider, self.target.route.model, self.receipt
        if self.attempt is not None:
            self.attempt.error, self.attempt.then = f"{type(exc).__name__}: {exc}", then

    def begin(self, wait: float, why: str | None) -> Attempt:
        """Open the next attempt."""
        route = self.target.route
        self.attempt = attempt = Attempt(
            provider=route.provider,
            model=route.model,
            key=self.key.name if self.key is not None else None,
            wait=wait,
            wait_reason=why,
        )
        self.receipt.attempts.append(attempt)
        self._retries.sends += 1
        self._began = self.clock.monotonic()
        if self._lookup is None and self.target.look_up is not None:
            # Beside the request, in a thread, and at most once per model.
            self._lookup = asyncio.get_running_loop().run_in_executor(None, self.target.look_up)
        return attempt

    def time_left(self) -> tuple[float, bool]:
        """Seconds that the attempt may still take, and whether it is the deadline that says so."""
        left = self._deadline_at - self.clock.monotonic()
        return (self._timeout, False) if self._timeout < left else (left, True)

    @property
    def timeout(self) -> float:
        """Seconds for one attempt; of a stream, for each gap."""
        return self._timeout

    @property
    def deadline_at(self) -> float:
        """When the deadline passes, on the clock's monotonic time."""
        return self._deadline_at

    def expired(self, *, is_deadline: bool) -> LLMError:
        """The error for a time limit that passed."""
        route = self.target.route
        if is_deadline:
            before = self.receipt.attempts[-2].error if len(self.receipt.attempts) > 1 else None
            before = f" (before that: {before})" if before else ""
            return DeadlineExceededError(
                f"no answer from {route.provider} within the deadline of {self._deadline:g} s{before}; give more with deadline="
            )
        return RequestTimeoutError(
            f"no answer from {route.provider} within {self._timeout:g} s; give more with timeout=",
            provider=route.provider,
            model=route.model,
        )

    def translated(self, exc: Exception, *, is_deadline: bool) -> Exception:
        """The library's error for whatever was raised, naming the provider."""
        if isinstance(exc, TimeLimitPassed):
            return self.expired(is_deadline=is_deadline)
        error = self._translate(exc, self.target.route.model)
        if isinstance(error, ProviderError):
            if error.provider is None:
                error.provider = self.target.route.provider
                error.args = (f"{error.provider}: {error.args[0]}" if error.args else error.provider,)
            if error.model is None:
                error.model = self.target.route.model
            if self.key is not None and error.args and self.key.secret in str(error.args[0]):
                # Some providers repeat the key that they refuse.
                error.args = (str(error.args[0]).replace(self.key.secret, self.key.name), *error.args[1:])
        return error

    async def failed(self, exc: Exception, *, is_deadline: bool) -> tuple[float, str]:
        """Write the failure down; wait if it may pass, else raise.

        Returns:
            What the next attempt waited, and why.
        """
        error = self.translated(exc, is_deadline=is_deadline)
        decision = self._retries.decide(error, self._deadline_at - self.clock.monotonic())
        self.write_failure(error, decision.why)
        if decision.wait is None:
            if isinstance(error, RateLimitError) and self._retries.sends:
                error.args = (f"{error.args[0]} ({decision.why})",)
            cause = exc.__cause__ if error is exc else exc
            if self.key is not None and self.key.secret in str(cause):
                cause = None  # a traceback would show it
            raise error from cause
        await self.clock.sleep(decision.wait)
        return decision.wait, decision.why

    def write_failure(self, error: Exception, then: str) -> None:
        """Close the attempt with an error, and give the error the receipt."""
        attempt = self.attempt
        if attempt is not None:
            attempt.latency = self.clock.monotonic() - self._began
            attempt.status = getattr(error, "status", None)
            attempt.request_id = getattr(error, "request_id", None)
            attempt.error = f"{type(error).__name__}: {error}"
            attempt.then = then
            logger.debug("%s %s: %s; %s", attempt.provider, attempt.model, attempt.error, then)
        if isinstance(error, LLMError):
            error.receipt = self.receipt

    async def settle(self, response: LLMResponse | Result) -> None:
        """Give the answer its names, its cost and its receipt."""
        attempt = self.attempt
        target = self.target
        receipt = self.receipt
        wire = response.wire
        assert attempt is not None
        attempt.model_served = response.model_name or None
        response.model_name = target.name
        response.provider = receipt.provider
        response.receipt = receipt
        if wire is not None:
            attempt.status = wire.status
            attempt.request_id = wire.request_id
        if self._lookup is not None:
            try:
                model = await self._lookup
            except Exception as exc:
                # The answer is there and paid for; that its price is not known is said by the receipt.
                logger.warning("no price for %s: the price list failed: %s: %s", target.name, type(exc).__name__, exc)
                model = None
            target.look_up = None
            target.prices = PriceList(model) if model is not None else None
        cost, state = self.cost_of(response.usage, wire)
        response.cost = attempt.cost = receipt.cost = cost
        receipt.cost_state = state
        if self.spent is not None:
            receipt.cost, receipt.cost_state = total_cost(self.spent, (cost, state))

    def cost_of(self, usage: Usage, wire: WireAnswer | None) -> tuple[Decimal | None, CostState]:
        """What the attempt cost, and how that is known. What the provider itself billed wins."""
        if usage.cost is not None:
            return usage.cost, "billed"
        prices = self.target.prices
        if prices is None or self.target.row.skip_cost_calculation or (wire is not None and wire.service_tier not in STANDARD_TIERS):
            return None, "unknown"
        return prices.cost(usage)

    def _send(self) -> Awaitable[Any]:
        route = self.target.route
        if self.operation is not None:
            return getattr(self.provider, self.operation)(*self.messages, route.model, **self.options)  # type: ignore[no-any-return]
        if route.generator is None:
            return self.provider.generate(self.messages, route.model, **self.options)
        if isinstance(route.generator, str):
            method = getattr(self.provider, route.generator, None)
            if method is None:
                raise ConfigurationError(
                    f"provider row {route.provider!r}: generate_map names the method {route.generator!r}, "
                    f"which {type(self.provider).__name__} does not have"
                )
            return method(self.messages, route.model, **self.options)  # type: ignore[no-any-return]
        return route.generator(self.provider, self.messages, route.model, **self.options)  # type: ignore[no-any-return]

    def pieces(self, *, streams: bool) -> AsyncIterator[StreamPiece | LLMResponse]:
        """The answer in pieces; of what does not stream, in one."""
        if self.gate is not None:
            return self._leaving(self.gate, streams=streams)
        return self._streamed() if streams else self._whole()

    async def _leaving(self, gate: Gate, *, streams: bool) -> AsyncIterator[StreamPiece | LLMResponse]:
        """The same pieces; the place at the gate is free when they end, break, or nobody wants them."""
        pieces: AsyncIterator[StreamPiece | LLMResponse] | None = None
        try:
            # In here, since a provider's stream() that is no generator may raise at once.
            pieces = self._streamed() if streams else self._whole()
            async for piece in pieces:
                yield piece
        finally:
            gate.leave()
            if (close := getattr(pieces, "aclose", None)) is not None:
                await close()

    def _streamed(self) -> AsyncIterator[StreamPiece]:
        pieces = self.provider.stream(self.messages, self.target.route.model, **self.options)
        if self.wanted is None:
            return pieces
        from llm_master.structured import as_text

        return as_text(pieces, self.how, self.wanted.name)

    async def _whole(self) -> AsyncIterator[str | LLMResponse]:
        response = self._wrapped(await self._send())
        if self.how == "tool" and self.wanted is not None:
            from llm_master.structured import finish

            with contextlib.suppress(InvalidOutputError):  # raised at the stream's end, after the text
                finish(self.wanted, self.how, response)
        if response.content:
            yield response.content
        yield response

    def _wrapped(self, response: Any) -> Any:
        if self.operation is not None:
            from llm_master import results

            kinds = {"embed": results.EmbeddingResponse, "moderate": results.ModerationResponse, "rerank": results.RerankResponse}
            returns: type = kinds.get(self.operation, LLMResponse)
            if not isinstance(response, returns):
                raise TypeError(
                    f"{type(self.provider).__name__}.{self.operation} returned a {type(response).__name__}; it must return {returns.__name__}"
                )
            return response
        if isinstance(response, LLMResponse):
            return response
        if isinstance(response, str):
            return LLMResponse(response, self.target.route.model)
        route = self.target.route
        who = type(self.provider).__name__
        if route.generator is not None:
            who = f"what generate_map of {route.provider!r} names for {route.model!r}"
        raise TypeError(f"{who} returned a {type(response).__name__}; a provider returns an LLMResponse or a str")


_STATES: tuple[CostState, ...] = ("billed", "exact", "estimated", "unknown")


def total_cost(*costs: tuple[Decimal | None, CostState]) -> tuple[Decimal | None, CostState]:
    """The sum of several costs, which is known no better than the worst known of them."""
    known = [cost for cost, _ in costs if cost is not None]
    if len(known) < len(costs):
        return None, "unknown"
    states = {state for _, state in costs}
    if states == {"billed", "exact"}:
        return sum(known, Decimal()), "exact"
    return sum(known, Decimal()), max(states, key=_STATES.index)
