"""One conversation, written once in our messages, over every wire format; and from one provider to another in its middle."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from servers.formats import ANTHROPIC, CHAT, GEMINI, RESPONSES, Call, Format, Said, format_of
from servers.scripted import ScriptedServer

from llm_master import PROVIDER_CONFIGS, LLMConfig, LLMResponse, ProviderConfig, QueryLLM, StreamEnd, TextDelta
from llm_master.providers.responses import ResponsesProvider
from llm_master.rows import base_variable, key_variables
from llm_master.testing import FakeClock

MODELS = {
    "openai": "gpt-4.1",
    "anthropic": "claude-sonnet-4-5",
    "gemini": "gemini-2.5-flash",
    "vertex": "gemini-2.5-flash",
    "mistral": "mistral-large-latest",
}
"""Models whose own rows know what they do; of the others nothing is known, and everything tried."""

NEEDED = {"chat", "streaming", "tools", "parallel_tools"}
CLAIMING = [name for name, row in PROVIDER_CONFIGS.items() if set(row.capabilities) >= NEEDED]
BLIND = {name for name in CLAIMING if "vision" not in PROVIDER_CONFIGS[name].capabilities}
"""Rows that claim all but images, and have the same conversation without one."""

ROWS: dict[str, tuple[str, Format]] = {
    **{name: (f"{name}/{MODELS.get(name, 'any-model')}", format_of(name)) for name in CLAIMING},
    "acme": ("acme/gpt-5", RESPONSES),
}
"""All that claim what the conversation needs."""

SYSTEM = "You look at pictures and plan journeys. Réponds brièvement."
QUESTION = "Which city is this, what is the weather there, and what time is it?"
IMAGE = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather of a city.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    },
    {
        "type": "function",
        "function": {
            "name": "get_time",
            "description": "The time in a zone.",
            "parameters": {"type": "object", "properties": {"zone": {"type": "string"}}, "required": ["zone"]},
        },
    },
]
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "degrees": {"type": "integer"}, "open": {"type": "array", "items": {"type": "string"}}},
    "required": ["city", "degrees", "open"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "place", "strict": True, "schema": SCHEMA}}
CALLS: tuple[Call, ...] = (("call_1", "get_weather", {"city": "Zürich"}), ("call_2", "get_time", {"zone": "CET"}))
RESULTS = {"get_weather": "18 °C, clear", "get_time": "09:30"}
PLACE = {"city": "Zürich", "degrees": 18, "open": ["café", "museum"]}
PIECES = ('{"city": "Zür', 'ich", "degrees": 1', '8, "open": ["café", ', '"museum"]}')


def conversation(model: str = "") -> list[dict[str, Any]]:
    uri = f"data:image/png;base64,{base64.b64encode(IMAGE).decode()}"
    image = {"type": "image_url", "image_url": {"url": uri}}
    seen = [] if model.partition("/")[0] in BLIND else [image]
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": [*seen, {"type": "text", "text": QUESTION}]}]


def results_of(answer: LLMResponse) -> list[dict[str, Any]]:
    return [{"role": "tool", "tool_call_id": call.id, "content": RESULTS[call.name]} for call in answer.tool_calls]


@pytest.fixture
def llm(server: ScriptedServer) -> QueryLLM:
    """Every provider is one server; each request's path says in which format it came."""
    environment = {}
    # No row of the table speaks nothing but the Responses API.
    PROVIDER_CONFIGS["acme"] = ProviderConfig(provider_class=ResponsesProvider)
    for name, row in PROVIDER_CONFIGS.items():
        if name != "mock":
            environment |= {base_variable(row): server.base_url, key_variables(row)[0]: f"sk-{name}-0123456789"}
            environment |= format_of(name).environment
    return QueryLLM(LLMConfig(environment=environment, clock=FakeClock(auto_advance=True)))


async def one_conversation(llm: QueryLLM, model: str) -> tuple[LLMResponse, list[str], LLMResponse]:
    """What a user writes, with nothing in it of any provider but the model's name."""
    messages = conversation(model)
    first = await llm.query(model, messages, tools=TOOLS, max_tokens=500, temperature=0)
    messages.append(first.message)
    messages += results_of(first)
    pieces = []
    async with llm.stream(model, messages, tools=TOOLS, max_tokens=500, response_format=FORMAT) as stream:
        async for event in stream.events():
            if isinstance(event, TextDelta):
                pieces.append(event.text)
            elif isinstance(event, StreamEnd):
                assert event.finish_reason == "stop"
    return first, pieces, stream.response


