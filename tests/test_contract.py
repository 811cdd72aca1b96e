"""The contract of a provider, over every row of the table: a scripted server speaks each row's wire format.

What is the same for all providers stands here once. What only one format has, stands in that format's own tests.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from servers.formats import CACHED, CHAT, INPUT, OUTPUT, REASONING, Call, Format, Refusal, Said, format_of
from servers.scripted import FOREVER, GATE, ScriptedServer

from llm_master import (
    PROVIDER_CONFIGS,
    AuthenticationError,
    InvalidRequestError,
    LLMConfig,
    LLMResponse,
    ModelNotFoundError,
    ProviderConfig,
    ProviderConnectionError,
    ProviderError,
    QueryLLM,
    RateLimitError,
    ServerError,
    StreamEnd,
    StreamInterruptedError,
    TextDelta,
    ToolCallDelta,
    UnifiedProvider,
    Usage,
)
from llm_master.providers.gigachat import GigaChatProvider
from llm_master.providers.responses import ResponsesProvider
from llm_master.row_classes import provider_class
from llm_master.rows import base_variable, key_variables
from llm_master.engines import forget
from llm_master.testing import FakeClock

KEY = "sk-contract-0123456789"
TEXTS = ("Grüße, ", "世界 ", "👩‍🚀", ' and \u2028 all\n\n\t"quoted".')
TEXT = "".join(TEXTS)
QUESTION = "Was heißt „日本“? 🗾\u2028\x7f\n"
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CALLS: tuple[Call, ...] = (
    ("call_1", "get_weather", {"city": "Zürich"}),
    ("call_2", "get_time", {"zone": "CET", "deep": {"list": [1, None]}}),
)
TIME = {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object", "properties": {"zone": {"type": "string"}}}}}
TOOLS = [WEATHER, TIME]


@dataclass
class Party:
    """One row of the table, the format that it speaks, and the server that stands behind it."""

    name: str
    model: str
    llm: QueryLLM
    clock: FakeClock
    server: ScriptedServer
    format: Format

    def answers(self, text: str = TEXT, calls: Sequence[Call] = (), **how: Any) -> None:
        self.server.answer_json(self.format.answer(text, calls), **how)

    def streams(self, *texts: str, calls: Sequence[Call] = (), **how: Any) -> None:
        self.sends(*self.format.stream(*(texts or (() if calls else TEXTS)), calls=calls), **how)

    def sends(self, *events: Any, **how: Any) -> None:
        """Stream these events; those that are text are the format's."""
        pieces = [self.format.wire(event) if isinstance(event, str) else event for event in events]
        self.server.answer_sse(*pieces, headers={"content-type": self.format.stream_type}, **how)

    def refuses(self, kind: str, *, retry_after: int = 7, times: int | None = 1) -> Refusal:
        refusal = self.format.error(kind, retry_after=retry_after)
        self.server.answer_json(refusal.body, status=refusal.status, headers=refusal.headers, times=times)
        return refusal

    def begin_anew(self) -> None:
        """As if the key had never been refused."""
        forget()
        self.llm = QueryLLM(self.llm.config)

    async def query(self, prompt: str = QUESTION, **options: Any) -> LLMResponse:
        return await self.llm.query(self.model, prompt=prompt, **options)

    @property
    def calls(self) -> tuple[Call, ...]:
        """As many calls as one turn of the format holds, and no more than two."""
        return CALLS if self.format.parallel_calls else CALLS[:1]

    def beside_calls(self, text: str) -> str:
        """This text, where a turn with calls may have one."""
        return text if self.format.text_beside_calls else ""

    @property
    def said(self) -> list[Said]:
        return [self.format.read(request.path, request.json) for request in self.server.requests]


ADDED = {
    "acme_responses": ProviderConfig(provider_class=ResponsesProvider),
    "acme_gigachat2": ProviderConfig(provider_class=GigaChatProvider, api_key_env=("GIGACHAT_ACCESS_TOKEN",)),
}
"""Rows for formats that no row of the table speaks for all its models."""
ROWS = {**PROVIDER_CONFIGS, **ADDED}


