"""What several APIs put beside the common form: searches and their cost, reasoning in tags, tools that ran by themselves.

Sources: https://docs.perplexity.ai/api-reference, https://docs.x.ai/docs/api-reference, https://console.groq.com/docs/compound,
https://docs.z.ai/guides/tools/web-search
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from servers.formats import CHAT
from servers.media import PNG, b64
from servers.scripted import ScriptedServer

from llm_master import (
    PROVIDER_CONFIGS,
    AuthenticationError,
    ConfigurationError,
    LLMConfig,
    LLMResponse,
    ProviderConfig,
    QueryLLM,
    ReasoningDelta,
)
from llm_master.dispatch.options import KNOWN_OPTIONS, check_names
from llm_master.providers.think_tags import TagSplitter, split
from llm_master.testing import FakeClock

KEY = "key-0123456789"
HI = {"role": "user", "content": "hi"}
USAGE = {"prompt_tokens": 14, "completion_tokens": 30, "total_tokens": 44}


@pytest.fixture
def llm(server: ScriptedServer) -> QueryLLM:
    names = ("perplexity", "xai", "groq", "huggingface")
    environment = {f"{name.upper()}_API_BASE": server.base_url for name in names} | {f"{name.upper()}_API_KEY": KEY for name in names}
    return QueryLLM(LLMConfig(environment=environment, clock=FakeClock(auto_advance=True)))


async def both_ways(llm: QueryLLM, server: ScriptedServer, model: str, whole: Any, *chunks: Any) -> list[LLMResponse]:
    server.answer_json(whole)
    server.answer_sse(*(chunk if isinstance(chunk, str) else f"data: {json.dumps(chunk)}\n\n" for chunk in chunks))
    answer = await llm.query(model, [HI])
    async with llm.stream(model, [HI]) as stream:
        async for _ in stream:
            pass
    return [answer, stream.response]


def chunk(delta: Any, finish: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"id": "1", "model": "served-1", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **fields}


# Perplexity

RESULTS = [{"title": "Stars", "url": "https://example.com/stars", "snippet": "Many.", "date": "2026-01-02", "source": "web"}]
IMAGE = {"image_url": "https://example.com/stars.jpg", "origin_url": "https://example.com", "height": 10, "width": 10}
SEARCHED = {
    **USAGE,
    "search_context_size": "low",
    "num_search_queries": 3,
    "citation_tokens": 50,
    "cost": {"input_tokens_cost": 0.0, "output_tokens_cost": 0.0001, "request_cost": 0.005, "total_cost": 0.0051},
}


async def test_a_search_its_sources_and_its_cost(llm: QueryLLM, server: ScriptedServer) -> None:
    found = {"citations": ["https://example.com/stars"], "search_results": RESULTS, "images": [IMAGE], "usage": SEARCHED}
    whole = {**CHAT.answer("Many.[1]"), **found, "related_questions": ["How far?"]}
    answers = await both_ways(
        llm,
        server,
        "sonar",
        whole,
        {**chunk({"role": "assistant", "content": "Many."}), "search_results": RESULTS, "usage": USAGE},
        {**chunk({"content": "[1]"}), "search_results": RESULTS, "usage": USAGE},
        {**chunk({"content": ""}, "stop"), **found},
    )
    for answer in answers:
        assert (answer.content, answer.finish_reason) == ("Many.[1]", "stop")
        assert [(note.url, note.title, note.text) for note in answer.citations] == [("https://example.com/stars", "Stars", "Many.")]
        assert [image.url for image in answer.images] == ["https://example.com/stars.jpg"]
        assert (answer.usage.web_searches, answer.usage.cost) == (3, Decimal("0.0051"))
        assert (answer.cost, answer.receipt.cost_state) == (Decimal("0.0051"), "billed")
    assert answers[0].raw["related_questions"] == ["How far?"]


async def test_steps_of_research_are_reasoning(llm: QueryLLM, server: ScriptedServer) -> None:
    steps = [{"thought": "I search.", "type": "web_search"}, {"thought": "I read.", "type": "fetch_url_content"}, {"type": "x"}]
    whole = CHAT.answer("Many.")
    whole["choices"][0]["message"]["reasoning_steps"] = steps
    answers = await both_ways(
        llm, server, "sonar-pro", whole, chunk({"reasoning_steps": steps[:1]}), chunk({"reasoning_steps": steps[1:]}), *CHAT.stream("Many.")
    )
    assert [answer.reasoning for answer in answers] == ["I search.\n\nI read."] * 2


async def test_its_agent_api(llm: QueryLLM, server: ScriptedServer) -> None:
    part = {"type": "output_text", "text": "Many.", "annotations": []}
    items = [
        {"type": "search_results", "queries": ["stars"], "results": [{**RESULTS[0], "id": 1}]},
        {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]},
    ]
    usage = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15, "cost": {"currency": "USD", "total_cost": 0.0123}}
    whole = {"id": "resp_1", "object": "response", "status": "completed", "model": "openai/gpt-5", "output": items, "usage": usage}
    answers = await both_ways(
        llm,
        server,
        "perplexity/responses/openai/gpt-5",
        whole,
        {"type": "response.created", "response": {**whole, "status": "in_progress", "output": [], "usage": None}},
        {"type": "response.reasoning.started", "thought": "I search."},
        {"type": "response.reasoning.search_results", "results": RESULTS},
        {"type": "response.output_text.delta", "delta": "Many.", "output_index": 1, "content_index": 0},
        {"type": "response.completed", "response": whole},
    )
    for answer in answers:
        assert (answer.content, answer.cost) == ("Many.", Decimal("0.0123"))
        assert [(note.url, note.title, note.text) for note in answer.citations] == [("https://example.com/stars", "Stars", "Many.")]
    assert {request.path for request in server.requests} == {"/v1/v1/responses"}
    assert server.requests[-1].json["model"] == "openai/gpt-5"


def test_every_documented_option_is_let_through() -> None:
    for name in KNOWN_OPTIONS:
        check_names({name: 1})
    for name in (
        "search_domain_filter",
        "search_recency_filter",
        "return_images",
        "num_images",
        "min_completion_tokens",
        "compound_custom",
    ):
        assert name in KNOWN_OPTIONS


# Reasoning in tags

THOUGHT = "<think>\nHow many?\n\nMany.\n</think>\n\nThere are <think>many</think>."


async def test_reasoning_in_tags_is_no_text(llm: QueryLLM, server: ScriptedServer) -> None:
    pieces = [THOUGHT[at : at + 4] for at in range(0, len(THOUGHT), 4)]
    for answer in await both_ways(llm, server, "sonar-reasoning-pro", CHAT.answer(THOUGHT), *CHAT.stream(*pieces)):
        assert (answer.reasoning, answer.content) == ("How many?\n\nMany.", "There are <think>many</think>.")
        assert answer.usage.output_tokens == 50
    # A server that is not known to do so is believed.
    for answer in await both_ways(llm, server, "huggingface/deepseek-ai/DeepSeek-R1", CHAT.answer(THOUGHT), *CHAT.stream(*pieces)):
        assert (answer.reasoning, answer.content) == (None, THOUGHT)


async def test_any_row_may_say_so(server: ScriptedServer) -> None:
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url=server.base_url, requires_key=False, reasoning_tag="seed:think")
    server.answer_json(CHAT.answer("<seed:think>Hm.</seed:think>Yes."))
    answer = await QueryLLM().query("acme/m", [HI])
    assert (answer.reasoning, answer.content) == ("Hm.", "Yes.")


@settings(deadline=None, max_examples=300)
@given(st.text(alphabet="<>/think \nab", max_size=40), st.sampled_from(["", "<think>", " \n<think> \n"]), st.integers(1, 7))
def test_in_any_pieces_the_parting_is_the_same(rest: str, begin: str, cut: int) -> None:
    text = begin + rest
    splitter = TagSplitter("think")
    parts = [splitter.feed(text[at : at + cut]) for at in range(0, len(text), cut)] + [splitter.end()]
    thought, said = "".join(part[0] for part in parts), "".join(part[1] for part in parts)
    assert (said, thought or None) == split(text, "think")
    if not begin and not rest.lstrip().startswith("<think>"):
        assert (said, thought) == (text, "")
    elif begin:
        inside, closed, behind = rest.partition("</think>")
        assert thought == inside.strip() and said == (behind.lstrip() if closed else "")


# xAI


@pytest.mark.parametrize("ticks", [37_756_000, "37756000", 37756000.0])
async def test_ticks_are_money(llm: QueryLLM, server: ScriptedServer, ticks: Any) -> None:
    """A tick is 1e-10 USD (https://docs.x.ai/docs/api-reference). The reasoning is counted beside the completion."""
    usage = {
        **{"prompt_tokens": 12, "completion_tokens": 2, "total_tokens": 312, "num_sources_used": 0, "cost_in_usd_ticks": ticks},
        "completion_tokens_details": {"reasoning_tokens": 298},
    }
    whole = {**CHAT.answer("Hi."), "usage": usage, "citations": ["https://x.com/a"]}
    whole["choices"][0]["message"]["reasoning_content"] = "Hm."
    last = {**chunk({}, "stop"), "usage": usage, "citations": ["https://x.com/a"]}
    answers = await both_ways(llm, server, "grok-4.3", whole, chunk({"reasoning_content": "Hm."}), chunk({"content": "Hi."}), last)
    for answer in answers:
        assert (answer.usage.output_tokens, answer.usage.reasoning_tokens) == (300, 298)
        assert (answer.cost, answer.receipt.cost_state) == (Decimal("0.0037756"), "billed")
        assert (answer.reasoning, [str(note) for note in answer.citations]) == ("Hm.", ["https://x.com/a"])
        assert answer.native is None


async def test_sources_that_are_billed_apart_are_no_part_of_a_price(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_json({**CHAT.answer("Hi."), "usage": {**USAGE, "num_sources_used": 3}})
    assert (await llm.query("grok-4.3", [HI])).cost is None


async def test_a_search_of_x_is_nothing_to_answer(llm: QueryLLM, server: ScriptedServer) -> None:
    search = {
        "id": "ctc_1",
        "type": "custom_tool_call",
        "status": "completed",
        "call_id": "xs_1",
        "name": "x_keyword_search",
        "input": "{}",
    }
    part = {"type": "output_text", "text": "Hi.", "annotations": []}
    items = [search, {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}]
    usage = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15, "cost_in_usd_ticks": 50_000_000, "num_server_side_tools_used": 1}
    whole = {"id": "r", "object": "response", "status": "completed", "model": "grok-4.3", "output": items, "usage": usage}
    answers = await both_ways(
        llm,
        server,
        "xai/responses/grok-4.3",
        whole,
        {"type": "response.output_item.added", "output_index": 0, "item": {**search, "status": "in_progress"}},
        {"type": "response.output_item.done", "output_index": 0, "item": search},
        {"type": "response.output_text.delta", "output_index": 1, "content_index": 0, "delta": "Hi."},
        {"type": "response.completed", "response": whole},
    )
    for answer in answers:
        assert (answer.content, answer.tool_calls, answer.finish_reason) == ("Hi.", [], "stop")
        assert answer.cost == Decimal("0.005")
        assert answer.native == {"format": "responses", "by": "xai", "content": items}
    assert {request.path for request in server.requests} == {"/v1/responses"}


async def test_its_error_that_is_a_text(llm: QueryLLM, server: ScriptedServer) -> None:
    body = {"code": "Client specified an invalid argument", "error": "Incorrect API key provided: xa***99."}
    server.answer_json(body, status=400)
    with pytest.raises(AuthenticationError, match="Incorrect API key"):
        await llm.query("grok-4.3", [HI])


# Groq

PAGES = [{"title": "T", "url": f"https://example.com/{n}", "content": "c", "score": 0.9} for n in (1, 2)]


async def test_tools_that_ran_by_themselves(llm: QueryLLM, server: ScriptedServer) -> None:
    searched = {"index": 0, "type": "search", "arguments": "{}", "output": "...", "search_results": {"results": PAGES, "images": None}}
    ran = {"index": 1, "type": "python", "arguments": "{}", "output": "4", "code_results": [{"png": b64(PNG)}, {"text": "4", "png": "?"}]}
    visited = {"index": 2, "type": "visit", "arguments": "{}", "browser_results": [{"title": "T", "url": "https://example.com/1"}]}
    breakdown = {"models": [{"model": "openai/gpt-oss-120b", "usage": USAGE}]}
    whole = {**CHAT.answer("4."), "usage": USAGE, "usage_breakdown": breakdown}
    whole["choices"][0]["message"] |= {"executed_tools": [searched, ran, visited], "reasoning": "Hm."}
    begun = {**searched, "output": None, "search_results": None}
    answers = await both_ways(
        llm,
        server,
        "groq/groq/compound",
        whole,
        *(chunk({"reasoning": "Hm.", "executed_tools": [begun]}), chunk({"executed_tools": [searched]})),
        *(chunk({"executed_tools": [ran, visited], "content": "4"}), chunk({"content": "."})),
        {**chunk({}, "stop"), "usage": USAGE, "usage_breakdown": breakdown},
    )
    for answer in answers:
        assert (answer.content, answer.reasoning, answer.tool_calls) == ("4.", "Hm.", [])
        assert [(note.url, note.title, note.text) for note in answer.citations] == [
            ("https://example.com/1", "T", "c"),
            ("https://example.com/2", "T", "c"),
        ]
        assert [image.data for image in answer.images] == [PNG]
        # The models behind it have prices of their own, and so have the tools.
        assert answer.usage.others_worked and answer.cost is None


# Responses over many rows


@pytest.mark.parametrize(
    ("row", "encrypted"),
    [
        ("openrouter", True),
        ("xai", True),
        ("groq", False),
        ("deepseek", False),
        ("huggingface", False),
        ("vllm", False),
        ("lmstudio", False),
    ],
)
async def test_responses_of_a_row(server: ScriptedServer, row: str, encrypted: bool) -> None:
    """Where the reasoning is shown itself, nobody asks for it encrypted: some refuse that."""
    llm = QueryLLM(LLMConfig(environment={f"{row.upper()}_API_BASE": server.base_url, f"{row.upper()}_API_KEY": KEY}))
    thought = {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]}
    part = {"type": "output_text", "text": "Hi.", "annotations": []}
    items = [thought, {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]}]
    whole = {"id": "r", "object": "response", "status": "completed", "model": "m", "output": items, "usage": None}
    server.answer_json(whole, times=None)
    answer = await llm.query(f"{row}/responses/maker/model", [HI], store=False, max_tokens=9)
    assert (answer.content, answer.reasoning, answer.provider) == ("Hi.", "Hm.", row)
    await llm.query(f"{row}/responses/maker/model", [HI, json.loads(json.dumps(answer.message)), HI])
    first, second = server.requests
    assert (first.path, first.json["model"], first.json["max_output_tokens"]) == ("/v1/responses", "maker/model", 9)
    assert ("include" in first.json) is encrypted
    assert second.json["input"][1:3] == items