def by_name(said: Said) -> dict[str, str]:
    """Results by the function's name, whichever id the call had on the wire."""
    names = iter(name for name, _ in said.calls)
    return {next(names): text for text in said.results.values()}


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("text", ["", "Let me see."])
async def test_one_conversation_runs_unchanged_over_every_format(llm: QueryLLM, server: ScriptedServer, row: str, text: str) -> None:
    model, form = ROWS[row]
    text = text if form.text_beside_calls else ""
    server.answer_json(form.answer(text, CALLS))
    server.answer_sse(*map(form.wire, form.stream(*PIECES)), headers={"content-type": form.stream_type})
    first, pieces, last = await one_conversation(llm, model)

    assert (first.content, first.finish_reason) == (text, "tool_calls")
    assert [(call.name, call.arguments) for call in first.tool_calls] == [(name, arguments) for _, name, arguments in CALLS]
    assert tuple(pieces) == PIECES
    assert json.loads(last.content) == PLACE
    assert (last.provider, last.model_name, last.tool_calls) == (row, model, [])
    assert last.usage == first.usage and last.usage.total_tokens

    asked, answered = (form.read(request.path, request.json) for request in server.requests)
    assert (asked.streams, answered.streams) == (False, True)
    by_schema = form.schema_beside_tools and (row == "acme" or "json_schema" in PROVIDER_CONFIGS[row].capabilities)
    for said in (asked, answered):
        assert said.model == model.partition("/")[2]
        assert (said.user, said.images) == ([QUESTION], [] if row in BLIND else [("image/png", IMAGE)])
        assert said.tools == {tool["function"]["name"]: tool["function"]["parameters"] for tool in TOOLS}
        assert said.max_tokens == 500
    assert (asked.assistant, asked.calls, asked.results, asked.schema, asked.temperature) == ([], [], {}, None, 0)
    assert answered.assistant == [text]
    assert answered.calls == [(name, arguments) for _, name, arguments in CALLS]
    assert by_name(answered) == RESULTS
    assert asked.system == SYSTEM
    if by_schema:
        assert (answered.schema, answered.system) == (SCHEMA, SYSTEM)
    else:  # in words, with or without JSON mode
        assert answered.system.startswith(SYSTEM) and json.dumps(SCHEMA, separators=(",", ":")) in answered.system


@pytest.mark.parametrize("row", ROWS)
async def test_a_conversation_survives_being_stored(llm: QueryLLM, server: ScriptedServer, row: str) -> None:
    """As JSON in a file or a database, between two turns."""
    model, form = ROWS[row]
    server.answer_json(form.answer("", CALLS))
    messages = conversation(model)
    first = await llm.query(model, messages, tools=TOOLS)
    messages += [first.message, *results_of(first)]
    for kept in (messages, json.loads(json.dumps(messages))):
        server.answer_json(form.answer("Zürich."))
        await llm.query(model, kept, tools=TOOLS)
    _, direct, stored = server.requests
    assert direct.json == stored.json


# From one provider to another