def party_of(name: str, server: ScriptedServer, **settings: Any) -> Party:
    if name in ADDED:
        PROVIDER_CONFIGS[name] = ADDED[name]
    row = PROVIDER_CONFIGS[name]
    spoken = format_of(name)
    environment = {base_variable(row): server.url + spoken.path, spoken.key_variable or key_variables(row)[0]: KEY, **spoken.environment}
    clock = FakeClock(auto_advance=True)
    llm = QueryLLM(LLMConfig(environment=environment, clock=clock, **settings))
    return Party(name, f"{name}/any-model", llm, clock, server, spoken)


# bfl makes images only, and gguf starts its own server: each has its own tests.
OVER_HTTP = [name for name in ROWS if name not in ("mock", "bfl", "gguf")]


@pytest.fixture(params=OVER_HTTP)
def party(request: pytest.FixtureRequest, server: ScriptedServer) -> Iterator[Party]:
    yield party_of(request.param, server)


BOTH_WAYS = ("query", "stream")


@pytest.fixture(params=BOTH_WAYS)
def how(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def whole(party: Party, how: str, **options: Any) -> LLMResponse:
    """The whole answer, by ``query`` or by a ``stream`` read to its end."""
    if how == "query":
        return await party.query(**options)
    async with party.llm.stream(party.model, prompt=QUESTION, **options) as stream:
        async for _ in stream:
            pass
    return stream.response


def in_both_ways(party: Party, how: str, *texts: str, calls: Sequence[Call] = (), finish: str | None = None) -> None:
    if how == "query":
        party.server.answer_json(party.format.answer("".join(texts), calls, finish))
    else:
        party.sends(*party.format.stream(*texts, calls=calls, finish=finish))


# Chat


async def test_a_question_is_asked_and_answered(party: Party, how: str) -> None:
    in_both_ways(party, how, *TEXTS)
    answer = await whole(party, how)
    assert answer.content == str(answer) == TEXT
    assert (answer.finish_reason, answer.tool_calls, answer.reasoning) == ("stop", [], None)
    assert (answer.provider, answer.model_name) == (party.name, party.model)
    (attempt,) = answer.receipt.attempts
    served = "served-1" if party.format.names_model else "any-model"
    assert (attempt.provider, attempt.model, attempt.model_served, attempt.status) == (party.name, "any-model", served, 200)
    (said,) = party.said
    assert (said.model, said.user, said.streams) == ("any-model", [QUESTION], how == "stream")


async def test_a_conversation_arrives_in_order(party: Party) -> None:
    party.answers()
    await party.llm.query(
        party.model,
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": "two"},
            {"role": "user", "content": [{"type": "text", "text": "three"}]},
        ],
    )
    (said,) = party.said
    assert (said.system, said.user, said.assistant) == ("Be brief.", ["one", "three"], ["two"])


async def test_usage_is_in_our_convention(party: Party) -> None:
    for how in BOTH_WAYS:
        in_both_ways(party, how, "Hello.")
        usage = (await whole(party, how)).usage
        assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (INPUT, OUTPUT, INPUT + OUTPUT)
        assert usage.cached_tokens == (CACHED if party.format.counts_cached else None)
        assert usage.reasoning_tokens == (REASONING if party.format.counts_reasoning else None)
        assert usage.cost is None


async def test_an_answer_without_usage_is_unknown_and_not_0(party: Party) -> None:
    content = party.format.answer("Hello.")
    party.server.answer_json(party.format.without_usage(content))
    answer = await party.query()
    assert answer.usage == Usage() and answer.cost is None


async def test_finish_reasons_are_the_fields_own(party: Party, how: str) -> None:
    for ours, theirs in party.format.finish_reasons.items():
        calls = party.calls if ours == "tool_calls" else ()
        in_both_ways(party, how, party.beside_calls("Hello.") if calls else "Hello.", calls=calls, finish=theirs)
        assert (await whole(party, how)).finish_reason == ours