async def test_citations_of_other_kinds(llm: QueryLLM, server: ScriptedServer) -> None:
    notes = [
        {"type": "document_citation", "document_citation": {"document_id": "doc-1", "start_index": 0, "end_index": 3}},
        {"type": "function_citation", "function_citation": {"tool_call_id": "call_1", "start_index": 4, "end_index": 6}},
        {"type": "url_citation", "url": "https://example.com", "title": "E", "start_index": 0, "end_index": 3},
        *({"type": "file", "file": {"name": "a.pdf"}}, {"type": 5}, {"type": "url_citation", "url_citation": None}, None),
    ]
    whole = CHAT.answer("Yes it is.")
    whole["choices"][0]["message"]["annotations"] = notes
    for answer in await both_ways(llm, server, "groq/m", whole, chunk({"annotations": notes}), *CHAT.stream("Yes it is.")):
        assert [(note.url, note.title, note.start, note.end) for note in answer.citations] == [
            (None, "doc-1", 0, 3),
            (None, "call_1", 4, 6),
            ("https://example.com", "E", 0, 3),
        ]


# Rows


def test_a_row_that_wants_back_what_there_is_not() -> None:
    with pytest.raises(ConfigurationError, match="returns is .'thoughts',.: give a tuple of content, reasoning"):
        ProviderConfig(returns=("thoughts",))
    with pytest.raises(ConfigurationError, match="reasoning_tag"):
        ProviderConfig(reasoning_tag=None)  # type: ignore[arg-type]
    assert ProviderConfig(returns="reasoning").returns == ("reasoning",)