THOUGHT, SIGNATURE = "The lake looks like Zürich.", "EqQBCkYIAxgCKkAsigned"
THOUGHT_SIGNATURE = "CiQBthought0signature="
ONLY_ANTHROPICS = (SIGNATURE, THOUGHT, "_native", '"thinking"', "signature")
ONLY_GEMINIS = (THOUGHT_SIGNATURE, "_native", "thoughtSignature", "functionCall")


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_conversation_may_change_its_provider(llm: QueryLLM, server: ScriptedServer, streamed: bool) -> None:
    async def turn(model: str) -> LLMResponse:
        if not streamed:
            return await llm.query(model, messages, tools=TOOLS, max_tokens=2000)
        async with llm.stream(model, messages, tools=TOOLS, max_tokens=2000) as stream:
            async for _ in stream:
                pass
        return stream.response

    def script(form: Any, text: str, calls: tuple[Call, ...], **signed: Any) -> None:
        if streamed:
            server.answer_sse(*form.stream(*([text] if text else []), calls=calls, **signed))
        else:
            server.answer_json(form.answer(text, calls, **signed))

    messages = conversation()
    script(ANTHROPIC, "Let me see.", CALLS[:1], thinking=(THOUGHT, SIGNATURE))
    first = await turn("anthropic/claude-sonnet-4-5")
    assert (first.reasoning, first.content) == (THOUGHT, "Let me see.")
    messages += [first.message, *results_of(first)]

    script(CHAT, "And the time.", (("call_x", "get_time", {"zone": "CET"}),))
    second = await turn("openai/gpt-4.1")
    messages += [second.message, *results_of(second)]

    script(GEMINI, "", (("", "get_weather", {"city": "Bern"}),), signature=THOUGHT_SIGNATURE)
    third = await turn("gemini/gemini-2.5-flash")
    messages += [third.message, *results_of(third)]

    script(CHAT, "Zürich, 18 °C, 09:30.", ())
    fourth = await turn("openai/gpt-4.1")
    messages += [fourth.message, {"role": "user", "content": "Thank you. And Bern?"}]

    script(ANTHROPIC, "As in Zürich.", ())
    fifth = await turn("anthropic/claude-sonnet-4-5")
    messages += [fifth.message, {"role": "user", "content": "Good."}]

    script(GEMINI, "Good.", ())
    await turn("gemini/gemini-2.5-flash")

    forms = (ANTHROPIC, CHAT, GEMINI, CHAT, ANTHROPIC, GEMINI)
    requests = server.requests
    bodies = [request.body.decode() for request in requests]
    said = [form.read(request.path, request.json) for form, request in zip(forms, requests, strict=True)]
    for number in (1, 3):  # OpenAI's
        assert not [word for word in (*ONLY_ANTHROPICS, *ONLY_GEMINIS) if word in bodies[number]]
    for number in (2, 5):  # Gemini's
        assert not [word for word in (SIGNATURE, THOUGHT, "_native", '"thinking"', '"signature"', "tool_call_id") if word in bodies[number]]
    assert not [word for word in (*ONLY_GEMINIS, "tool_call_id", "_native") if word in bodies[4]]
    # Each gets its own back, signed, when the conversation returns to it.
    assert bodies[4].count(SIGNATURE) == bodies[4].count(THOUGHT) == 1
    assert bodies[5].count(THOUGHT_SIGNATURE) == 1

    called = [("get_weather", {"city": "Zürich"}), ("get_time", {"zone": "CET"}), ("get_weather", {"city": "Bern"})]
    for number, turns in enumerate(said):
        assert (turns.system, turns.images, turns.user[0]) == (SYSTEM, [("image/png", IMAGE)], QUESTION)
        assert turns.calls == called[: min(number, 3)]
    assert [text for text in said[5].assistant if text] == ["Let me see.", "And the time.", "Zürich, 18 °C, 09:30.", "As in Zürich."]
    assert list(said[4].results.values()) == ["18 °C, clear", "09:30", "18 °C, clear"]
    assert said[5].user == [QUESTION, "Thank you. And Bern?", "Good."]


@pytest.mark.parametrize("streamed", [False, True])
async def test_signed_thinking_goes_back_to_who_signed_it(llm: QueryLLM, server: ScriptedServer, streamed: bool) -> None:
    """https://docs.anthropic.com/en/docs/build-with-claude/extended-thinking#preserving-thinking-blocks"""
    messages = conversation()
    if streamed:
        server.answer_sse(*ANTHROPIC.stream("Let me see.", calls=CALLS, thinking=(THOUGHT, SIGNATURE)))
        async with llm.stream("claude-sonnet-4-5", messages, tools=TOOLS, max_tokens=2000, reasoning_effort="low") as stream:
            assert "".join([piece async for piece in stream]) == "Let me see."
        first = stream.response
    else:
        server.answer_json(ANTHROPIC.answer("Let me see.", CALLS, thinking=(THOUGHT, SIGNATURE)))
        first = await llm.query("claude-sonnet-4-5", messages, tools=TOOLS, max_tokens=2000, reasoning_effort="low")
    server.answer_json(ANTHROPIC.answer("Zürich."))
    await llm.query("claude-sonnet-4-5", [*messages, first.message, *results_of(first)], tools=TOOLS, max_tokens=2000)
    blocks = server.requests[1].json["messages"][1]["content"]
    assert blocks == ANTHROPIC.answer("Let me see.", CALLS, thinking=(THOUGHT, SIGNATURE))["content"]