async def test_an_answer_goes_back_as_a_message(party: Party, how: str) -> None:
    in_both_ways(party, how, *TEXTS)
    answer = await whole(party, how)
    party.answers("Bye.")
    await party.llm.query(party.model, [{"role": "user", "content": "one"}, answer.message, {"role": "user", "content": "two"}])
    assert (party.said[-1].user, party.said[-1].assistant) == (["one", "two"], [TEXT])


async def test_an_answer_without_a_word_goes_back(party: Party) -> None:
    """As where all tokens went into thoughts. An empty turn, which not all APIs take, is worth nothing to the model."""
    party.answers("")
    answer = await party.query()
    assert (answer.content, answer.tool_calls) == ("", [])
    party.answers("Bye.")
    await party.llm.query(party.model, [{"role": "user", "content": "one"}, answer.message, {"role": "user", "content": "two"}])
    assert party.said[-1].user == ["one", "two"]
    assert "".join(party.said[-1].assistant) == ""


# Streams


async def test_deltas_come_in_order_and_make_the_whole(party: Party) -> None:
    party.streams()
    pieces = []
    async with party.llm.stream(party.model, prompt=QUESTION) as stream:
        async for piece in stream:
            pieces.append(piece)
    assert tuple(pieces) == TEXTS
    party.answers()
    answer = await party.query()
    streamed = stream.response
    assert (streamed.content, streamed.usage, streamed.finish_reason, streamed.provider, streamed.model_name) == (
        answer.content,
        answer.usage,
        answer.finish_reason,
        answer.provider,
        answer.model_name,
    )


async def test_a_delta_is_handed_out_before_the_next_one_is_sent(party: Party) -> None:
    events = party.format.stream("first", "second")
    held = next(position for position, event in enumerate(events) if "second" in event)
    party.sends("".join(events[:held]), GATE, "".join(events[held:]))
    async with party.llm.stream(party.model, prompt=QUESTION) as stream:
        pieces = aiter(stream)
        assert await anext(pieces) == "first"
        assert stream.response.content == "first"
        party.server.release()
        assert [piece async for piece in pieces] == ["second"]


async def test_where_packets_end_changes_nothing(party: Party) -> None:
    text = party.format.wire(*party.format.stream(*TEXTS, calls=party.calls))
    party.sends(*(text[position : position + 1] for position in range(len(text))))
    answer = await whole(party, "stream")
    assert answer.content == TEXT
    assert [(call.name, call.arguments) for call in answer.tool_calls] == [(name, arguments) for _, name, arguments in party.calls]


async def test_the_end_is_the_last_event_and_comes_once(party: Party) -> None:
    party.streams()
    async with party.llm.stream(party.model, prompt=QUESTION) as stream:
        events = [event async for event in stream.events()]
    assert [event.text for event in events if isinstance(event, TextDelta)] == list(TEXTS)
    assert [position for position, event in enumerate(events) if isinstance(event, StreamEnd)] == [len(events) - 1]


async def test_a_server_that_does_not_stream_is_read_all_the_same(party: Party) -> None:
    party.answers(party.beside_calls(TEXT), calls=party.calls)
    answer = await whole(party, "stream")
    assert answer.content == party.beside_calls(TEXT)
    assert [call.name for call in answer.tool_calls] == [name for _, name, _ in party.calls]
    assert answer.usage.output_tokens == OUTPUT


# Tools


async def test_tools_are_called_in_parallel(party: Party, how: str) -> None:
    text = party.beside_calls("Let me see.")
    in_both_ways(party, how, text, calls=party.calls)
    answer = await whole(party, how, tools=TOOLS)
    assert (answer.content, answer.finish_reason) == (text, "tool_calls")
    assert [(call.name, call.arguments, call.error) for call in answer.tool_calls] == [(name, args, None) for _, name, args in party.calls]
    ids = [call.id for call in answer.tool_calls]
    assert all(ids) and len(set(ids)) == len(party.calls)
    (said,) = party.said
    assert said.tools == {tool["function"]["name"]: tool["function"]["parameters"] for tool in TOOLS}


