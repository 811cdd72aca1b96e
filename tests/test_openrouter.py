"""OpenRouter: reasoning that goes back, files that were read, what it bills, and its errors under 200.

Sources: https://openrouter.ai/docs/guides/best-practices/reasoning-tokens, https://openrouter.ai/docs/features/multimodal/pdfs,
https://openrouter.ai/docs/use-cases/usage-accounting, https://openrouter.ai/docs/api/reference/errors-and-debugging
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from servers.formats import CHAT
from servers.media import PNG, b64
from servers.scripted import ScriptedServer

import llm_master
from llm_master import (
    PROVIDER_CONFIGS,
    InsufficientFundsError,
    LLMConfig,
    LLMResponse,
    ProviderError,
    QueryLLM,
    RateLimitError,
    ServerError,
    StreamInterruptedError,
)
from llm_master.providers.chat_extras import add_details
from llm_master.testing import FakeClock

KEY = "sk-or-v1-0123456789"
MODEL = "openrouter/anthropic/claude-sonnet-4.5"
HI = {"role": "user", "content": "hi"}
THOUGHT = {"type": "reasoning.text", "text": "The user greets me.", "signature": "c2ln", "format": "anthropic-claude-v1", "index": 0}
SUMMARY = {"type": "reasoning.summary", "summary": "**Greeting**", "format": "openai-responses-v1", "index": 0}
SEALED = {"type": "reasoning.encrypted", "data": "Z2lic2g=", "id": "rs_1", "format": "openai-responses-v1", "index": 0}
FILE = {"type": "file", "file": {"hash": "a1e0", "name": "a.pdf", "content": [{"type": "text", "text": "# Dummy"}]}}
PAGE = {
    "type": "url_citation",
    "url_citation": {"url": "https://example.com", "title": "E", "start_index": 0, "end_index": 2, "content": "x"},
}


def message(**fields: Any) -> dict[str, Any]:
    whole: dict[str, Any] = CHAT.answer("Hello.", [("call_1", "f", {})])
    whole["choices"][0]["message"] |= fields
    return whole


def chunk(delta: Any = None, **fields: Any) -> str:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": None, "native_finish_reason": None}]
    return f"data: {json.dumps({'id': 'gen-1', 'model': 'served-1', 'provider': 'Google', 'choices': choices, **fields})}\n\n"


@pytest.fixture
def llm(server: ScriptedServer) -> QueryLLM:
    environment = {"OPENROUTER_API_BASE": server.base_url, "OPENROUTER_API_KEY": KEY}
    environment |= {"OPENROUTER_HEADERS": '{"HTTP-Referer": "https://acme.example", "X-Title": "Acme"}'}
    return QueryLLM(LLMConfig(environment=environment, clock=FakeClock(auto_advance=True)))


async def streamed(llm: QueryLLM, *arguments: Any, **options: Any) -> LLMResponse:
    async with llm.stream(*arguments, **options) as stream:
        async for _ in stream:
            pass
    return stream.response


async def next_turn(llm: QueryLLM, server: ScriptedServer, answer: LLMResponse) -> Any:
    server.answer_json(CHAT.answer("ok"))
    result = [{"role": "tool", "tool_call_id": call.id, "content": "x"} for call in answer.tool_calls]
    await llm.query(MODEL, [HI, json.loads(json.dumps(answer.message)), *result, HI])
    return server.requests[-1].json["messages"][1]


async def test_its_reasoning_goes_back_as_it_came(llm: QueryLLM, server: ScriptedServer) -> None:
    details = [SUMMARY, SEALED, THOUGHT]
    server.answer_json(message(reasoning="The user greets me.", reasoning_details=details, annotations=[FILE, PAGE]))
    answer = await llm.query(MODEL, [HI])
    assert answer.reasoning == "The user greets me." and [note.url for note in answer.citations] == ["https://example.com"]
    sent = await next_turn(llm, server, answer)
    assert (sent["reasoning_details"], sent["annotations"]) == (details, [FILE])
    assert sent.keys() == {"role", "content", "tool_calls", "reasoning_details", "annotations"}


async def test_in_a_stream_the_pieces_are_joined(llm: QueryLLM, server: ScriptedServer) -> None:
    head = {key: THOUGHT[key] for key in ("type", "format", "index")}
    server.answer_sse(
        *(": OPENROUTER PROCESSING\n\n", chunk({"role": "assistant", "content": "", "reasoning_details": []})),
        chunk({"content": "", "reasoning": "The user ", "reasoning_details": [{**head, "text": "The user "}]}),
        ": OPENROUTER PROCESSING\n\n",
        chunk({"content": "", "reasoning": "greets me.", "reasoning_details": [{**head, "text": "greets me.", "signature": None}]}),
        chunk({"content": "", "reasoning": None, "reasoning_details": [{**head, "signature": "c2ln", "text": ""}]}),
        chunk({"content": "", "reasoning_details": [SEALED]}),
        *(
            chunk({"content": "Hel", "reasoning_details": []}),
            chunk({"content": "lo."}),
            chunk({"content": "", "annotations": [FILE, PAGE]}),
        ),
        *CHAT.stream(calls=[("call_1", "f", {})]),
    )
    answer = await streamed(llm, MODEL, [HI])
    assert (answer.content, answer.reasoning) == ("Hello.", "The user greets me.")
    assert [note.url for note in answer.citations] == ["https://example.com"]
    sent = await next_turn(llm, server, answer)
    assert (sent["reasoning_details"], sent["annotations"]) == ([THOUGHT, SEALED], [FILE])


@settings(deadline=None, max_examples=100)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from(["text", "summary"]), st.text(min_size=1, max_size=8)).map(
                lambda said: {"type": f"reasoning.{said[0]}", said[0]: said[1], "format": "f"}
            ),
            st.just({key: value for key, value in SEALED.items() if key != "index"}),
        ),
        max_size=5,
    ),
    st.integers(1, 3),
)
def test_details_in_any_pieces_are_the_same(details: list[dict[str, Any]], cut: int) -> None:
    whole = [{**detail, "index": index} for index, detail in enumerate(details)]
    pieces = []
    for detail in whole:
        field = detail["type"].rpartition(".")[2]
        text = detail.get(field)
        pieces += [detail] if text is None else [{**detail, field: text[at : at + cut]} for at in range(0, len(text), cut)]
    joined: list[dict[str, Any]] = []
    for piece in pieces:
        add_details(joined, [piece])
    assert joined == whole


def test_details_without_an_index_are_joined_where_they_follow_each_other() -> None:
    joined: list[dict[str, Any]] = []
    for said in ("a", "b"):
        add_details(joined, [{"type": "reasoning.text", "text": said}])
    add_details(joined, [{"type": "reasoning.encrypted", "data": "x"}, None, "y"])
    add_details(joined, [{"type": "reasoning.text", "text": "c"}])
    add_details(joined, "what")
    assert joined == [
        {"type": "reasoning.text", "text": "ab"},
        {"type": "reasoning.encrypted", "data": "x"},
        {"type": "reasoning.text", "text": "c"},
    ]


USAGE = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150, "is_byok": False, "cost": 0.00014}
DETAILS = {"upstream_inference_cost": 0.0133, "upstream_inference_prompt_cost": 0.01, "upstream_inference_completions_cost": 0.0033}


@pytest.mark.parametrize(
    ("more", "cost", "searches"),
    [
        ({}, "0.00014", None),
        ({"cost_details": DETAILS}, "0.00014", None),
        ({"cost": "1.4e-05"}, "0.000014", None),
        ({"is_byok": True, "cost": 0, "cost_details": DETAILS}, "0.0133", None),
        ({"is_byok": True, "cost": 0.0007, "cost_details": DETAILS}, "0.014", None),
        ({"is_byok": True, "cost": 0.0007, "cost_details": {"upstream_inference_cost": None}}, "0.0007", None),
        ({"server_tool_use_details": {"web_search_requests": 2, "tool_calls_executed": 2}}, "0.00014", 2),
        ({"cost": None}, None, None),
        ({"cost": "much"}, None, None),
    ],
)
async def test_what_it_bills_is_the_cost(llm: QueryLLM, server: ScriptedServer, more: Any, cost: str | None, searches: int | None) -> None:
    """With a key of one's own the model's provider bills, too: the cost is what the two bill together."""
    server.answer_json({**CHAT.answer("Hello."), "usage": {**USAGE, **more}})
    answer = await llm.query(MODEL, [HI])
    assert answer.usage.cost == (None if cost is None else Decimal(cost))
    assert answer.usage.web_searches == searches
    if cost is not None:
        assert (answer.cost, answer.receipt.cost_state) == (Decimal(cost), "billed")


async def test_its_own_options_and_headers(llm: QueryLLM, server: ScriptedServer) -> None:
    own: dict[str, Any] = {
        "models": ["openai/gpt-5-mini"],
        "provider": {"order": ["anthropic"], "allow_fallbacks": False, "data_collection": "deny"},
        "reasoning": {"effort": "high", "exclude": False},
        "transforms": ["middle-out"],
        "plugins": [{"id": "web", "max_results": 3}],
        "usage": {"include": True},
        "modalities": ["image", "text"],
    }
    server.answer_json(CHAT.answer("Hello."))
    await llm.query(MODEL, [HI], **own)
    request = server.request
    assert request.json == {"model": "anthropic/claude-sonnet-4.5", "messages": [HI], **own}
    assert (request.headers["http-referer"], request.headers["x-title"]) == ("https://acme.example", "Acme")


async def test_images_that_it_made(llm: QueryLLM, server: ScriptedServer) -> None:
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{b64(PNG)}"}}
    server.answer_json(message(images=[image]))
    server.answer_sse(chunk({"content": "Hello.", "images": [image]}), *CHAT.stream())
    for answer in (await llm.query(MODEL, [HI]), await streamed(llm, MODEL, [HI])):
        (found,) = answer.images
        assert (found.data, found.media_type) == (PNG, "image/png")


ERROR = {"code": 502, "message": "Provider returned error", "metadata": {"provider_name": "Google", "raw": "upstream overloaded"}}


async def test_errors_under_200(llm: QueryLLM, server: ScriptedServer) -> None:
    in_choice = {"choices": [{"finish_reason": "error", "native_finish_reason": "error", "error": ERROR, "message": {"content": ""}}]}
    for body in ({"error": ERROR, "user_id": "u"}, in_choice, {"choices": [{"finish_reason": "error", "message": {"content": "He"}}]}):
        server.answer_json(body)
        server.answer_json(CHAT.answer("Hello."))
        answer = await llm.query(MODEL, [HI])
        assert [attempt.error_type for attempt in answer.receipt.attempts] == ["ServerError", None]
        if "error" in str(body.get("error")):
            assert "upstream overloaded" in str(answer.receipt.attempts[0].error)


async def test_an_error_in_mid_stream(llm: QueryLLM, server: ScriptedServer) -> None:
    last = {"index": 0, "delta": {"content": ""}, "finish_reason": "error", "native_finish_reason": None}
    server.answer_sse(chunk({"content": "Hel"}), chunk(error=ERROR, choices=[last]))
    with pytest.raises(StreamInterruptedError, match="upstream overloaded") as caught:
        await streamed(llm, MODEL, [HI])
    assert isinstance(caught.value.__cause__, ServerError) and caught.value.response.content == "Hel"


@pytest.mark.parametrize(
    ("status", "error", "expected"),
    [
        (402, {"code": 402, "message": "This request requires more credits, or fewer max_tokens."}, InsufficientFundsError),
        (429, {"code": 429, "message": "Provider returned error", "metadata": {"raw": "rate-limited upstream"}}, RateLimitError),
        (
            403,
            {"code": 403, "message": "Input was flagged", "metadata": {"reasons": ["violence"], "flagged_input": "x"}},
            llm_master.ContentPolicyError,
        ),
    ],
)
async def test_refusals(llm: QueryLLM, server: ScriptedServer, status: int, error: Any, expected: type[ProviderError]) -> None:
    server.answer_json({"error": error}, status=status, times=None)
    with pytest.raises(expected):
        await llm.query(MODEL, [HI])


async def test_an_object_of_the_sdk_takes_its_reasoning_along(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENROUTER_API_BASE", server.base_url)
    server.answer_json(message(reasoning="The user greets me.", reasoning_details=[THOUGHT]))
    server.answer_json(CHAT.answer("ok"))
    async with llm_master.RotatingClient(api_keys={"openrouter": [KEY]}) as client:
        completion = await client.acompletion(model=MODEL, messages=[HI])
        said = completion.choices[0].message
        result = {"role": "tool", "tool_call_id": "call_1", "content": "x"}
        await client.acompletion(model=MODEL, messages=[HI, said, result])
    assert server.requests[-1].json["messages"][1]["reasoning_details"] == [THOUGHT]


async def test_constructed_by_hand(server: ScriptedServer) -> None:
    PROVIDER_CONFIGS["openrouter"] = {"base_url": server.base_url, "returns": ("reasoning_details",)}
    provider = llm_master.OpenRouterProvider(KEY, {"X-Title": "Acme"})
    assert isinstance(provider, llm_master.UnifiedProvider) and KEY not in repr(provider.config)
    server.answer_json(message(reasoning_details=[THOUGHT]))
    answer = await provider.generate([HI], "anthropic/claude-sonnet-4.5")
    assert answer.content == "Hello." and answer.native is not None
    assert (server.request.path, server.request.headers["authorization"]) == ("/v1/chat/completions", f"Bearer {KEY}")
    assert server.request.headers["x-title"] == "Acme"