@pytest.mark.parametrize("streamed", [False, True])
async def test_encrypted_reasoning_goes_back_to_who_encrypted_it(llm: QueryLLM, server: ScriptedServer, streamed: bool) -> None:
    """https://platform.openai.com/docs/guides/reasoning#encrypted-reasoning-items"""
    messages = conversation()
    options: dict[str, Any] = {"tools": TOOLS, "store": False}
    if streamed:
        server.answer_sse(*RESPONSES.stream("Let me see.", calls=CALLS, thinking=(THOUGHT, "gAAAencrypted")))
        async with llm.stream("acme/gpt-5", messages, **options) as stream:
            assert "".join([piece async for piece in stream]) == "Let me see."
        first = stream.response
    else:
        server.answer_json(RESPONSES.answer("Let me see.", CALLS, thinking=(THOUGHT, "gAAAencrypted")))
        first = await llm.query("acme/gpt-5", messages, **options)
    assert (first.reasoning, first.finish_reason) == (THOUGHT, "tool_calls")
    messages += [first.message, *results_of(first)]
    forms = {"acme/gpt-5": RESPONSES, "claude-sonnet-4-5": ANTHROPIC, "openai/gpt-4.1": CHAT, "gemini/gemini-2.5-flash": GEMINI}
    for model, form in forms.items():
        server.answer_json(form.answer("Zürich."))
        await llm.query(model, messages, tools=TOOLS)
    asked, back, *others = server.requests
    assert asked.json["include"] == ["reasoning.encrypted_content"]
    assert back.json["input"][2:6] == RESPONSES.answer("Let me see.", CALLS, thinking=(THOUGHT, "gAAAencrypted"))["output"]
    for request, form in zip(others, list(forms.values())[1:], strict=True):
        assert not [word for word in ("gAAAencrypted", THOUGHT, "_native", "rs_1") if word in request.body.decode()]
        said = form.read(request.path, request.json)
        assert said.assistant == ["Let me see."] and by_name(said) == RESULTS


@pytest.mark.parametrize("row", ROWS)
async def test_ids_of_calls_that_another_provider_made_up(llm: QueryLLM, server: ScriptedServer, row: str) -> None:
    """Providers name calls as they like, as ``functions.get_weather:0``; not all take all of each other's names."""
    model, form = ROWS[row]
    made_up: tuple[Call, ...] = (("functions.get_weather:0", *CALLS[0][1:]), ("functions.get_time:1", *CALLS[1][1:]))
    server.answer_json(CHAT.answer("", made_up))
    messages = conversation(model)
    first = await llm.query("moonshot/kimi-k2.6", messages, tools=TOOLS)
    assert [call.id for call in first.tool_calls] == [id for id, *_ in made_up]
    server.answer_json(form.answer("Zürich."))
    await llm.query(model, [*messages, first.message, *results_of(first)], tools=TOOLS)
    request = server.requests[1]
    assert by_name(form.read(request.path, request.json)) == RESULTS


@pytest.mark.parametrize("model", ["gemini/gemini-3.5-flash-lite", "vertex/gemini-3.5-flash-lite"])
async def test_a_call_that_another_model_made_needs_a_stand_in_for_its_signature(llm: QueryLLM, server: ScriptedServer, model: str) -> None:
    """From Gemini 3 on, the first call of a step must be signed, or stand under a value that says why it is not.

    https://ai.google.dev/gemini-api/docs/thought-signatures#faqs
    """
    server.answer_json(CHAT.answer("", CALLS))
    messages = conversation()
    first = await llm.query("openai/gpt-4.1", messages, tools=TOOLS)
    server.answer_json(GEMINI.answer("Zürich."))
    await llm.query(model, [*messages, first.message, *results_of(first)], tools=TOOLS)
    parts = server.requests[1].json["contents"][1]["parts"]
    signature = [part.get("thoughtSignature") for part in parts if "functionCall" in part][0]
    assert base64.b64decode(signature) == b"skip_thought_signature_validator"