async def test_a_streamed_call_is_made_of_its_deltas(party: Party) -> None:
    party.streams(calls=party.calls)
    arguments = [""] * len(party.calls)
    heads = []
    async with party.llm.stream(party.model, prompt=QUESTION, tools=TOOLS) as stream:
        async for event in stream.events():
            if isinstance(event, ToolCallDelta):
                arguments[event.index] += event.arguments
                if event.id:
                    heads.append((event.index, event.id, event.name))
    assert [json.loads(text) for text in arguments] == [call[2] for call in party.calls]
    assert heads == [(index, call.id, call.name) for index, call in enumerate(stream.response.tool_calls)]


async def test_tool_results_go_back(party: Party, how: str) -> None:
    text = "Let me see." if how == "stream" else ""
    in_both_ways(party, how, *([text] if text else []), calls=party.calls)
    answer = await whole(party, how, tools=TOOLS)
    results = {call.name: f"result of {call.name}: ✓" for call in answer.tool_calls}
    messages: list[dict[str, Any]] = [{"role": "user", "content": QUESTION}, json.loads(json.dumps(answer.message))]
    messages += [{"role": "tool", "tool_call_id": call.id, "content": results[call.name]} for call in answer.tool_calls]
    party.answers("It rains.")
    assert (await party.llm.query(party.model, messages, tools=TOOLS)).content == "It rains."
    said = party.said[-1]
    assert said.calls == [(name, arguments) for _, name, arguments in party.calls]
    by_name = {id: name for id, name, _ in party.calls}
    assert {by_name.get(call, call): content for call, content in said.results.items()} == results
    assert (said.user, said.assistant) == ([QUESTION], [text])


async def test_the_choice_of_a_tool_arrives(party: Party) -> None:
    for choice in ("auto", "required", "none", {"type": "function", "function": {"name": "get_time"}}):
        name = choice if isinstance(choice, str) else "function"
        assert name in ("auto", "required", "none", "function")
        if name not in party.format.tool_choices:
            with pytest.raises(InvalidRequestError, match="tool_choice"):
                await party.query(tools=TOOLS, tool_choice=choice)
            continue
        party.answers()
        await party.query(tools=TOOLS, tool_choice=choice)
        body = party.server.requests[-1].json
        if (chosen := party.format.chosen(body)) is not None:
            assert chosen == choice
            continue
        anthropic = {
            "auto": {"type": "auto"},
            "required": {"type": "any"},
            "none": {"type": "none"},
            "function": {"type": "tool", "name": "get_time"},
        }
        gemini: dict[str, Any] = {
            "auto": {"mode": "AUTO"},
            "required": {"mode": "ANY"},
            "none": {"mode": "NONE"},
            "function": {"mode": "ANY", "allowedFunctionNames": ["get_time"]},
        }
        if party.name == "bedrock":
            bedrock = {"auto": {"auto": {}}, "required": {"any": {}}, "function": {"tool": {"name": "get_time"}}}
            assert body.get("toolConfig", {}).get("toolChoice") == bedrock.get(name)
            assert ("toolConfig" in body) is (name != "none")  # without tools none is called
        elif "toolConfig" in body:
            assert body["toolConfig"] == {"functionCallingConfig": gemini[name]}
        else:
            flat = {"type": "function", "name": "get_time"} if name == "function" else choice
            assert body["tool_choice"] == {"anthropic": anthropic[name], "acme_responses": flat}.get(party.name, choice)


# Errors

ERRORS = {
    "key": AuthenticationError,
    "server": ServerError,
    "model": ModelNotFoundError,
    "request": InvalidRequestError,
    "rate": RateLimitError,
}


@pytest.mark.parametrize("kind", ERRORS)
async def test_an_error_has_its_class_its_status_and_its_provider(party: Party, kind: str) -> None:
    refusal = party.refuses(kind, retry_after=3600, times=None)
    for sent, how in enumerate(BOTH_WAYS, 1):
        party.begin_anew()
        with pytest.raises(ProviderError) as caught:
            await whole(party, how)
        error = caught.value
        assert type(error) is ERRORS[kind]
        assert (error.status, error.provider, error.model) == (refusal.status, party.name, "any-model")
        assert party.name in str(error)
        assert refusal.message[:20] in str(error)
        sends = 3 if kind == "server" else 1
        assert len(error.receipt.attempts) == sends and len(party.server.requests) == sends * sent
        assert {attempt.status for attempt in error.receipt.attempts} == {refusal.status}


