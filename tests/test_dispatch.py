"""One query on its way: what is repeated, what is waited for, what is raised, and what the receipt says."""

from __future__ import annotations

import asyncio
import gc
import threading

import pytest

from llm_master import (
    PROVIDER_CONFIGS,
    AuthenticationError,
    BaseLLMProvider,
    ConfigurationError,
    ContentPolicyError,
    ContextWindowExceededError,
    DeadlineExceededError,
    InsufficientFundsError,
    InvalidRequestError,
    LLMConfig,
    LLMResponse,
    ModelNotFoundError,
    PermissionDeniedError,
    ProviderConfig,
    ProviderConnectionError,
    ProviderError,
    QueryLLM,
    RateLimitError,
    ReasoningDelta,
    RequestTimeoutError,
    ServerError,
    StreamEnd,
    StreamInterruptedError,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from llm_master.dispatch.keys import COOLING
from llm_master.dispatch.retry import BACKOFF_BASE, BACKOFF_CAP, TABLE, backoff, rule_for
from llm_master.dispatch.time_limit import TimeLimit, TimeLimitPassed
from llm_master.testing import FakeClock


class Never:
    """A step that no answer ever comes from."""


class Scripted(BaseLLMProvider):
    """Does one step of its script per call: raises it, answers with it, or waits for ever."""

    script: list
    calls: list

    async def generate(self, messages, model, **options):
        type(self).calls.append((model, list(messages), options))
        step = type(self).script.pop(0)
        if step is Never:
            await asyncio.Event().wait()
        if isinstance(step, BaseException):
            raise step
        return step


def provider(*script, base=Scripted, **row):
    """Put a provider with this script into the table; its class keeps what it was asked."""
    cls = type("Acme", (base,), {"script": list(script), "calls": []})
    PROVIDER_CONFIGS["acme"] = ProviderConfig(provider_class=cls, requires_key=False, **row)
    return cls


def llm(clock=None, **settings):
    return QueryLLM(LLMConfig(environment={}, clock=clock or FakeClock(auto_advance=True), **settings))


async def ask(clock=None, *, model="acme/large", max_attempts=10, **arguments):
    return await llm(clock, max_attempts=max_attempts).query(model, prompt="Hello", **arguments)


async def begun(task):
    """Let a task run until it waits."""
    for _ in range(10):
        await asyncio.sleep(0)
    return task


# The table from error to action

MAY_PASS = [ServerError, ProviderConnectionError, RequestTimeoutError]
HOPELESS = [
    AuthenticationError,
    PermissionDeniedError,
    InsufficientFundsError,
    InvalidRequestError,
    ModelNotFoundError,
    ContextWindowExceededError,
    ContentPolicyError,
]


@pytest.mark.parametrize("kind", MAY_PASS)
async def test_what_may_pass_is_sent_again(kind):
    clock = FakeClock(auto_advance=True)
    cls = provider(kind("once"), kind("twice"), "Hello")
    answer = await ask(clock)
    assert answer.content == "Hello"
    assert len(cls.calls) == 3
    assert len(clock.sleeps) == 2
    assert 0 <= clock.sleeps[0] <= BACKOFF_BASE
    assert 0 <= clock.sleeps[1] <= 2 * BACKOFF_BASE


@pytest.mark.parametrize("kind", HOPELESS)
async def test_what_cannot_pass_is_sent_once(kind):
    clock = FakeClock(auto_advance=True)
    error = kind("no", status=400)
    cls = provider(error)
    with pytest.raises(kind) as caught:
        await ask(clock)
    assert caught.value is error
    assert (len(cls.calls), clock.sleeps) == (1, [])
    assert "would not help" in caught.value.receipt.attempts[0].then


@pytest.mark.parametrize("retries", [0, 1, 2, 5])
async def test_max_retries_counts_repetitions_and_0_means_one_send(retries):
    cls = provider(*[ServerError(f"no. {number}") for number in range(10)], max_retries=retries)
    with pytest.raises(ServerError, match=f"no. {retries}") as caught:
        await ask()
    assert len(cls.calls) == retries + 1
    assert "max_retries" in caught.value.receipt.attempts[-1].then


@pytest.mark.parametrize("attempts", [1, 2, 4])
async def test_max_attempts_counts_sends_over_everything(attempts):
    failures = [ServerError("down"), RateLimitError("slow"), ServerError("down"), RateLimitError("slow"), ServerError("down")]
    cls = provider(*failures, max_retries=9)
    with pytest.raises(ProviderError) as caught:
        await ask(max_attempts=attempts)
    assert len(cls.calls) == attempts
    assert "max_attempts" in caught.value.receipt.attempts[-1].then


async def test_a_429_waits_10_30_60_and_then_120_seconds():
    clock = FakeClock(auto_advance=True)
    provider(*[RateLimitError("slow", status=429)] * 6, "Hello")
    await ask(clock, deadline=1000)
    assert clock.sleeps == [10, 30, 60, 120, 120, 120]
    assert tuple(clock.sleeps[:4]) == COOLING


async def test_a_429_does_not_use_up_max_retries():
    cls = provider(RateLimitError("slow"), ServerError("down"), RateLimitError("slow"), "Hello", max_retries=1)
    assert (await ask()).content == "Hello"
    assert len(cls.calls) == 4


async def test_a_429_that_says_how_long_is_taken_at_its_word():
    clock = FakeClock(auto_advance=True)
    provider(RateLimitError("slow", retry_after=7.5), RateLimitError("slow", retry_after=0), "Hello")
    answer = await ask(clock)
    assert clock.sleeps == [7.5]
    assert "as the provider asks" in answer.receipt.attempts[1].wait_reason
    assert answer.receipt.attempts[1].then == "rate limited: again at once, as the provider asks"


async def test_a_server_that_says_how_long_is_not_asked_before():
    clock = FakeClock(auto_advance=True)
    provider(ServerError("down", status=503, retry_after=42), "Hello")
    await ask(clock)
    assert clock.sleeps == [42]


async def test_a_wait_that_ends_after_the_deadline_fails_at_once_and_says_when():
    clock = FakeClock(auto_advance=True)
    cls = provider(RateLimitError("slow down", status=429, retry_after=3600))
    with pytest.raises(RateLimitError, match="again in 60 min") as caught:
        await ask(clock, deadline=60)
    assert (len(cls.calls), clock.sleeps, clock.monotonic()) == (1, [], 0)
    assert "deadline" in str(caught.value)
    assert caught.value.retry_after == 3600


async def test_429s_without_end_fail_before_the_deadline_and_not_after():
    clock = FakeClock(auto_advance=True)
    cls = provider(*[RateLimitError("slow") for _ in range(10)])
    with pytest.raises(RateLimitError):
        await ask(clock, deadline=105)
    assert clock.sleeps == [10, 30, 60]
    assert len(cls.calls) == 4


def test_the_table_says_what_the_design_says():
    said = {
        kind: (rule_for(kind("x")).key, rule_for(kind("x")).then, rule_for(kind("x")).fallback)
        for kind in [*MAY_PASS, *HOPELESS, RateLimitError]
    }
    assert said == {
        AuthenticationError: ("invalid", "other_key", True),
        PermissionDeniedError: ("denied", "other_key", True),
        InsufficientFundsError: ("no_funds", "other_key", True),
        RateLimitError: ("limited", "cool", True),
        ServerError: ("none", "backoff", True),
        ProviderConnectionError: ("none", "backoff", True),
        RequestTimeoutError: ("none", "backoff", True),
        InvalidRequestError: ("none", "raise", False),
        ModelNotFoundError: ("none", "raise", False),
        ContextWindowExceededError: ("none", "raise", True),
        ContentPolicyError: ("none", "raise", True),
    }
    assert rule_for(DeadlineExceededError("x")).then == rule_for(ValueError("x")).then == "raise"
    assert len({rule.error for rule in TABLE}) == len(TABLE)


@pytest.mark.parametrize("failures", range(8))
def test_a_backoff_grows_to_its_cap_and_no_further(failures):
    waits = [backoff(failures, None) for _ in range(200)]
    ceiling = min(BACKOFF_CAP, BACKOFF_BASE * 2**failures)
    assert all(0 <= wait <= ceiling for wait in waits)
    assert max(waits) - min(waits) > ceiling / 2, "full jitter"
    assert backoff(failures, 99) == 99


# The receipt


async def test_the_receipt_lists_every_attempt_with_its_wait_and_why():
    clock = FakeClock(auto_advance=True)
    provider(
        RateLimitError("slow", status=429, request_id="req_1"), ServerError("down", status=503), LLMResponse("Hello", "acme-large-0613")
    )
    answer = await ask(clock)
    first, second, third = answer.receipt.attempts
    assert (first.wait, first.status, first.request_id) == (0, 429, "req_1")
    assert first.error.startswith("RateLimitError: ")
    assert "again in 10 s" in first.then
    assert (second.wait, second.status) == (10, 503)
    assert "rate limited" in second.wait_reason
    assert third.wait == clock.sleeps[1]
    assert (third.error, third.then, third.model, third.model_served) == (None, None, "large", "acme-large-0613")
    assert (answer.model_name, answer.provider, answer.receipt.model_name) == ("acme/large", "acme", "acme/large")
    assert answer.receipt.why == "named before the model"
    assert {attempt.provider for attempt in answer.receipt.attempts} == {"acme"}


async def test_latency_is_the_answering_attempts_and_not_the_waits():
    clock = FakeClock()

    class Slow(Scripted):
        async def generate(self, messages, model, **options):
            await clock.sleep(3)
            return await super().generate(messages, model, **options)

    provider(RateLimitError("slow", retry_after=100), "Hello", base=Slow)
    task = asyncio.create_task(ask(clock))
    await clock.advance(3)
    await clock.advance(100)
    await clock.advance(3)
    answer = await task
    assert answer.latency == answer.receipt.attempts[1].latency == 3
    assert answer.receipt.attempts[0].latency == 3


async def test_an_error_names_its_provider_and_model_and_carries_the_receipt():
    provider(ServerError("down", status=503), max_retries=0)
    with pytest.raises(ServerError, match="acme: down") as caught:
        await ask()
    assert (caught.value.provider, caught.value.model, caught.value.status) == ("acme", "large", 503)
    assert len(caught.value.receipt.attempts) == 1
    assert caught.value.receipt.cost is None


async def test_an_error_is_named_once_however_often_it_was_raised():
    error = ServerError("down")
    provider(error, error, error)
    with pytest.raises(ServerError) as caught:
        await ask()
    assert str(caught.value).count("acme") == 1


async def test_a_provider_may_return_a_text():
    provider("Hello")
    answer = await ask()
    assert isinstance(answer, LLMResponse)
    assert (answer.content, answer.model_name, answer.usage, answer.cost) == ("Hello", "acme/large", Usage(), None)


@pytest.mark.parametrize("wrong", [None, 7, b"Hello", {"content": "Hello"}])
async def test_a_provider_that_returns_something_else_is_told_so(wrong):
    provider(wrong)
    with pytest.raises(TypeError, match=r"Acme returned a \w+; a provider returns an LLMResponse or a str"):
        await ask()


async def test_a_providers_own_exception_is_raised_as_it_is_and_recorded(caplog):
    class TheirError(Exception):
        pass

    error = TheirError("their own business")
    cls = provider(error)
    with caplog.at_level("DEBUG"), pytest.raises(TheirError) as caught:
        await ask()
    assert caught.value is error
    assert len(cls.calls) == 1
    assert "TheirError: their own business" in caplog.text


async def test_an_exceptions_cause_stays_its_cause():
    cause = OSError("the disk is full")
    error = ServerError("down")
    error.__cause__ = cause
    provider(error, max_retries=0)
    with pytest.raises(ServerError) as caught:
        await ask()
    assert caught.value.__cause__ is cause


async def test_messages_keep_every_field():
    cls = provider("Hello")
    messages = [
        {"role": "system", "content": "x", "name": "boss", "cache_control": {"type": "ephemeral"}},
        {"role": "tool", "tool_call_id": "call_1", "content": "7"},
    ]
    await llm().query("acme/large", messages)
    assert cls.calls[0][1] == messages


# Time


async def test_an_attempt_that_takes_too_long_is_a_time_out_and_sent_again():
    clock = FakeClock()
    cls = provider(Never, "Hello")
    task = asyncio.create_task(ask(clock, timeout=5))
    await clock.advance(4.9)
    assert len(cls.calls) == 1
    await clock.advance(0.2)
    await clock.advance(BACKOFF_BASE)
    answer = await task
    assert answer.content == "Hello"
    assert "RequestTimeoutError" in answer.receipt.attempts[0].error
    assert answer.receipt.attempts[0].latency == 5


async def test_time_outs_without_end_are_a_time_out():
    clock = FakeClock()
    provider(Never, Never, max_retries=1)
    task = asyncio.create_task(ask(clock, timeout=5))
    await clock.advance(100)
    with pytest.raises(RequestTimeoutError, match=r"acme within 5 s.*timeout=") as caught:
        await task
    assert isinstance(caught.value, TimeoutError)
    assert (caught.value.provider, caught.value.model, len(caught.value.receipt.attempts)) == ("acme", "large", 2)


async def test_the_rows_timeout_holds_where_the_call_gives_none():
    clock = FakeClock()
    provider(Never, timeout=7, max_retries=0)
    task = asyncio.create_task(ask(clock))
    await clock.advance(6.9)
    assert not task.done()
    await clock.advance(0.2)
    with pytest.raises(RequestTimeoutError, match="7 s"):
        await task


async def test_the_deadline_ends_everything():
    clock = FakeClock()
    cls = provider(Never, Never, Never, Never, max_retries=9)
    task = asyncio.create_task(ask(clock, timeout=600, deadline=20))
    await clock.advance(19.9)
    assert not task.done()
    await clock.advance(0.2)
    with pytest.raises(DeadlineExceededError, match=r"20 s.*deadline=") as caught:
        await task
    assert len(cls.calls) == 1
    assert len(caught.value.receipt.attempts) == 1
    assert "DeadlineExceededError" in caught.value.receipt.attempts[0].error


async def test_the_deadline_cuts_the_last_attempt_short():
    clock = FakeClock()
    cls = provider(RateLimitError("slow"), Never)
    task = asyncio.create_task(ask(clock, timeout=100, deadline=30))
    await clock.advance(10)
    assert len(cls.calls) == 2
    await clock.advance(19.9)
    assert not task.done()
    await clock.advance(0.2)
    with pytest.raises(DeadlineExceededError):
        await task


@pytest.mark.parametrize(
    "arguments", [{"timeout": 0}, {"timeout": -1}, {"deadline": 0}, {"timeout": float("nan")}, {"deadline": float("nan")}]
)
async def test_a_time_that_can_be_none_is_refused(arguments):
    cls = provider("Hello")
    with pytest.raises(InvalidRequestError, match="seconds above 0"):
        await ask(**arguments)
    assert cls.calls == []


@pytest.mark.parametrize("arguments", [{"timeout": "5"}, {"deadline": "5"}, {"deadline": [5]}, {"timeout": [5]}])
async def test_a_time_of_the_wrong_kind_is_refused_by_name(arguments):
    provider("Hello")
    with pytest.raises((InvalidRequestError, TypeError), match=next(iter(arguments))):
        await ask(**arguments)


# Cancelled


async def test_a_cancelled_query_is_cancelled():
    cls = provider(Never)
    task = await begun(asyncio.create_task(ask(FakeClock())))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(cls.calls) == 1
    assert task.cancelled()


async def test_a_query_is_cancelled_also_while_it_waits_for_the_next_attempt():
    clock = FakeClock()
    cls = provider(RateLimitError("slow"), "Hello")
    task = await begun(asyncio.create_task(ask(clock)))
    assert clock.sleeps == [10]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await clock.advance(100)
    assert len(cls.calls) == 1


async def test_a_cancellation_in_the_moment_of_the_time_out_wins():
    clock = FakeClock()
    cls = provider(Never, "Hello")
    task = await begun(asyncio.create_task(ask(clock, timeout=5)))
    for _, _, timer in clock._timers:
        timer.callback()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(cls.calls) == 1


# TimeLimit


async def test_a_time_limit_that_is_kept_changes_nothing():
    clock = FakeClock()
    with TimeLimit(clock, 5) as limit:
        await asyncio.sleep(0)
    await clock.advance(10)
    assert not limit.passed
    assert asyncio.current_task().cancelling() == 0


async def test_a_time_limit_that_passes_is_raised_from_its_own_block():
    clock = FakeClock()

    async def limited():
        with pytest.raises(TimeLimitPassed):
            with TimeLimit(clock, 5):
                await asyncio.Event().wait()
        assert asyncio.current_task().cancelling() == 0
        await asyncio.sleep(0)  # would raise if a cancellation were left over
        return "went on"

    task = await begun(asyncio.create_task(limited()))
    await clock.advance(5)
    assert await task == "went on"


@pytest.mark.parametrize(("inner", "outer", "passes"), [(5, 9, "inner"), (9, 5, "outer")])
async def test_of_two_nested_limits_the_one_that_passed_is_raised(inner, outer, passes):
    clock = FakeClock()
    seen = []

    async def limited():
        try:
            with TimeLimit(clock, outer):
                try:
                    with TimeLimit(clock, inner):
                        await asyncio.Event().wait()
                except TimeLimitPassed:
                    seen.append("inner")
        except TimeLimitPassed:
            seen.append("outer")

    task = await begun(asyncio.create_task(limited()))
    await clock.advance(5)
    await task
    assert seen == [passes]


async def test_a_cancellation_from_outside_passes_through_a_limit():
    clock = FakeClock()

    async def limited():
        with TimeLimit(clock, 5):
            await asyncio.Event().wait()

    task = await begun(asyncio.create_task(limited()))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancellation_from_outside_wins_over_a_limit_that_passed_with_it():
    clock = FakeClock()

    async def limited():
        with TimeLimit(clock, 5):
            await asyncio.Event().wait()

    task = await begun(asyncio.create_task(limited()))
    for _, _, timer in clock._timers:
        timer.callback()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_asyncios_own_timeout_around_a_query_is_its_own():
    provider(Never)
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(0):
            await ask(FakeClock(), timeout=5)
    assert not isinstance(caught.value, RequestTimeoutError)


async def test_an_exception_of_the_block_is_not_lost_to_a_limit():
    with pytest.raises(ValueError, match="mine"), TimeLimit(FakeClock(), 5):
        raise ValueError("mine")


# FakeClock


async def test_fake_time_passes_only_when_told_to():
    clock = FakeClock(100, epoch=1000)
    assert (clock.monotonic(), clock.time()) == (100, 1000)
    await clock.advance(5)
    assert (clock.monotonic(), clock.time()) == (105, 1005)


async def test_timers_fall_due_in_order_and_at_their_time():
    clock = FakeClock()
    seen = []
    for seconds in (3, 1, 2, 1):
        clock.call_later(seconds, lambda seconds=seconds: seen.append((seconds, clock.monotonic())))
    taken_back = clock.call_later(1.5, lambda: seen.append("never"))
    taken_back.cancel()
    await clock.advance(2)
    assert seen == [(1, 1), (1, 1), (2, 2)]
    await clock.advance(1)
    assert seen[-1] == (3, 3)
    taken_back.cancel()


async def test_a_timer_that_sets_a_timer_is_followed():
    clock = FakeClock()
    seen = []
    clock.call_later(1, lambda: clock.call_later(1, lambda: seen.append(clock.monotonic())))
    await clock.advance(5)
    assert seen == [2]


async def test_a_fake_sleep_ends_when_its_time_has_come():
    clock = FakeClock()
    task = await begun(asyncio.create_task(clock.sleep(5)))
    await clock.advance(4.9)
    assert not task.done()
    await clock.advance(0.1)
    await task
    assert clock.sleeps == [5]


async def test_a_fake_sleep_can_be_cancelled():
    clock = FakeClock()
    task = await begun(asyncio.create_task(clock.sleep(5)))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await clock.advance(10)


async def test_a_clock_that_advances_by_itself_runs_through():
    clock = FakeClock(auto_advance=True)
    await clock.sleep(3600)
    assert clock.monotonic() == 3600


# Streams


class Streaming(Scripted):
    """Streams one script step per call: a list of pieces; numbers wait, exceptions are raised."""

    clock: FakeClock
    closed: list

    async def stream(self, messages, model, **options):
        type(self).calls.append((model, list(messages), options))
        step = type(self).script.pop(0)
        try:
            for piece in [step] if isinstance(step, BaseException) else step:
                if isinstance(piece, BaseException):
                    raise piece
                if isinstance(piece, (int, float)):
                    await self.clock.sleep(piece)
                elif piece is Never:
                    await asyncio.Event().wait()
                else:
                    yield piece
        finally:
            type(self).closed.append(True)


def streaming(*script, clock=None, **row):
    cls = provider(*script, base=Streaming, **row)
    cls.clock, cls.closed = clock or FakeClock(), []
    return cls


END = StreamEnd(finish_reason="stop", usage=Usage(input_tokens=2, output_tokens=2), model_name="acme-large-0613")


def open_stream(clock=None, **arguments):
    return llm(clock or FakeClock()).stream("acme/large", prompt="Hello", **arguments)


async def texts(stream):
    return [text async for text in stream]


async def test_a_stream_gives_its_text_and_then_the_whole_answer():
    streaming(["Hel", "lo", END])
    async with open_stream() as stream:
        assert await texts(stream) == ["Hel", "lo"]
    answer = stream.response
    assert (answer.content, answer.usage.total_tokens, answer.finish_reason) == ("Hello", 4, "stop")
    assert (answer.model_name, answer.provider, answer.receipt.attempts[0].model_served) == ("acme/large", "acme", "acme-large-0613")


async def test_pieces_that_arrived_together_come_one_by_one():
    streaming([["Hel", "lo"], [], [" you", END]])
    async with open_stream() as stream:
        assert await texts(stream) == ["Hel", "lo", " you"]
    assert stream.response.content == "Hello you"


async def test_events_of_every_kind():
    pieces = [
        ReasoningDelta("Hm."),
        "Hel",
        TextDelta("lo"),
        ToolCallDelta(0, "call_1", "weather", '{"city":'),
        ToolCallDelta(1, "call_2", "now", ""),
        ToolCallDelta(0, arguments='"Berlin"}'),
        END,
    ]
    streaming(pieces)
    async with open_stream() as stream:
        events = [event async for event in stream.events()]
    assert events == [TextDelta(piece) if isinstance(piece, str) else piece for piece in pieces]
    answer = stream.response
    assert (answer.content, answer.reasoning) == ("Hello", "Hm.")
    assert answer.tool_calls == [ToolCall("call_1", "weather", {"city": "Berlin"}), ToolCall("call_2", "now", {})]


async def test_iterating_as_text_gives_every_text():
    streaming([TextDelta("Hel"), "lo", END])
    async with open_stream() as stream:
        assert "".join(await texts(stream)) == "Hello"
    assert stream.response.content == "Hello"


async def test_a_stream_connects_at_first_iteration():
    cls = streaming(["Hello", END])
    stream = open_stream()
    assert cls.calls == []
    assert await anext(stream) == "Hello"
    assert len(cls.calls) == 1
    await stream.aclose()


async def test_query_with_stream_returns_after_the_first_delta():
    streaming(["Hel", Never])
    stream = await llm(FakeClock()).query("acme/large", prompt="Hello", stream=True)
    assert stream.response.content == ""
    assert await anext(stream) == "Hel"
    await stream.stop()


async def test_query_with_stream_raises_what_comes_before_the_first_delta():
    streaming(AuthenticationError("no", status=401))
    with pytest.raises(AuthenticationError) as caught:
        await llm(FakeClock()).query("acme/large", prompt="Hello", stream=True)
    assert len(caught.value.receipt.attempts) == 1


async def test_a_failure_before_the_first_delta_is_met_as_that_of_a_whole_answer():
    clock = FakeClock(auto_advance=True)
    cls = streaming(RateLimitError("slow", status=429), ServerError("down"), ["Hello", END], clock=clock)
    async with open_stream(clock) as stream:
        assert await texts(stream) == ["Hello"]
    assert len(cls.calls) == 3
    assert [attempt.status for attempt in stream.response.receipt.attempts] == [429, None, None]
    assert clock.sleeps[0] == 10


async def test_a_failure_after_the_first_delta_is_raised_with_what_had_arrived():
    cls = streaming(["Hel", "lo", ServerError("broke", status=500, request_id="req_1", code="oops")])
    seen = []
    with pytest.raises(StreamInterruptedError, match=r"after output began.*broke") as caught:
        async for text in open_stream():
            seen.append(text)
    error = caught.value
    assert seen == ["Hel", "lo"]
    assert error.response.content == "Hello"
    assert (error.provider, error.model, error.status, error.request_id, error.code) == ("acme", "large", 500, "req_1", "oops")
    assert isinstance(error.__cause__, ServerError)
    assert error.receipt is error.response.receipt
    assert len(error.receipt.attempts) == 1
    assert "glued" in error.receipt.attempts[0].then
    assert len(cls.calls) == 1, "a stream that was repeated would repeat text already sent"


async def test_after_an_interruption_the_stream_is_over_and_did_not_end_well():
    streaming(["Hel", ServerError("broke")])
    stream = open_stream()
    with pytest.raises(StreamInterruptedError):
        await texts(stream)
    partial = stream.response
    assert await texts(stream) == []
    assert stream.response is partial
    assert stream.response.receipt.attempts[0].error is not None


async def test_a_providers_own_exception_out_of_a_stream_is_raised_as_it_is():
    error = KeyError("theirs")
    streaming(["Hel", error])
    stream = open_stream()
    with pytest.raises(KeyError) as caught:
        await texts(stream)
    assert caught.value is error
    assert stream.response.content == "Hel"
    assert "KeyError" in stream.response.receipt.attempts[0].error


async def test_a_stream_that_ends_before_it_began_is_a_servers_fault_and_tried_again():
    clock = FakeClock(auto_advance=True)
    cls = streaming([], ["Hello", END], clock=clock)
    assert await texts(open_stream(clock)) == ["Hello"]
    assert len(cls.calls) == 2


async def test_a_stream_without_text_is_an_empty_answer():
    streaming([END])
    async with open_stream() as stream:
        assert await texts(stream) == []
    assert (stream.response.content, stream.response.finish_reason) == ("", "stop")


async def test_an_event_that_is_none_is_told():
    streaming(["Hel", {"text": "lo"}])
    with pytest.raises(TypeError, match="dict"):
        await texts(open_stream())


async def test_a_provider_without_stream_answers_in_one_piece():
    cls = provider(LLMResponse("Hello", "acme-large-0613", Usage(input_tokens=1, output_tokens=1), finish_reason="stop"))
    async with open_stream() as stream:
        assert await texts(stream) == ["Hello"]
    assert len(cls.calls) == 1
    assert (stream.response.content, stream.response.finish_reason, stream.response.usage.total_tokens) == ("Hello", "stop", 2)
    assert stream.response.receipt.attempts[0].model_served == "acme-large-0613"
    assert stream.response.model_name == "acme/large"


async def test_a_provider_without_stream_fails_as_it_does_without_one():
    clock = FakeClock(auto_advance=True)
    provider(ServerError("down"), "Hello")
    assert await texts(open_stream(clock)) == ["Hello"]


async def test_a_whole_answer_without_text_can_be_streamed_too():
    provider(LLMResponse("", "m", tool_calls=[ToolCall("call_1", "now", {})]))
    async with open_stream() as stream:
        assert await texts(stream) == []
    assert stream.response.tool_calls[0].name == "now"


# Streams that are stopped


async def test_stop_ends_the_stream_and_keeps_what_came():
    cls = streaming(["Hel", "lo", END])
    async with open_stream() as stream:
        async for text in stream:
            assert text == "Hel"
            await stream.stop()
    assert cls.closed == [True]
    assert stream.response.content == "Hel"
    assert stream.response.receipt.attempts[0].then == "stopped by the caller"
    assert stream.response.cost is None
    assert await texts(stream) == []


async def test_stop_without_await_takes_effect_at_once():
    cls = streaming([["Hel", "lo"], END])
    seen = []
    stream = open_stream()
    async for text in stream:
        seen.append(text)
        stream.stop()
    assert seen == ["Hel"]
    await begun(None)
    gc.collect()
    await begun(None)
    assert cls.closed == [True]


async def test_stop_by_another_task_ends_a_stream_that_waits():
    cls = streaming(["Hel", Never])
    stream = open_stream()
    task = await begun(asyncio.create_task(texts(stream)))
    await stream.stop()
    assert await task == ["Hel"]
    assert task.cancelling() == 0
    assert cls.closed == [True]


async def test_stop_by_another_task_ends_a_stream_that_still_connects():
    clock = FakeClock()
    streaming([5, "Hel", "lo", END], clock=clock)
    stream = open_stream(clock)
    task = await begun(asyncio.create_task(texts(stream)))
    stopping = asyncio.create_task(_awaited(stream.stop()))
    await clock.advance(10)
    await stopping
    assert await task == []
    assert stream.response.content == ""


async def _awaited(thing):
    return await thing


async def test_a_stream_that_is_stopped_before_it_begins_sends_nothing():
    cls = streaming(["Hello", END])
    stream = open_stream()
    await stream.stop()
    assert await texts(stream) == []
    assert cls.calls == []
    assert stream.response.content == ""


async def test_stop_after_the_end_changes_nothing():
    streaming(["Hello", END])
    stream = open_stream()
    await texts(stream)
    answer = stream.response
    await stream.stop()
    await stream.aclose()
    assert stream.response is answer
    assert answer.receipt.attempts[0].then is None


async def test_leaving_the_context_closes_the_stream():
    cls = streaming(["Hel", "lo", END])
    with pytest.raises(ValueError, match="mine"):
        async with open_stream() as stream:
            async for _ in stream:
                raise ValueError("mine")
    assert cls.closed == [True]


async def test_a_stream_that_nobody_holds_any_more_is_closed():
    clock = FakeClock()
    cls = streaming(["Hel", Never], clock=clock)
    stream = open_stream(clock)
    assert await anext(stream) == "Hel"
    del stream
    gc.collect()
    await begun(None)
    assert cls.closed == [True]
    await clock.advance(1000)  # its watch has nobody to watch


async def test_a_task_that_reads_a_stream_can_be_cancelled():
    cls = streaming(["Hel", Never])
    stream = open_stream()
    task = await begun(asyncio.create_task(texts(stream)))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cls.closed == [True]
    assert stream.response.content == "Hel"
    assert stream.response.receipt.attempts[0].then == "cancelled"


# Time of a stream


async def test_the_first_delta_has_the_timeout():
    clock = FakeClock()
    cls = streaming([Never], ["Hello", END], clock=clock)
    task = asyncio.create_task(texts(open_stream(clock, timeout=5)))
    await clock.advance(5)
    await clock.advance(BACKOFF_BASE)
    assert await task == ["Hello"]
    assert len(cls.calls) == 2


async def test_each_gap_has_the_timeout():
    clock = FakeClock()
    streaming(["a", 4, "b", 4, "c", 4, END], clock=clock)
    task = asyncio.create_task(texts(open_stream(clock, timeout=5)))
    await clock.advance(12)
    assert await task == ["a", "b", "c"]


async def test_a_gap_that_is_too_long_interrupts():
    clock = FakeClock()
    cls = streaming(["a", 4, "b", 6, "c", END], clock=clock)
    task = asyncio.create_task(texts(open_stream(clock, timeout=5)))
    await clock.advance(8.9)
    assert not task.done()
    await clock.advance(0.2)
    with pytest.raises(StreamInterruptedError, match="5 s") as caught:
        await task
    assert caught.value.response.content == "ab"
    assert isinstance(caught.value.__cause__, RequestTimeoutError)
    assert cls.closed == [True]


async def test_the_consumers_own_slowness_is_not_counted():
    clock = FakeClock()
    streaming(["a", "b", 1, "c", END], clock=clock)
    seen = []

    async def slowly():
        async for text in open_stream(clock, timeout=5):
            seen.append(text)
            await clock.sleep(60)

    task = asyncio.create_task(slowly())
    await clock.advance(200)
    await task
    assert seen == ["a", "b", "c"]


async def test_the_deadline_ends_a_stream_that_flows():
    clock = FakeClock()
    streaming([piece for _ in range(100) for piece in ("a", 1)], clock=clock)
    task = asyncio.create_task(texts(open_stream(clock, timeout=5, deadline=10.5)))
    await clock.advance(10.4)
    assert not task.done()
    await clock.advance(0.2)
    with pytest.raises(StreamInterruptedError, match="deadline") as caught:
        await task
    assert caught.value.response.content == "a" * 11
    assert isinstance(caught.value.__cause__, DeadlineExceededError)


async def test_the_deadline_before_the_first_delta_is_a_deadline():
    clock = FakeClock()
    streaming([Never], clock=clock)
    task = asyncio.create_task(texts(open_stream(clock, timeout=50, deadline=10)))
    await clock.advance(10)
    with pytest.raises(DeadlineExceededError):
        await task


async def test_the_deadline_passes_also_while_nobody_reads():
    clock = FakeClock()
    cls = streaming(["a", "b", END], clock=clock)
    stream = open_stream(clock, deadline=10)
    assert await anext(stream) == "a"
    await clock.advance(11)
    gc.collect()
    await begun(None)
    assert cls.closed == [True], "its connection is free"
    with pytest.raises(StreamInterruptedError, match="deadline"):
        await anext(stream)


async def test_latencies_of_a_stream():
    clock = FakeClock()
    streaming([2, "a", 3, "b", 1, END], clock=clock)
    stream = open_stream(clock)
    task = asyncio.create_task(texts(stream))
    await clock.advance(10)
    await task
    assert stream.response.latency == 6
    assert (stream.response.receipt.attempts[0].first_delta, stream.response.receipt.attempts[0].latency) == (2, 6)


async def test_no_timer_is_left_when_a_stream_has_ended():
    clock = FakeClock()
    streaming(["a", END], clock=clock)
    await texts(open_stream(clock))
    assert [timer for _, _, timer in clock._timers if timer.callback is not None] == []


# The embedded mock


@pytest.mark.parametrize("name", ["mock/echo", "mock/normal", "mock-echo", "mock", "mock/mock-echo"])
async def test_the_mock_echoes_and_says_that_it_is_one(name):
    answer = await QueryLLM().query(name, prompt="Why is the sky blue?")
    assert "Why is the sky blue?" in answer.content
    assert "mock" in answer.content.lower()
    assert (answer.provider, answer.finish_reason, answer.usage.input_tokens, answer.cost) == ("mock", "stop", 5, None)
    assert answer.receipt.attempts[0].model_served.startswith("mock-")


async def test_the_static_mock_always_says_the_same():
    answers = [await QueryLLM().query("mock/static", prompt=prompt) for prompt in ("a", "b")]
    assert answers[0].content == answers[1].content
    assert "mock" in answers[0].content


MOCK_FAILURES = [
    ("timeout", RequestTimeoutError, 3),
    ("ratelimit", RateLimitError, 1),
    ("auth-error", AuthenticationError, 1),
    ("invalid-request", InvalidRequestError, 1),
    ("unhealthy", ServerError, 3),
    ("no-such-mode", ModelNotFoundError, 1),
]


@pytest.mark.parametrize(("mode", "kind", "attempts"), MOCK_FAILURES)
@pytest.mark.parametrize("prefix", ["mock/", "mock-"])
async def test_the_mock_fails_as_its_name_says_through_the_whole_pipeline(prefix, mode, kind, attempts):
    with pytest.raises(kind) as caught:
        await llm().query(f"{prefix}{mode}", prompt="Hello")
    assert type(caught.value) is kind
    assert "mock" in str(caught.value)
    assert caught.value.provider == "mock"
    assert len(caught.value.receipt.attempts) == attempts


@pytest.mark.parametrize(("mode", "kind", "attempts"), MOCK_FAILURES)
async def test_the_mock_fails_in_a_stream_too(mode, kind, attempts):
    with pytest.raises(kind) as caught:
        await texts(llm().stream(f"mock/{mode}", prompt="Hello"))
    assert len(caught.value.receipt.attempts) == attempts


@pytest.mark.parametrize("mode", ["echo", "normal", "static"])
async def test_the_mock_streams_what_it_would_answer(mode):
    whole = await QueryLLM().query(f"mock/{mode}", prompt="one two  three")
    async with QueryLLM().stream(f"mock/{mode}", prompt="one two  three") as stream:
        pieces = await texts(stream)
    assert len(pieces) > 1
    assert "".join(pieces) == stream.response.content == whole.content
    assert stream.response.usage == whole.usage


async def test_the_mock_counts_the_words_of_every_message():
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": [{"type": "text", "text": "one two three"}]}]
    answer = await QueryLLM().query("mock/echo", messages)
    assert answer.usage.input_tokens == 5
    assert "one two three" in answer.content


@pytest.mark.parametrize(("model", "healthy"), [("echo", True), ("unhealthy", False), ("mock-unhealthy", False)])
async def test_the_mocks_health(model, healthy):
    from llm_master.providers.mock import MockProvider

    assert await MockProvider(ProviderConfig(default_model=model)).health_check() is healthy


# query_sync


def test_query_sync_in_a_script():
    provider("Hello")
    assert llm().query_sync("acme/large", prompt="Hi").content == "Hello"


async def test_query_sync_inside_a_running_loop():
    provider("Hello")
    assert llm().query_sync("acme/large", prompt="Hi").content == "Hello"


def test_query_sync_raises_what_query_raises():
    provider(AuthenticationError("no"))
    with pytest.raises(AuthenticationError) as caught:
        llm().query_sync("acme/large", prompt="Hi")
    assert len(caught.value.receipt.attempts) == 1


def test_query_sync_from_many_threads():
    cls = provider(*[f"Hello {number}" for number in range(20)])
    client, answers = llm(), []
    threads = [threading.Thread(target=lambda: answers.append(client.query_sync("acme/large", prompt="Hi").content)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == sorted(f"Hello {number}" for number in range(20))
    assert len(cls.calls) == 20


def test_query_sync_gives_no_stream():
    provider("Hello")
    with pytest.raises(InvalidRequestError, match=r"stream\(\)"):
        llm().query_sync("acme/large", prompt="Hi", stream=True)


def test_query_sync_inside_its_own_loop_is_refused_and_does_not_hang():
    class Nested(Scripted):
        async def generate(self, messages, model, **options):
            return llm().query_sync("mock/echo", prompt="Hi").content

    provider(base=Nested)
    with pytest.raises(ConfigurationError, match=r"would wait for itself: await there"):
        llm().query_sync("acme/large", prompt="Hi")


def test_one_object_serves_two_loops_one_after_the_other():
    provider("one", "two")
    client = llm()
    assert asyncio.run(client.query("acme/large", prompt="Hi")).content == "one"
    assert asyncio.run(client.query("acme/large", prompt="Hi")).content == "two"


# generate_map


async def test_a_function_of_the_generate_map_gets_the_bound_provider():
    seen = []

    async def generate_image(provider, messages, model, **options):
        seen.append((provider, messages, model, options))
        return LLMResponse("an image", model, images=["https://acme.ai/1.png"])

    cls = provider(generate_map={"acme-image": generate_image}, api_key="sk-acme-0123456789")
    answer = await llm().query("acme-image", prompt="A cat", size="1024x1024")
    bound, messages, model, options = seen[0]
    assert isinstance(bound, cls)
    assert bound.api_key == "sk-acme-0123456789"
    assert (messages, model, options) == ([{"role": "user", "content": "A cat"}], "acme-image", {"size": "1024x1024"})
    assert (answer.images, cls.calls) == (["https://acme.ai/1.png"], [])


async def test_a_method_of_the_providers_class_may_be_named_in_the_generate_map():
    class Painting(Scripted):
        async def paint(self, messages, model, **options):
            return f"painted by {model} for {self.config.name}"

    provider(base=Painting, generate_map={"acme-image": "paint"})
    assert (await llm().query("acme/acme-image", prompt="A cat")).content == "painted by acme-image for acme"


async def test_a_method_that_there_is_not_is_told_with_its_row():
    provider(generate_map={"acme-image": "pain"})
    with pytest.raises(ConfigurationError, match=r"acme.*generate_map.*pain"):
        await llm().query("acme-image", prompt="A cat")


async def test_what_a_function_of_the_generate_map_raises_is_met_as_anything_else():
    failures = [ServerError("down"), RateLimitError("slow")]

    async def generate_image(provider, messages, model, **options):
        if failures:
            raise failures.pop()
        return LLMResponse("an image", model)

    provider(generate_map={"acme-image": generate_image})
    answer = await llm().query("acme-image", prompt="A cat")
    assert len(answer.receipt.attempts) == 3


async def test_a_function_of_the_generate_map_can_be_streamed_from():
    async def generate_image(provider, messages, model, **options):
        return LLMResponse("an image", model)

    streaming(generate_map={"acme-image": generate_image})
    assert await texts(llm().stream("acme-image", prompt="A cat")) == ["an image"]


async def test_one_object_per_row_and_key_serves_all_calls():
    made = []

    class Counted(Scripted):
        def __init__(self, config=None):
            made.append(config)
            super().__init__(config)

    provider("a", "b", "c", base=Counted)
    client = llm()
    await asyncio.gather(*[client.query("acme/large", prompt="Hi") for _ in range(3)])
    assert len(made) == 1


async def test_a_class_that_is_no_provider_is_refused():
    class Loose:
        def __init__(self, config):
            pass

        async def generate(self, messages, model, **options):
            return "Hello"

    PROVIDER_CONFIGS["acme"] = ProviderConfig(provider_class=Loose, requires_key=False)
    with pytest.raises(ConfigurationError, match="acme.*BaseLLMProvider"):
        await ask()


# What is asked


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"prompt": "Hi", "messages": [{"role": "user", "content": "Hi"}]}, "both"),
        ({}, "neither"),
        ({"prompt": ""}, "empty"),
        ({"prompt": "  \n"}, "empty"),
        ({"prompt": 7}, "prompt"),
        ({"prompt": ["Hi"]}, "prompt"),
        ({"messages": []}, "at least one"),
        ({"messages": "Hi"}, "prompt="),
        ({"messages": {"role": "user", "content": "Hi"}}, "list"),
        ({"messages": [{"content": "Hi"}]}, r"messages\[0\] has no role"),
        ({"messages": [{"role": "user", "content": "Hi"}, {"role": "", "content": "x"}]}, r"messages\[1\] has no role"),
        ({"messages": ["Hi"]}, r"messages\[0\] is a str"),
        ({"messages": [None]}, r"messages\[0\] is a NoneType"),
    ],
)
async def test_a_query_that_is_none_is_refused_before_it_is_sent(arguments, said):
    cls = provider("Hello")
    with pytest.raises(InvalidRequestError, match=said):
        await llm().query("acme/large", **arguments)
    with pytest.raises(InvalidRequestError, match=said):
        llm().stream("acme/large", **arguments)
    assert cls.calls == []