async def test_any_row_may_want_its_reasoning_back(server: ScriptedServer) -> None:
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url=server.base_url, requires_key=False, returns=("reasoning",))
    whole = CHAT.answer("Yes.")
    whole["choices"][0]["message"]["reasoning"] = "Hm."
    for answer in await both_ways(
        QueryLLM(), server, "acme/m", whole, chunk({"reasoning": "H"}), chunk({"reasoning": "m."}), *CHAT.stream("Yes.")
    ):
        assert answer.native == {"format": "chat", "fields": {"reasoning": "Hm."}}
        server.answer_json(whole)
        await QueryLLM().query("acme/m", [HI, answer.message, HI])
        assert server.requests[-1].json["messages"][1] == {"role": "assistant", "content": "Yes.", "reasoning": "Hm."}
    PROVIDER_CONFIGS["acme"] = attrs.evolve(PROVIDER_CONFIGS["acme"], returns=())
    server.answer_json(whole)
    answer = await QueryLLM().query("acme/m", [HI, answer.message, HI])
    assert server.requests[-1].json["messages"][1] == {"role": "assistant", "content": "Yes."} and answer.native is None


@pytest.mark.parametrize(
    "native", [None, "x", {}, {"format": "chat"}, {"format": "chat", "fields": "x"}, {"format": "responses", "content": []}]
)
async def test_a_native_form_that_is_none_is_left_out(server: ScriptedServer, native: Any) -> None:
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url=server.base_url, requires_key=False, returns=("reasoning",))
    server.answer_json(CHAT.answer("ok"))
    await QueryLLM().query("acme/m", [HI, {"role": "assistant", "content": "Yes.", "_native": native}, HI])
    assert server.requests[-1].json["messages"][1] == {"role": "assistant", "content": "Yes."}