async def test_a_retry_after_is_honoured(party: Party, how: str) -> None:
    party.refuses("rate", retry_after=7)
    in_both_ways(party, how, *TEXTS)
    answer = await whole(party, how)
    assert answer.content == TEXT
    assert party.clock.sleeps == [7]
    first, second = answer.receipt.attempts
    assert (first.status, second.wait, second.status) == (429, 7, 200)


async def test_a_server_error_is_sent_again_as_it_was(party: Party, how: str) -> None:
    party.refuses("server")
    in_both_ways(party, how, *TEXTS)
    answer = await whole(party, how)
    assert answer.content == TEXT
    first, second = party.server.requests
    assert (first.path, first.body) == (second.path, second.body)
    assert [attempt.status for attempt in answer.receipt.attempts] == [500, 200]


async def test_an_error_before_the_first_delta_is_retried(party: Party) -> None:
    party.sends(*party.format.preface(), party.format.error_event())
    party.streams()
    answer = await whole(party, "stream")
    assert answer.content == TEXT
    first, second = answer.receipt.attempts
    assert first.error.startswith("ServerError: ") and party.name in first.error and second.error is None


async def test_a_stream_that_ends_before_its_first_delta_is_retried(party: Party) -> None:
    for end in ("done", "close", "reset"):
        party.sends(*party.format.preface(), framing="close" if end == "close" else "chunked", end=end)
        party.streams()
        answer = await whole(party, "stream")
        assert answer.content == TEXT
        assert len(answer.receipt.attempts) == 2


async def test_an_error_after_the_first_delta_interrupts(party: Party) -> None:
    events = party.format.stream("Hello, ", "world.", "!")
    until = next(position for position, event in enumerate(events) if "world." in event) + 1
    party.sends(*events[:until], party.format.error_event())
    pieces = []
    with pytest.raises(StreamInterruptedError) as caught:
        async with party.llm.stream(party.model, prompt=QUESTION) as stream:
            async for piece in stream:
                pieces.append(piece)
    assert "".join(pieces) == caught.value.response.content == "Hello, world."
    assert (caught.value.provider, caught.value.response.provider) == (party.name, party.name)
    assert party.name in str(caught.value) and "verloaded" in str(caught.value)
    assert len(caught.value.receipt.attempts) == len(party.server.requests) == 1


async def test_a_stream_that_is_cut_off_interrupts(party: Party) -> None:
    for end in ("done", "close", "reset"):
        events = party.format.stream("Hello, ", "world.", "!")
        until = next(position for position, event in enumerate(events) if "world." in event) + 1
        # The reset waits until the text has been read: one that overtakes it may take it along.
        held = [GATE] if end == "reset" else []
        party.sends(*events[:until], *held, framing="close" if end == "close" else "chunked", end=end)
        pieces = []
        with pytest.raises(StreamInterruptedError) as caught:
            async with party.llm.stream(party.model, prompt=QUESTION) as stream:
                async for piece in stream:
                    pieces.append(piece)
                    if held and piece == "world.":
                        party.server.release()
        assert pieces == ["Hello, ", "world."]
        assert caught.value.response.content == "Hello, world."
        assert caught.value.response.finish_reason is None
        assert len(caught.value.receipt.attempts) == 1


async def test_no_server_is_an_error_that_may_pass(party: Party) -> None:
    for how in BOTH_WAYS:
        party.server.answer(framing="raw", end="close", times=None)
        with pytest.raises(ProviderConnectionError) as caught:
            await whole(party, how)
        assert (caught.value.provider, caught.value.status, len(caught.value.receipt.attempts)) == (party.name, None, 3)


async def test_what_is_no_answer_under_200(party: Party) -> None:
    for how in BOTH_WAYS:
        party.server.answer("{}", times=None)
        with pytest.raises(ServerError) as caught:
            await whole(party, how)
        assert caught.value.provider == party.name
        assert len(caught.value.receipt.attempts) == 3


# Nothing is left open


