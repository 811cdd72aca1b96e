"""Cohere's own API: what goes out, and what is made of what comes back. What all formats share is in ``test_contract.py``."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any

import attrs
import pytest
from pydantic import BaseModel, Field
from servers.format_cohere import COHERE
from servers.scripted import ScriptedServer

from llm_master import (
    PROVIDER_CONFIGS,
    InvalidRequestError,
    LLMResponse,
    ModelConfig,
    ModelRegistry,
    QueryLLM,
    ReasoningDelta,
    ServerError,
    StreamInterruptedError,
    Usage,
)
from llm_master.row_classes import provider_class
from llm_master.testing import FakeClock

KEY = "co-test-0123456789"
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {"at": {"type": "string"}}}}}
OTHER = {"type": "function", "function": {"name": "listen", "description": "Hear.", "strict": True}}


@pytest.fixture
def llm(server: ScriptedServer) -> QueryLLM:
    return QueryLLM(cohere_api_base=server.url, cohere_api_key=KEY, clock=FakeClock(auto_advance=True))


async def sent(llm: QueryLLM, server: ScriptedServer, **options: Any) -> Any:
    """The body that a call with these options sends."""
    server.answer_json(COHERE.answer("Yes."))
    await llm.query("cohere/any-model", **{"prompt": "Hi", **options})
    return server.requests[-1].json


async def both(llm: QueryLLM, server: ScriptedServer, *texts: str, **how: Any) -> list[LLMResponse]:
    """One answer, whole and streamed."""
    server.answer_json(COHERE.answer("".join(texts), **how))
    server.answer_sse(*COHERE.stream(*texts, **how))
    whole = await llm.query("cohere/any-model", prompt="Hi")
    async with llm.stream("cohere/any-model", prompt="Hi") as stream:
        async for _ in stream:
            pass
    return [whole, stream.response]


# Options


async def test_openais_options_in_its_words(llm: QueryLLM, server: ScriptedServer) -> None:
    body = await sent(
        llm, server, max_completion_tokens=5, top_p=0.5, top_k=3, stop="END", seed=1, frequency_penalty=0.1, n=1, logprobs=True
    )
    assert body == {
        "model": "any-model",
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": False,
        "max_tokens": 5,
        "p": 0.5,
        "k": 3,
        "stop_sequences": ["END"],
        "seed": 1,
        "frequency_penalty": 0.1,
        "logprobs": True,
    }


async def test_its_own_options_go_through(llm: QueryLLM, server: ScriptedServer) -> None:
    own = {"safety_mode": "STRICT", "citation_options": {"mode": "FAST"}, "p": 0.9, "strict_tools": True}
    documents = ["A text.", {"id": "a", "data": {"title": "A", "snippet": "..."}}]
    body = await sent(llm, server, documents=documents, **own)
    assert {name: body[name] for name in own} == own
    assert body["documents"] == documents


@pytest.mark.parametrize("documents", ["a text", [{"text": "flat"}], [7], {"data": {}}])
async def test_documents_that_are_none(llm: QueryLLM, server: ScriptedServer, documents: Any) -> None:
    with pytest.raises(InvalidRequestError, match="documents.*give"):
        await llm.query("cohere/any-model", prompt="Hi", documents=documents)
    assert server.requests == []


@pytest.mark.parametrize(
    ("effort", "most", "thinking"),
    [
        ("none", None, {"type": "disabled"}),
        ("low", None, {"type": "enabled", "token_budget": 1024}),
        ("medium", 8000, {"type": "enabled", "token_budget": 4096}),
        ("medium", 3000, {"type": "enabled", "token_budget": 1500}),
        ("high", 100, {"type": "enabled"}),
    ],
)
async def test_effort_is_a_budget_of_thoughts(llm: QueryLLM, server: ScriptedServer, effort: str, most: int | None, thinking: Any) -> None:
    assert (await sent(llm, server, reasoning_effort=effort, max_tokens=most))["thinking"] == thinking


async def test_an_effort_that_there_is_not(llm: QueryLLM) -> None:
    with pytest.raises(InvalidRequestError, match="reasoning_effort is 'huge'.*none, minimal, low"):
        await llm.query("cohere/any-model", prompt="Hi", reasoning_effort="huge")


async def test_tools_without_what_only_openais_have(llm: QueryLLM, server: ScriptedServer) -> None:
    body = await sent(llm, server, tools=[TOOL, OTHER], parallel_tool_calls=True, tool_choice="auto")
    assert body["tools"][0] == TOOL
    empty = {"type": "object", "properties": {}}
    assert body["tools"][1] == {"type": "function", "function": {"name": "listen", "description": "Hear.", "parameters": empty}}
    assert body["strict_tools"] is True
    assert not body.keys() & {"tool_choice", "parallel_tool_calls"}


async def test_one_function_is_forced_by_showing_no_other(llm: QueryLLM, server: ScriptedServer) -> None:
    body = await sent(llm, server, tools=[TOOL, OTHER], tool_choice={"type": "function", "function": {"name": "listen"}})
    assert ([tool["function"]["name"] for tool in body["tools"]], body["tool_choice"]) == (["listen"], "REQUIRED")
    for choice in ({"type": "function", "function": {"name": "smell"}}, "sometimes", {"type": "tool"}):
        with pytest.raises(InvalidRequestError, match="tool_choice"):
            await llm.query("cohere/any-model", prompt="Hi", tools=[TOOL], tool_choice=choice)


# Structured output


class Place(BaseModel):
    city: str
    degrees: int = Field(ge=-90)


async def test_a_class_is_a_schema_with_its_limits_in_words(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_json(COHERE.answer('{"city": "Bern", "degrees": 7}'))
    answer = await llm.query("cohere/any-model", prompt="Hi", response_format=Place)
    assert answer.parsed == Place(city="Bern", degrees=7)
    wanted = server.request.json["response_format"]
    assert wanted["type"] == "json_object"
    degrees = wanted["json_schema"]["properties"]["degrees"]
    assert "minimum" not in degrees and "-90" in degrees["description"]


@pytest.mark.parametrize("beside", [{"tools": [TOOL]}, {"documents": ["A text."]}])
async def test_beside_tools_and_documents_a_form_is_asked_for_in_words(llm: QueryLLM, server: ScriptedServer, beside: Any) -> None:
    """The API refuses both together."""
    for form in (Place, {"type": "json_object"}):
        server.answer_json(COHERE.answer('{"city": "Bern", "degrees": 7}'))
        answer = await llm.query("cohere/any-model", prompt="Hi", response_format=form, **beside)
        assert answer.receipt.structured_output == "prompt"
        body = server.requests[-1].json
        assert "response_format" not in body and "JSON" in json.dumps(body["messages"])


@pytest.mark.parametrize(
    ("schema", "what"),
    [
        ({"type": "object", "properties": {"a": {"type": "integer", "maximum": 3}}, "required": ["a"]}, "'maximum'"),
        ({"type": "object", "properties": {"a": {"type": "integer"}}}, "required property"),
        ({"type": "object", "properties": {"a": {"type": "string", "pattern": "^a"}}, "required": ["a"]}, "pattern"),
        ({"type": "object", "properties": {"a": {"type": "string", "format": "email"}}, "required": ["a"]}, "'email'"),
    ],
)
async def test_a_schema_that_it_does_not_know_is_refused_by_name(llm: QueryLLM, server: ScriptedServer, schema: Any, what: str) -> None:
    with pytest.raises(InvalidRequestError, match=what):
        await llm.query("cohere/any-model", prompt="Hi", response_format=schema)
    assert server.requests == []


# Thoughts, plans, citations

DOCUMENT = {"id": "d1", "title": "Bern", "snippet": "Bern is a city.", "url": "https://bern.example"}
CITED = {
    "start": 5,
    "end": 9,
    "text": "Bern",
    "sources": [{"type": "document", "id": "d1", "document": DOCUMENT}, {"type": "tool", "id": "look:0", "tool_output": {"content": "x"}}],
    "type": "TEXT_CONTENT",
    "content_index": 1,
}


async def test_thoughts_and_plan_are_reasoning_and_go_back(llm: QueryLLM, server: ScriptedServer) -> None:
    calls = (("look_1", "look", {"at": "Bern"}),)
    answers = await both(llm, server, "I see.", thinking="Where is it?", plan="I will look.", calls=calls)
    for answer in answers:
        assert (answer.content, answer.reasoning, answer.finish_reason) == ("I see.", "Where is it?I will look.", "tool_calls")
        server.answer_json(COHERE.answer("Here."))
        message = json.loads(json.dumps(answer.message))
        results = [{"role": "tool", "tool_call_id": "look_1", "content": "yes"}]
        await llm.query("cohere/any-model", [{"role": "user", "content": "Hi"}, message, *results])
        sent = server.requests[-1].json["messages"][1]
        assert sent == COHERE.answer("I see.", calls, thinking="Where is it?", plan="I will look.")["message"]


async def test_thoughts_come_apart_from_the_text(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_sse(*COHERE.stream("Yes", ".", thinking="Hm, so.", plan="Look."))
    async with llm.stream("cohere/any-model", prompt="Hi") as stream:
        events = [event async for event in stream.events()]
    thoughts = "".join(event.text for event in events if isinstance(event, ReasoningDelta))
    assert (thoughts, stream.response.content) == ("Hm, so.Look.", "Yes.") and stream.response.reasoning == thoughts


async def test_citations_name_each_source_and_the_words_they_support(llm: QueryLLM, server: ScriptedServer) -> None:
    for answer in await both(llm, server, "It is ", "Bern.", thinking="Hm.", citations=[{**CITED, "start": 6, "end": 10}]):
        first, second = answer.citations
        assert (first.url, first.title, first.text) == ("https://bern.example", "Bern", "Bern is a city.")
        assert (second.url, second.title, second.text) == (None, "look:0", "x")
        assert {answer.content[citation.start : citation.end] for citation in answer.citations} == {"Bern"}
        assert first.raw["text"] == "Bern"


async def test_a_citation_in_the_plan_is_of_no_words_of_the_text(llm: QueryLLM, server: ScriptedServer) -> None:
    for answer in await both(llm, server, "Yes.", plan="Look at Bern.", citations=[{**CITED, "type": "PLAN"}]):
        assert [(citation.start, citation.end) for citation in answer.citations] == [(None, None)] * 2


@pytest.mark.parametrize("citations", ["x", [None], [{}], [{"sources": None}], [{"sources": [7], "start": "a"}], {"sources": []}])
async def test_citations_of_another_form_break_nothing(llm: QueryLLM, server: ScriptedServer, citations: Any) -> None:
    body = COHERE.answer("Yes.")
    body["message"]["citations"] = citations
    server.answer_json(body)
    answer = await llm.query("cohere/any-model", prompt="Hi")
    assert (answer.content, answer.citations) == ("Yes.", [])


# Messages


async def test_a_result_may_hold_documents(llm: QueryLLM, server: ScriptedServer) -> None:
    content = [{"type": "document", "document": {"id": "1", "data": {"a": 1}}}, {"type": "text", "text": "b"}]
    call = {"id": "c", "type": "function", "index": 0, "function": {"name": "look", "arguments": ""}}
    messages = [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://bern.example/a.png", "detail": "low"}}, "See"]},
        {"role": "assistant", "content": None, "tool_calls": [call], "tool_plan": "I look."},
        {"role": "tool", "tool_call_id": "c", "content": content},
    ]
    server.answer_json(COHERE.answer("Yes."))
    await llm.query("cohere/any-model", messages)
    user, assistant, tool = server.request.json["messages"]
    assert user["content"] == [messages[0]["content"][0], {"type": "text", "text": "See"}]
    made = {"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    assert assistant == {"role": "assistant", "tool_plan": "I look.", "tool_calls": [made]}
    assert tool == {"role": "tool", "tool_call_id": "c", "content": content}


@pytest.mark.parametrize(
    ("message", "what"),
    [
        ({"role": "tool", "tool_call_id": "x", "content": "a"}, "messages\\[1\\].*'x'"),
        ({"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}]}, "input_audio"),
        ({"role": "assistant", "content": 7}, "content"),
    ],
)
async def test_messages_that_it_cannot_take(llm: QueryLLM, server: ScriptedServer, message: Any, what: str) -> None:
    with pytest.raises(InvalidRequestError, match=what):
        await llm.query("cohere/any-model", [{"role": "user", "content": "Hi"}, message])
    assert server.requests == []


# Usage and cost


async def test_what_is_billed_costs_and_what_was_read_counts(llm: QueryLLM, server: ScriptedServer) -> None:
    ModelRegistry.register("cohere/any-model", ModelConfig(input_price_per_million=1_000_000, output_price_per_million=10_000_000))
    for answer in await both(llm, server, "Yes."):
        usage = answer.usage
        assert (usage.input_tokens, usage.output_tokens, usage.cached_tokens) == (100, 50, 30)
        assert (usage.billed_input_tokens, usage.billed_output_tokens) == (7, 5)
        assert (answer.cost, answer.receipt.cost_state) == (Decimal(57), "exact")


@pytest.mark.parametrize(
    ("wire", "usage"),
    [
        (None, Usage()),
        ({}, Usage()),
        ({"tokens": None, "billed_units": None, "cached_tokens": None}, Usage()),
        ({"tokens": {"input_tokens": 3.0, "output_tokens": None}}, Usage(3)),
        ({"tokens": {"input_tokens": "many", "output_tokens": 2.5}, "more": {}}, Usage()),
        ({"billed_units": {"input_tokens": 3, "output_tokens": 2}}, Usage(3, 2, billed_input_tokens=3, billed_output_tokens=2)),
    ],
)
async def test_usage_of_any_form(llm: QueryLLM, server: ScriptedServer, wire: Any, usage: Usage) -> None:
    server.answer_json({**COHERE.answer("Yes."), "usage": wire})
    assert (await llm.query("cohere/any-model", prompt="Hi")).usage == usage


# Ends


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("STOP_SEQUENCE", "stop"), ("ERROR_TOXIC", "content_filter"), ("ERROR_LIMIT", "length"), ("TIMEOUT", "TIMEOUT"), (None, None)],
)
async def test_why_it_stopped(llm: QueryLLM, server: ScriptedServer, theirs: str | None, ours: str | None) -> None:
    server.answer_json({**COHERE.answer("Yes."), "finish_reason": theirs})
    assert (await llm.query("cohere/any-model", prompt="Hi")).finish_reason == ours


async def test_an_error_is_no_answer(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_json({**COHERE.answer("half an ans"), "finish_reason": "ERROR"}, times=None)
    with pytest.raises(ServerError, match="the generation failed"):
        await llm.query("cohere/any-model", prompt="Hi")


@pytest.mark.parametrize(
    "broken",
    [
        COHERE.error_event(),
        'event: message-end\ndata: {"type": "message-end", "delta": {"finish_reason": "ERROR"}}\n\n',
        'data: {"id": "1", "message": "internal server error"}\n\n',
        'data: {"type": "content-delta", "delta"\n\n',
    ],
)
async def test_a_stream_that_breaks(llm: QueryLLM, server: ScriptedServer, broken: str) -> None:
    server.answer_sse(*COHERE.stream("Hello", " you")[:4], broken)
    with pytest.raises(StreamInterruptedError) as caught:
        async with llm.stream("cohere/any-model", prompt="Hi") as stream:
            async for _ in stream:
                pass
    assert caught.value.response is not None and caught.value.response.content == "Hello you"


async def test_events_without_an_index(llm: QueryLLM, server: ScriptedServer) -> None:
    calls = (("a", "look", {"at": "x"}), ("b", "look", {"at": "y"}))
    events = [re.sub(r', "index": \d', "", event) for event in COHERE.stream("Hm.", thinking="Why?", calls=calls)]
    assert "index" not in "".join(events)
    server.answer_sse(*events, 'data: {"type": "debug", "prompt": "..."}\n\n', "data: [DONE]\n\n")
    async with llm.stream("cohere/any-model", prompt="Hi") as stream:
        async for _ in stream:
            pass
    answer = stream.response
    assert (answer.content, answer.reasoning) == ("Hm.", "Why?")
    assert [(call.id, call.arguments) for call in answer.tool_calls] == [("a", {"at": "x"}), ("b", {"at": "y"})]


# Addresses


@pytest.mark.parametrize("ending", ["", "/", "/v1", "/v2/", "/compatibility/v1"])
async def test_the_version_of_an_address_is_its_own_business(server: ScriptedServer, ending: str) -> None:
    """Also where settings still name the OpenAI-compatible API, which this is not."""
    llm = QueryLLM(cohere_api_base=f"{server.url}/proxy{ending}", cohere_api_key=KEY)
    server.answer_json(COHERE.answer("Yes."))
    assert llm.plan("command-a-03-2025", prompt="Hi").url == f"{server.url}/proxy/v2/chat"
    await llm.query("cohere/any-model", prompt="Hi")
    assert server.request.path == "/proxy/v2/chat"


async def test_models_are_listed_page_by_page(server: ScriptedServer) -> None:
    server.answer_json({"models": [{"name": "command-a", "endpoints": ["chat"]}, {"name": None}], "next_page_token": "b2Zmc2V0PTI="})
    server.answer_json({"models": [{"name": "embed-v4.0"}, {"name": "command-a"}], "next_page_token": ""})
    row = PROVIDER_CONFIGS["cohere"]
    provider = provider_class(row)(attrs.evolve(row, base_url=server.base_url, api_key=KEY))
    assert await provider.list_models() == ["command-a", "embed-v4.0"]
    first, second = server.requests
    assert first.path == "/v1/models?page_size=1000"
    assert second.path in ("/v1/models?page_size=1000&page_token=b2Zmc2V0PTI=", "/v1/models?page_size=1000&page_token=b2Zmc2V0PTI%3D")
    assert second.headers["authorization"] == f"Bearer {KEY}"


# Embeddings and rankings


async def test_images_are_embedded_beside_texts(llm: QueryLLM, server: ScriptedServer) -> None:
    ModelRegistry.register("cohere/any-model", ModelConfig(input_price_per_million=1_000_000, image_input_price_per_million=2_000_000))
    units = {"input_tokens": 3, "image_tokens": 10, "images": 1}
    server.answer_json({"embeddings": {"float": [[1, 2], [3, 4]]}, "meta": {"billed_units": units}})
    answer = await llm.embed("cohere/any-model", ["a cat", "data:image/png;base64,AAAA"], dimensions=2)
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    assert server.request.json == {
        "model": "any-model",
        "inputs": [{"content": [{"type": "text", "text": "a cat"}]}, {"content": [image]}],
        "input_type": "search_document",
        "embedding_types": ["float"],
        "output_dimension": 2,
    }
    assert (answer.usage.input_tokens, answer.usage.image_input_tokens, answer.cost) == (13, 10, 23)


async def test_images_that_are_billed_apiece_have_no_known_cost(llm: QueryLLM, server: ScriptedServer) -> None:
    ModelRegistry.register("cohere/any-model", ModelConfig(input_price_per_million=1_000_000))
    server.answer_json({"embeddings": {"float": [[1, 2]]}, "meta": {"billed_units": {"images": 1}}})
    answer = await llm.embed("cohere/any-model", "data:image/png;base64,AAAA", input_type="image")
    assert (answer.usage.input_tokens, answer.cost) == (None, None)
    assert server.request.json["input_type"] == "image"


async def test_numbers_of_another_type_are_refused(llm: QueryLLM, server: ScriptedServer) -> None:
    with pytest.raises(InvalidRequestError, match="embedding_types"):
        await llm.embed("cohere/any-model", "a", embedding_types=["int8"])
    assert server.requests == []


async def test_a_ranking_costs_its_search_units(llm: QueryLLM, server: ScriptedServer) -> None:
    results = [{"index": 1, "relevance_score": 0.9}]
    server.answer_json({"id": "1", "results": results, "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}}})
    ranking = await llm.rerank("cohere/rerank-v3.5", "cats", ["dogs", "cats"], top_n=1, max_tokens_per_doc=100)
    assert [(result.index, result.document) for result in ranking] == [(1, "cats")]
    assert server.request.path == "/v2/rerank"
    asked = {"model": "rerank-v3.5", "query": "cats", "documents": ["dogs", "cats"], "top_n": 1, "max_tokens_per_doc": 100}
    assert server.request.json == asked
    assert (ranking.usage.search_units, ranking.cost) == (1, Decimal("0.002"))