@pytest.mark.parametrize("said", [True, 5, "x", [], {}, [1], {"a": 1}, [{"type": 5}], [{"url": 5}], [[]]])
@pytest.mark.parametrize(
    "field",
    ["reasoning_details", "executed_tools", "reasoning_steps", "annotations", "images", "reasoning", "reasoning_content", "content"],
)
async def test_whatever_stands_there_it_is_an_answer(server: ScriptedServer, field: str, said: Any) -> None:
    returns = ("content", "reasoning", "reasoning_content", "reasoning_details", "annotations")
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url=server.base_url, requires_key=False, returns=returns, reasoning_tag="think")
    whole = CHAT.answer("Yes.")
    whole["choices"][0]["message"][field] = said
    first, second = await both_ways(QueryLLM(), server, "acme/m", whole, chunk({field: said}), *CHAT.stream("Yes."))
    assert isinstance(first.content, str) and second.content.endswith("Yes.")
    json.dumps([first.message, second.message])


async def test_events_of_tagged_reasoning_come_as_they_settle(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_sse(*CHAT.stream("<thi", "nk>How", " many?", "\n</think>", "\n\nMa", "ny."))
    events = []
    async with llm.stream("sonar-reasoning-pro", [HI]) as stream:
        async for event in stream.events():
            events.append(event)
    assert [event.text for event in events if isinstance(event, ReasoningDelta)] == ["How", " many?"]
    assert [event.text for event in events if hasattr(event, "text") and not isinstance(event, ReasoningDelta)] == ["Ma", "ny."]