async def test_a_cancelled_query_leaves_no_connection(party: Party, how: str) -> None:
    party.answers(delay=FOREVER)
    task = asyncio.create_task(whole(party, how))
    assert await party.server.until_asked()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await party.server.until_open(0)


async def test_a_stream_that_is_left_leaves_no_connection(party: Party) -> None:
    for leave in ("stop", "break", "cancel", "drop"):
        events = party.format.stream("first", "second")
        held = next(position for position, event in enumerate(events) if "second" in event)
        party.sends("".join(events[:held]), GATE, "".join(events[held:]))
        stream = party.llm.stream(party.model, prompt=QUESTION)
        assert await anext(aiter(stream)) == "first"
        assert party.server.open == 1
        if leave == "stop":
            await stream.stop()
            assert [piece async for piece in stream] == []
        elif leave == "break":
            async with stream:
                pass
        elif leave == "cancel":
            task = asyncio.ensure_future(anext(aiter(stream)))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        response = stream.response
        del stream
        assert await party.server.until_open(0)
        assert response.content == "first"


async def test_a_whole_stream_gives_its_connection_to_the_next(party: Party) -> None:
    for _ in range(3):
        party.streams()
        assert (await whole(party, "stream")).content == TEXT
    assert party.server.opened == 1


# Options


def known_to(party: Party, **options: Any) -> dict[str, Any]:
    """Those that the party's format has a word for."""
    return {name: value for name, value in options.items() if name in party.format.option_names}


async def test_options_arrive_under_the_formats_own_names(party: Party, how: str) -> None:
    in_both_ways(party, how, *TEXTS)
    options = known_to(party, max_tokens=123, temperature=0.25, stop=["END", "STOP"])
    answer = await whole(party, how, **options)
    body = party.server.request.json
    for name, path in party.format.option_names.items():
        value = body
        for step in path:
            value = value[step]
        assert value == options[name], name
        assert answer.receipt.renamed.get(name) == (None if path[-1] == name else ".".join(path))
    assert answer.receipt.dropped == ()


async def test_none_means_not_given(party: Party) -> None:
    for options in ({}, {"temperature": None, "stop": None, "seed": None, "user": None, "tool_choice": None}):
        party.answers()
        await party.query(**options)
    first, second = party.server.requests
    assert first.json == second.json


def refused_by(name: str) -> str | None:
    """An option that this row's API has no word for; most take whatever they are given."""
    renames = ROWS[name].renames
    return format_of(name).unsupported or next((ours for ours, theirs in renames.items() if theirs is None), None)


strict = pytest.mark.parametrize("party", [name for name in OVER_HTTP if refused_by(name)], indirect=True)


@strict
async def test_an_option_that_cannot_be_carried_is_refused_by_name(party: Party, how: str) -> None:
    option = refused_by(party.name)
    assert option is not None
    with pytest.raises(InvalidRequestError, match=repr(option)) as caught:
        await whole(party, how, **{option: 1})
    assert party.name in str(caught.value) and "on_unsupported" in str(caught.value)
    with pytest.raises(InvalidRequestError, match=repr(option)):
        party.llm.plan(party.model, prompt=QUESTION, **{option: 1})
    assert party.server.requests == []


@strict
async def test_an_option_that_was_agreed_to_be_dropped_is_in_the_receipt(party: Party, how: str) -> None:
    option = refused_by(party.name)
    assert option is not None
    plan = party.llm.plan(party.model, prompt=QUESTION, **{option: 1, "on_unsupported": "drop"})
    in_both_ways(party, how, *TEXTS)
    answer = await whole(party, how, **{option: 1, "on_unsupported": "drop"})
    assert answer.receipt.dropped == plan.dropped == (option,)
    assert f'"{option}":1' not in party.server.request.body.decode()
    settings = party_of(party.name, party.server, on_unsupported="drop")
    in_both_ways(settings, how, *TEXTS)
    assert (await whole(settings, how, **{option: 1})).receipt.dropped == (option,)


async def test_extra_body_goes_out_as_it_is(party: Party) -> None:
    party.answers()
    await party.query(extra_body={"anyField": {"of": ["theirs"]}})
    assert party.server.request.json["anyField"] == {"of": ["theirs"]}


async def test_what_the_caller_gave_is_left_as_it_was(party: Party) -> None:
    for how in BOTH_WAYS:
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": [{"type": "text", "text": "Hello"}]}]
        options = {"tools": TOOLS, "extra_body": {"anyField": {}}, **known_to(party, stop=["END"])}
        before = json.dumps([messages, options])
        in_both_ways(party, how, "Hello.")
        if how == "query":
            await party.llm.query(party.model, messages, **options)
        else:
            async with party.llm.stream(party.model, messages, **options) as stream:
                assert [piece async for piece in stream]
        assert json.dumps([messages, options]) == before


# The key


async def test_the_key_stands_in_its_header_and_nowhere_else(party: Party, how: str) -> None:
    in_both_ways(party, how, *TEXTS)
    answer = await whole(party, how)
    request = party.server.request
    assert {name: value for name, value in request.headers.items() if KEY in value} == {
        name: value.replace("KEY", KEY) for name, value in party.format.key_headers.items()
    }
    assert KEY not in request.path and KEY.encode() not in request.body
    assert KEY not in repr([answer, answer.receipt, answer.message, party.llm])
    assert answer.receipt.attempts[0].key.endswith("…6789")


async def test_a_key_that_the_provider_repeats_is_masked(party: Party, how: str, caplog: pytest.LogCaptureFixture) -> None:
    for kind in ("key", "server"):
        caplog.set_level("DEBUG")
        refusal = party.format.error(kind)
        refusal.say_also(f" You sent {KEY}.")
        sends = 3 if kind == "server" else 1
        party.begin_anew()
        party.server.answer_json(refusal.body, status=refusal.status, times=sends)
        with pytest.raises(ProviderError) as caught:
            await whole(party, how)
        error = caught.value
        assert type(error) is ERRORS[kind] and "You sent" in str(error)
        assert KEY not in f"{error}{error!r}{error.receipt!r}{vars(error)}"
        assert KEY not in caplog.text


async def test_without_a_key_nothing_is_sent(party: Party) -> None:
    row = PROVIDER_CONFIGS[party.name]
    llm = QueryLLM(LLMConfig(environment={base_variable(row): party.server.base_url}, clock=party.clock))
    if row.requires_key:
        with pytest.raises(Exception, match=key_variables(row)[0]):
            await llm.query(party.model, prompt=QUESTION)
        assert party.server.requests == []
    else:
        party.answers()
        assert (await llm.query(party.model, prompt=QUESTION)).content == TEXT
        assert not party.format.key_headers.keys() & party.server.request.headers.keys()


# The plan


async def test_the_plan_is_what_is_then_sent(party: Party, how: str) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}]
    options = {"tools": TOOLS, **known_to(party, max_tokens=20, stop="END")}
    plan = party.llm.plan(party.model, messages, stream=how == "stream", **options)
    assert party.server.requests == [] and party.server.opened == 0
    in_both_ways(party, how, *TEXTS)
    if how == "query":
        answer = await party.llm.query(party.model, messages, **options)
    else:
        async with party.llm.stream(party.model, messages, **options) as stream:
            assert [piece async for piece in stream]
        answer = stream.response
    request = party.server.request
    assert plan.body == request.json
    assert (plan.method, plan.url) == (request.method, party.server.url + request.path)
    added = {"host", "content-length"}
    sent = {name: value for name, value in request.headers.items() if name not in added}
    shown = {name.lower(): value for name, value in plan.headers.items()}
    assert shown.keys() == sent.keys()
    assert {name: (shown[name], sent[name]) for name in sent if shown[name] != sent[name]}.keys() == party.format.key_headers.keys()
    receipt = answer.receipt
    assert (plan.provider, plan.model, plan.why) == (receipt.provider, receipt.attempts[0].model, receipt.why)
    assert (plan.renamed, plan.dropped, plan.key) == (receipt.renamed, receipt.dropped, receipt.attempts[0].key)


async def test_the_plan_masks_the_key(party: Party) -> None:
    plan = party.llm.plan(party.model, prompt=QUESTION)
    assert KEY not in repr(plan)
    shown = {name.lower(): value for name, value in plan.headers.items()}
    assert {name: shown[name] for name in party.format.key_headers} == {
        name: value.replace("KEY", "…6789") for name, value in party.format.key_headers.items()
    }


async def test_a_plan_may_be_awaited_or_not(party: Party) -> None:
    for how in BOTH_WAYS:
        arguments: dict[str, Any] = {"prompt": QUESTION, "stream": how == "stream", "temperature": 0.5}
        assert await party.llm.plan(party.model, **arguments) == party.llm.plan(party.model, **arguments)
        assert party.server.requests == []


async def test_a_plan_refuses_what_the_query_would(party: Party) -> None:
    with pytest.raises(InvalidRequestError, match="'temperature'"):
        party.llm.plan(party.model, prompt=QUESTION, temprature=1)
    assert party.server.requests == []


# Every row, the embedded one included


@pytest.fixture(params=[*OVER_HTTP, "mock"])
def any_party(request: pytest.FixtureRequest, server: ScriptedServer) -> Party:
    party = party_of(request.param, server)
    if party.name == "mock":
        party.model = "mock/echo"
    else:
        party.streams(times=1)
        party.answers(times=None)
    return party


async def test_a_stream_and_a_whole_answer_are_alike(any_party: Party) -> None:
    streamed, answer = await whole(any_party, "stream"), await whole(any_party, "query")
    assert streamed.content == answer.content != ""
    assert streamed.usage == answer.usage and answer.usage.total_tokens
    assert streamed.finish_reason == answer.finish_reason == "stop"
    for response in (streamed, answer):
        assert (response.provider, response.model_name, response.receipt.provider) == (any_party.name, any_party.model, any_party.name)
        assert response.latency is not None
        assert len(response.receipt.attempts) == 1


async def test_query_with_stream_returns_after_the_first_delta(any_party: Party) -> None:
    stream = await any_party.llm.query(any_party.model, prompt=QUESTION, stream=True)
    first = await anext(aiter(stream))
    rest = [piece async for piece in stream]
    assert first and rest
    assert first + "".join(rest) == stream.response.content


async def test_a_plan_names_provider_and_model_and_sends_nothing(any_party: Party) -> None:
    plan = await any_party.llm.plan(any_party.model, prompt=QUESTION)
    assert (plan.provider, plan.model) == (any_party.name, any_party.model.partition("/")[2])
    assert json.dumps(QUESTION)[1:-1] in json.dumps(plan.body)
    assert any_party.server.requests == []


async def test_a_misspelt_option_is_refused(any_party: Party) -> None:
    with pytest.raises(InvalidRequestError, match="did you mean 'temperature'"):
        await any_party.query(temprature=0.5)
    assert any_party.server.requests == []


async def test_many_calls_at_once_do_not_mix(any_party: Party) -> None:
    if any_party.name == "mock":
        answers = await asyncio.gather(*(any_party.query(f"question {number}") for number in range(20)))
        assert [answer.content for answer in answers] == [f"Mock response to: question {number}" for number in range(20)]
        return
    any_party.server.reset()
    any_party.answers(times=None)
    await asyncio.gather(*(any_party.query(f"question {number}") for number in range(20)))
    assert sorted(text for said in any_party.said for text in said.user) == sorted(f"question {number}" for number in range(20))


def test_every_row_has_been_asked() -> None:
    """A row of a new wire format must say so in ``servers/formats.py``: else it would be answered in another's."""
    spoken = {format_of(name).__class__.__name__ for name in OVER_HTTP}
    assert spoken == {
        *("ChatCompletions", "MistralChat", "ThinkingChat", "AzureChat"),
        *("Messages", "GenerateContent", "Responses", "Converse", "CohereChat", "OllamaChat"),
        *("GigaChat", "GigaChat2", "YandexGPT"),
    }
    own = {name for name in OVER_HTTP if provider_class(ROWS[name]).prepare is not UnifiedProvider.prepare}
    assert {name for name in OVER_HTTP if format_of(name) is not CHAT} == own
