"""What ``QueryLLM`` does beside querying and embedding: judge, rank, speak, count, estimate."""

from __future__ import annotations

import asyncio
import base64
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import attrs
import pytest
from servers.formats import ChatCompletions
from servers.scripted import FOREVER, ScriptedServer

from llm_master import (
    PROVIDER_CONFIGS,
    AuthenticationError,
    BaseLLMProvider,
    ContentPolicyError,
    DeadlineExceededError,
    InvalidRequestError,
    LLMConfig,
    LLMResponse,
    MissingApiKeyError,
    ModelConfig,
    ModelRegistry,
    ProviderConfig,
    QueryLLM,
    ServerError,
    UnknownModelError,
    Usage,
)
from llm_master.dispatch.estimate import estimate_tokens
from llm_master.testing import FakeClock

CHAT = ChatCompletions()
KEY = "sk-judge-0123456789"
PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
WIRE = Path(__file__).resolve().parents[2] / "shared" / "wire"


@pytest.fixture
def judge(llm: QueryLLM) -> QueryLLM:
    """The same settings, and a judge of acme's."""
    return QueryLLM(llm.config, moderation_model="acme/judge")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(auto_advance=True)


@pytest.fixture
def llm(clock: FakeClock, server: ScriptedServer) -> QueryLLM:
    """Everything is at the one server: the judge, and acme, which is judged."""
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url=server.base_url, requires_key=False)
    return QueryLLM(LLMConfig(environment={}, clock=clock, openai_api_key=KEY, openai_api_base=server.base_url))


def paths(server: ScriptedServer) -> list[str]:
    return [request.path.removeprefix("/v1") for request in server.requests]


# Moderation. The shape: https://platform.openai.com/docs/api-reference/moderations/object

CATEGORIES = ("harassment", "illicit", "violence")


def judged(*flagged: tuple[str, ...], **more: Any) -> dict[str, Any]:
    """An answer with the categories of each input."""
    results = [
        {
            "flagged": bool(hits),
            "categories": {name: name in hits for name in CATEGORIES},
            "category_scores": {name: 0.9 if name in hits else 0.01 for name in CATEGORIES},
            "category_applied_input_types": {name: ["text"] for name in CATEGORIES},
        }
        for hits in flagged
    ]
    return {"id": "modr-1", "model": "omni-moderation-latest", "results": results, **more}


async def test_one_text_is_judged(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_json(judged(("violence", "harassment")), headers={"x-request-id": "req_1"})
    answer = await llm.moderate("I will hit you.")
    assert server.request.path == "/v1/moderations"
    assert server.request.json == {"model": "omni-moderation-latest", "input": ["I will hit you."]}
    assert server.request.headers["authorization"] == f"Bearer {KEY}"
    assert (answer.flagged, answer.categories) == (True, ("harassment", "violence"))
    (result,) = answer.results
    assert result.categories == {"harassment": True, "illicit": False, "violence": True}
    assert result.scores["violence"] == 0.9
    assert (answer.provider, answer.model_name) == ("openai", "openai/omni-moderation-latest")
    (attempt,) = answer.receipt.attempts
    assert (attempt.model, attempt.status, attempt.request_id) == ("omni-moderation-latest", 200, "req_1")
    assert KEY not in repr(answer) + repr(answer.receipt)


async def test_several_texts_are_judged_one_by_one_in_their_order(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_json(judged((), ("violence",), ()))
    answer = await llm.moderate(["a", "b", "c"])
    assert [result.flagged for result in answer.results] == [False, True, False]
    assert (answer.flagged, answer.categories) == (True, ("violence",))
    assert server.request.json["input"] == ["a", "b", "c"]


PARTS = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}}]


async def test_parts_with_an_image_are_one_input(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_json(judged(()))
    answer = await llm.moderate([PARTS])
    assert not answer.flagged and answer.categories == ()
    assert server.request.json["input"] == PARTS


async def test_parts_beside_others_go_out_alone(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_json(judged((), usage={"prompt_tokens": 5}))
    server.answer_json(judged(("violence",), usage={"prompt_tokens": 7}))
    server.answer_json(judged((), usage={"prompt_tokens": 9}))
    answer = await llm.moderate(["a", PARTS, "c"])
    assert [request.json["input"] for request in server.requests] == [["a"], PARTS, ["c"]]
    assert [result.flagged for result in answer.results] == [False, True, False]
    assert answer.usage.input_tokens == 21


async def test_a_judge_that_gives_categories_and_no_verdict(llm: QueryLLM, server: ScriptedServer) -> None:
    """Mistral's shape: https://docs.mistral.ai/api/endpoint/classifiers"""
    categories = {"sexual": False, "hate_and_discrimination": True, "pii": False}
    body = {
        "id": "mod-1",
        "model": "mistral-moderation-2411",
        "usage": {"prompt_tokens": 21, "total_tokens": 21, "completion_tokens": 0, "request_count": 1},
        "results": [{"categories": categories, "category_scores": {"sexual": 0.1, "hate_and_discrimination": 0.8, "pii": 0.0}}],
    }
    ModelRegistry.register("acme/judge", ModelConfig(input_price_per_million=100_000))
    server.answer_json(body)
    answer = await llm.moderate("a", "acme/judge")
    assert (answer.flagged, answer.categories, answer.usage.input_tokens) == (True, ("hate_and_discrimination",), 21)
    assert answer.cost == Decimal("2.1")
    server.answer_json({**body, "results": [{"categories": dict.fromkeys(categories, False)}]})
    assert not (await llm.moderate("a", "acme/judge")).flagged


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (judged(()), "1 judgements on 2 inputs"),
        (judged((), (), ()), "3 judgements on 2 inputs"),
        ({}, "0 judgements on 2 inputs"),
        ({"results": [{"flagged": "yes"}, {"flagged": "no"}]}, "cannot be read"),
        ({"error": {"message": "Overloaded."}}, "Overloaded"),
        ("<html>", "cannot be read"),
    ],
)
async def test_no_judgement_is_a_servers_fault_and_asked_again(llm: QueryLLM, server: ScriptedServer, body: Any, said: str) -> None:
    server.answer_json(body)
    server.answer_json(judged((), ()))
    answer = await llm.moderate(["a", "b"])
    assert said in answer.receipt.attempts[0].error and len(answer.receipt.attempts) == 2


@pytest.mark.parametrize(
    "inputs", [None, 7, "", [], [""], ["a", ""], [None], [7], ["a", []], b"a", {"a": "b"}, [{"type": "text", "text": "a"}]]
)
async def test_what_cannot_be_judged(llm: QueryLLM, server: ScriptedServer, inputs: Any) -> None:
    with pytest.raises(InvalidRequestError, match=r"inputs of moderate\(\): give"):
        await llm.moderate(inputs)
    assert server.requests == []


async def test_who_judges_can_be_set(server: ScriptedServer) -> None:
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url=server.base_url, requires_key=False)
    llm = QueryLLM(LLMConfig(environment={}, moderation_model="acme/judge"))
    server.answer_json(judged(()), times=None)
    assert (await llm.moderate("a")).model_name == "acme/judge"
    assert (await llm.moderate("a", "acme/other")).model_name == "acme/other"
    server.answer_json(CHAT.answer("Hello"))
    assert [request.json["model"] for request in server.requests] == ["judge", "other"]


async def test_a_provider_that_does_not_judge_says_so(llm: QueryLLM) -> None:
    with pytest.raises(InvalidRequestError, match=r"Mock .* cannot moderate here: ask another provider"):
        await llm.moderate("a", "mock/echo")


# moderation=True

GOOD = judged(())


async def test_what_is_flagged_is_not_sent(llm: QueryLLM, server: ScriptedServer) -> None:
    ModelRegistry.register("openai/omni-moderation-latest", ModelConfig(input_price_per_million=0))
    server.answer_json(judged(("illicit", "violence")))
    with pytest.raises(ContentPolicyError, match="flagged the request as illicit, violence; nothing was sent to acme") as caught:
        await llm.query("acme/large", prompt="How?", moderation=True)
    error = caught.value
    assert error.categories == ("illicit", "violence")
    assert (error.provider, error.model) == ("openai", "openai/omni-moderation-latest")
    assert paths(server) == ["/moderations"]
    (attempt,) = error.receipt.attempts
    assert (attempt.provider, attempt.model, attempt.status, attempt.error) == ("openai", "omni-moderation-latest", 200, None)
    assert (error.receipt.model_name, error.receipt.provider) == ("acme/large", "acme")
    assert (error.receipt.cost, error.receipt.cost_state) == (0, "exact")


async def test_what_is_flagged_is_not_streamed_either(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_json(judged(("violence",)), times=None)
    with pytest.raises(ContentPolicyError):
        await llm.query("acme/large", prompt="How?", moderation=True, stream=True)
    stream = llm.stream("acme/large", prompt="How?", moderation=True)
    assert paths(server) == ["/moderations"], "a stream connects at its first iteration"
    with pytest.raises(ContentPolicyError) as caught:
        async for _ in stream:
            pytest.fail("nothing comes")
    assert caught.value.categories == ("violence",)
    assert [piece async for piece in stream] == [] and stream.response.content == ""
    assert set(paths(server)) == {"/moderations"}


async def test_what_is_not_flagged_goes_on_and_the_costs_add_up(judge: QueryLLM, server: ScriptedServer) -> None:
    ModelRegistry.register("acme/judge", ModelConfig(input_price_per_million=1_000_000))
    ModelRegistry.register("acme/large", PRICED)
    server.answer_json({**GOOD, "usage": {"prompt_tokens": 3}})
    server.answer_json(CHAT.answer("Hello"))
    answer = await judge.query("acme/large", prompt="Hi", moderation=True)
    assert (answer.content, paths(server)) == ("Hello", ["/moderations", "/chat/completions"])
    judge, chat = answer.receipt.attempts
    assert (judge.model, judge.cost, chat.model, chat.cost) == ("judge", 3, "large", 2)
    assert (answer.cost, answer.receipt.cost, answer.receipt.cost_state) == (2, 5, "exact")
    assert "moderation" not in server.requests[1].json
    assert answer.receipt.options == {}


PRICED = ModelConfig(input_price_per_million=10_000, cached_input_price_per_million=10_000, output_price_per_million=20_000)


async def test_the_same_in_a_stream(judge: QueryLLM, server: ScriptedServer) -> None:
    ModelRegistry.register("acme/judge", ModelConfig(input_price_per_million=1_000_000))
    ModelRegistry.register("acme/large", PRICED)
    server.answer_json({**GOOD, "usage": {"prompt_tokens": 3}})
    server.answer_sse(*CHAT.stream("Hel", "lo"))
    stream = await judge.query("acme/large", prompt="Hi", moderation=True, stream=True)
    assert [piece async for piece in stream] == ["Hel", "lo"]
    answer = stream.response
    assert [attempt.model for attempt in answer.receipt.attempts] == ["judge", "large"]
    assert (answer.cost, answer.receipt.cost) == (2, 5)


async def test_a_stream_that_is_stopped_does_not_forget_the_judge(judge: QueryLLM, server: ScriptedServer) -> None:
    ModelRegistry.register("acme/judge", ModelConfig(input_price_per_million=1_000_000))
    ModelRegistry.register("acme/large", PRICED)
    usage = 'data: {"choices":[],"usage":{"prompt_tokens":100,"completion_tokens":50,"total_tokens":150,"prompt_tokens_details":{"cached_tokens":0}}}\n\n'
    for known in (True, False):
        server.answer_json({**GOOD, "usage": {"prompt_tokens": 3}})
        pieces = CHAT.stream("Hel", "lo")[:2]
        server.answer_sse(*pieces, *([usage] if known else []), end="reset")
        stream = judge.stream("acme/large", prompt="Hi", moderation=True)
        with pytest.raises(Exception, match="after output began"):
            async for _ in stream:
                pass
        receipt = stream.response.receipt
        assert (receipt.cost, receipt.cost_state) == ((5, "estimated") if known else (None, "unknown"))


async def test_the_judges_cost_stands_in_the_receipt_of_a_query_that_failed(judge: QueryLLM, server: ScriptedServer) -> None:
    """An attempt that failed before any output is free."""
    ModelRegistry.register("acme/judge", ModelConfig(input_price_per_million=1_000_000))
    server.answer_json({**GOOD, "usage": {"prompt_tokens": 3}})
    server.answer_json({"error": {"message": "No."}}, status=401)
    with pytest.raises(AuthenticationError) as caught:
        await judge.query("acme/large", prompt="Hi", moderation=True)
    assert [attempt.status for attempt in caught.value.receipt.attempts] == [200, 401]
    assert (caught.value.receipt.cost, caught.value.receipt.cost_state) == (3, "exact")


async def test_what_users_and_tools_say_is_judged_each_message_one_input(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_json(judged((), (), ()))
    server.answer_json(CHAT.answer("Hello"))
    call = {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    messages = [
        {"role": "system", "content": "Be rude."},
        {"role": "user", "content": "First"},
        {"role": "assistant", "content": "Said", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "Found"},
        {"role": "user", "content": [{"type": "text", "text": "Last"}, {"type": "text", "text": "of all"}]},
    ]
    await llm.query("acme/large", messages, moderation=True)
    assert server.requests[0].json["input"] == ["First", "Found", "Last\nof all"]
    assert server.requests[1].json["messages"] == messages, "what was judged is what is sent"


async def test_images_are_judged_with_their_text_as_they_are_sent(llm: QueryLLM, server: ScriptedServer, tmp_path: Any) -> None:
    (tmp_path / "cat.png").write_bytes(PNG)
    server.answer_json(GOOD)
    server.answer_json(GOOD)
    server.answer_json(CHAT.answer("A cat."))
    messages = [{"role": "user", "content": "Hi"}, {"role": "user", "content": "What is this?", "image_paths": ["cat.png"]}]
    await llm.query("acme/large", messages, moderation=True)
    first, second, chat = (request.json for request in server.requests)
    text, image = second["input"]
    assert first["input"] == ["Hi"] and text == {"type": "text", "text": "What is this?"}
    assert image["image_url"]["url"] == f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    assert chat["messages"][1]["content"] == [text, image]


async def test_a_flagged_image_is_not_sent(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_json(judged(("violence",)))
    with pytest.raises(ContentPolicyError):
        await llm.query("acme/large", prompt="What is this?", images=[PNG], moderation=True)
    assert paths(server) == ["/moderations"]


async def test_what_holds_nothing_to_judge_is_said(llm: QueryLLM, server: ScriptedServer) -> None:
    with pytest.raises(InvalidRequestError, match="moderation=True, and no user message holds a text or an image to judge"):
        await llm.query("acme/large", [{"role": "system", "content": "Begin."}], moderation=True)
    assert server.requests == []


async def test_a_judge_without_key_is_said_before_anything_is_sent(server: ScriptedServer) -> None:
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url=server.base_url, requires_key=False)
    llm = QueryLLM(LLMConfig(environment={}))
    with pytest.raises(MissingApiKeyError, match="OpenAI needs an API key.*OPENAI_API_KEY"):
        await llm.query("acme/large", prompt="Hi", moderation=True)
    with pytest.raises(UnknownModelError, match="no-such-judge"):
        await QueryLLM(LLMConfig(environment={}, moderation_model="no-such-judge")).query("acme/large", prompt="Hi", moderation=True)
    assert server.requests == []


@pytest.mark.parametrize("stream", [False, True])
async def test_a_judge_that_is_down_lets_nothing_pass(llm: QueryLLM, server: ScriptedServer, clock: FakeClock, stream: bool) -> None:
    server.answer_json({"error": {"message": "Down."}}, status=503, times=None)
    with pytest.raises(ServerError, match="openai: 503 Down") as caught:
        await llm.query("acme/large", prompt="Hi", moderation=True, stream=stream)
    assert paths(server) == ["/moderations"] * 3
    assert [attempt.provider for attempt in caught.value.receipt.attempts] == ["openai"] * 3
    assert len(clock.sleeps) == 2


async def test_a_judge_that_does_not_answer_is_named_when_the_deadline_passes(server: ScriptedServer) -> None:
    clock = FakeClock()
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url=server.base_url, requires_key=False)
    llm = QueryLLM(LLMConfig(environment={}, clock=clock, openai_api_key=KEY, openai_api_base=server.base_url))
    server.answer(delay=FOREVER, times=None)
    task = asyncio.create_task(llm.query("acme/large", prompt="Hi", moderation=True, deadline=20))
    assert await server.until_asked()
    await clock.advance(20.1)
    with pytest.raises(DeadlineExceededError, match="20 s") as caught:
        await task
    assert caught.value.receipt is not None
    assert set(paths(server)) == {"/moderations"}


async def test_the_deadline_holds_for_judge_and_model_together(server: ScriptedServer) -> None:
    clock = FakeClock()
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url=server.base_url, requires_key=False)
    llm = QueryLLM(LLMConfig(environment={}, clock=clock, openai_api_key=KEY, openai_api_base=server.base_url))
    server.answer_json(GOOD)
    server.answer(delay=FOREVER)
    task = asyncio.create_task(llm.query("acme/large", prompt="Hi", moderation=True, deadline=20))
    assert await server.until_asked(2)
    await clock.advance(20.1)
    with pytest.raises(DeadlineExceededError, match="acme within the deadline of 20 s; give more") as caught:
        await task
    assert "None" not in str(caught.value)
    assert [attempt.provider for attempt in caught.value.receipt.attempts] == ["openai", "acme"]


@pytest.mark.parametrize("nothing", [False, None, ""])
async def test_no_moderation_is_none(llm: QueryLLM, server: ScriptedServer, nothing: Any) -> None:
    server.answer_json(CHAT.answer("Hello"))
    await llm.query("acme/large", prompt="Hi", moderation=nothing)
    assert paths(server) == ["/chat/completions"]


async def test_a_dict_is_the_providers_own_option(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_json(CHAT.answer("Hello"))
    await llm.query("acme/large", prompt="Hi", moderation={"level": "low"})
    assert server.request.json["moderation"] == {"level": "low"}


async def test_a_wanted_form_and_its_repair_are_judged_once(judge: QueryLLM, server: ScriptedServer) -> None:
    ModelRegistry.register("acme/judge", ModelConfig(input_price_per_million=1_000_000))
    ModelRegistry.register("acme/large", PRICED)
    server.answer_json({**GOOD, "usage": {"prompt_tokens": 3}})
    server.answer_json(CHAT.answer("prose"))
    server.answer_json(CHAT.answer('{"a": 1}'))
    answer = await judge.query("acme/large", prompt="Hi", moderation=True, response_format=dict[str, int], repair=True)
    assert answer.parsed == {"a": 1}
    assert paths(server) == ["/moderations", "/chat/completions", "/chat/completions"]
    assert answer.receipt.cost == 3 + 2 + 2


# Reranking. The shapes: https://docs.cohere.com/reference/rerank, https://jina.ai/reranker, https://docs.voyageai.com/reference/reranker-api

DOCUMENTS = ["A car has wheels.", "A cat is an animal.", "A dog barks."]


async def test_a_ranking_as_cohere_has_it(llm: QueryLLM, server: ScriptedServer) -> None:
    ModelRegistry.register("acme/rank", ModelConfig(price_per_search_unit="0.002"))
    server.answer_json(
        {
            "id": "1",
            "results": [{"index": 0, "relevance_score": 0.1}, {"index": 1, "relevance_score": 0.9}, {"index": 2, "relevance_score": 0.3}],
            "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}},
        }
    )
    ranking = await llm.rerank("acme/rank", "What is a cat?", DOCUMENTS)
    assert server.request.path == "/v1/rerank"
    assert server.request.json == {"model": "rank", "query": "What is a cat?", "documents": DOCUMENTS}
    assert [(result.index, result.score, result.document) for result in ranking] == [
        (1, 0.9, DOCUMENTS[1]),
        (2, 0.3, DOCUMENTS[2]),
        (0, 0.1, DOCUMENTS[0]),
    ]
    assert (len(ranking), ranking[0].index) == (3, 1)
    assert (ranking.usage.search_units, ranking.cost, ranking.receipt.cost_state) == (1, Decimal("0.002"), "exact")
    assert (ranking.model_name, ranking.provider) == ("acme/rank", "acme")


@pytest.mark.parametrize("key", ["results", "data"])
async def test_a_ranking_that_counts_tokens(llm: QueryLLM, server: ScriptedServer, key: str) -> None:
    ModelRegistry.register("acme/rank", ModelConfig(input_price_per_million=1_000_000))
    results = [{"index": 1, "relevance_score": 0.9, "document": {"text": "A cat is an animal."}}]
    server.answer_json({"object": "list", key: results, "model": "rank-2", "usage": {"total_tokens": 26}})
    ranking = await llm.rerank("acme/rank", "What is a cat?", DOCUMENTS, top_n=1, return_documents=False)
    assert (server.request.json["top_n"], server.request.json["return_documents"]) == (1, False)
    assert [result.document for result in ranking] == [DOCUMENTS[1]]
    assert (ranking.usage.input_tokens, ranking.cost) == (26, 26)
    assert ranking.receipt.attempts[0].model_served == "rank-2"


async def test_top_n_by_another_name_and_another_place(server: ScriptedServer) -> None:
    PROVIDER_CONFIGS["acme"] = ProviderConfig(
        base_url=f"{server.base_url}/compatibility",
        requires_key=False,
        renames={"top_n": "top_k"},
        paths={"rerank": f"{server.url}/v2/rerank"},
    )
    server.answer_json({"results": [{"index": 0, "relevance_score": 1}]})
    ranking = await QueryLLM(LLMConfig(environment={})).rerank("acme/rank", "a", ["b"], top_n=1)
    assert server.request.path == "/v2/rerank" and server.request.json["top_k"] == 1
    assert ranking.receipt.renamed == {"top_n": "top_k"}
    assert ranking.cost is None


@pytest.mark.parametrize(
    "body",
    [
        {"results": [{"index": 3, "relevance_score": 0.9}]},
        {"results": [{"index": -1, "relevance_score": 0.9}]},
        {"results": [{"index": 1, "relevance_score": 0.9}, {"index": 1, "relevance_score": 0.8}]},
        {"results": []},
        {},
        {"results": [{"index": 0}]},
        {"results": [{"index": "0", "relevance_score": 0.9}]},
        {"results": [{"index": 0, "relevance_score": None}]},
        {"error": "overloaded"},
        [],
    ],
)
async def test_no_ranking_of_these_documents_is_a_servers_fault(llm: QueryLLM, server: ScriptedServer, body: Any) -> None:
    server.answer_json(body)
    server.answer_json({"results": [{"index": 0, "relevance_score": 0.9}]})
    ranking = await llm.rerank("acme/rank", "a", DOCUMENTS)
    assert ranking.receipt.attempts[0].error.startswith("ServerError: acme")
    assert len(ranking.receipt.attempts) == 2


@pytest.mark.parametrize(
    ("query", "documents", "top_n", "said"),
    [
        ("", ["a"], None, "query is ''"),
        (None, ["a"], None, "query is None"),
        ("a", [], None, "documents is empty"),
        ("a", ["a", ""], None, r"documents\[1\] is empty"),
        ("a", [{"text": "a"}], None, r"documents\[0\] is a dict"),
        ("a", None, None, "documents is a NoneType"),
        ("a", ["a"], 0, "top_n is 0"),
        ("a", ["a"], True, "top_n is True"),
        ("a", ["a"], "1", "top_n is '1'"),
    ],
)
async def test_what_cannot_be_ranked(llm: QueryLLM, server: ScriptedServer, query: Any, documents: Any, top_n: Any, said: str) -> None:
    with pytest.raises(InvalidRequestError, match=said):
        await llm.rerank("acme/rank", query, documents, top_n=top_n)
    assert server.requests == []


async def test_more_are_asked_for_than_there_are(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_json({"results": [{"index": 0, "relevance_score": 0.9}]})
    assert len(await llm.rerank("acme/rank", "a", "one", top_n=10)) == 1


# Speech


def speaks(server: ScriptedServer, **row: Any) -> QueryLLM:
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url=server.base_url, requires_key=False, **row)
    return QueryLLM(LLMConfig(environment={}, clock=FakeClock(auto_advance=True)))


async def test_a_text_is_spoken(server: ScriptedServer, tmp_path: Any) -> None:
    llm = speaks(server)
    ModelRegistry.register("acme/voice", ModelConfig(price_per_million_characters=1_000_000))
    server.answer(b"RIFF....WAVE", headers={"content-type": "audio/wav"})
    answer = await llm.speech("acme/voice", "The sky is blue.", voice="coral", format="wav", speed=1.5)
    assert server.request.path == "/v1/audio/speech"
    sent = server.request.json
    assert sent == {"model": "voice", "input": "The sky is blue.", "voice": "coral", "response_format": "wav", "speed": 1.5}
    assert (answer.audio.data, answer.audio.media_type, answer.audio.transcript) == (b"RIFF....WAVE", "audio/wav", "The sky is blue.")
    assert (answer.content, answer.model_name, answer.provider, answer.cost) == ("", "acme/voice", "acme", 16)
    answer.audio.save("sky.wav")
    assert (tmp_path / "sky.wav").read_bytes() == b"RIFF....WAVE"


async def test_a_query_speaks_where_the_row_says_so(server: ScriptedServer) -> None:
    llm = speaks(server, generate_map={"voice-*": "speech"})
    server.answer(b"ID3", headers={"content-type": "audio/mpeg"}, times=3)
    asked = await llm.query("voice-1", prompt="Hello")
    streamed = await llm.query("voice-1", prompt="Hello", stream=True)
    assert [piece async for piece in streamed] == []
    spoken = await llm.speech("voice-1", "Hello")
    for answer in (asked, streamed.response, spoken):
        assert (answer.audio.data, answer.audio.media_type) == (b"ID3", "audio/mpeg")
    assert [request.json for request in server.requests] == [
        {"model": "voice-1", "input": "Hello", "voice": "alloy", "response_format": "mp3"}
    ] * 3


async def test_speech_by_a_generator_of_the_rows(server: ScriptedServer) -> None:
    """How a model is asked to speak, its row says best."""
    from llm_master import Audio

    async def sing(provider, messages, model, **options):
        return LLMResponse("", model, audio=Audio(f"{messages[-1]['content']} {model} {options}".encode(), "audio/wav"))

    llm = speaks(server, generate_map={"singer": sing})
    answer = await llm.speech("acme/singer", "La", voice="soprano")
    assert answer.audio.data == b"La singer {'voice': 'soprano'}"
    assert server.requests == []


@pytest.mark.parametrize("text", ["", "  ", None, 7, b"a", ["a"]])
async def test_what_cannot_be_spoken(server: ScriptedServer, text: Any) -> None:
    with pytest.raises(InvalidRequestError, match="text is .*give a text"):
        await speaks(server).speech("acme/voice", text)
    assert server.requests == []


async def test_no_audio_is_a_servers_fault(server: ScriptedServer) -> None:
    llm = speaks(server)
    server.answer(b"")
    server.answer(b"ID3")
    answer = await llm.speech("acme/voice", "Hello")
    assert "without audio" in answer.receipt.attempts[0].error and answer.audio.data == b"ID3"


async def test_a_provider_that_does_not_speak_says_so() -> None:
    with pytest.raises(InvalidRequestError, match="cannot speak here: ask another provider"):
        await QueryLLM(LLMConfig(environment={})).speech("mock/echo", "Hello")


# Counts


class Counts(BaseLLMProvider):
    async def generate(self, messages, model, **options):
        raise NotImplementedError

    async def count_tokens(self, messages, model, **options):
        return 1000 * len(messages) + len(options)


async def test_the_providers_own_count_is_exact() -> None:
    PROVIDER_CONFIGS["acme"] = ProviderConfig(provider_class=Counts, requires_key=False)
    count = await QueryLLM(LLMConfig(environment={})).count_tokens("acme/large", prompt="Hi", temperature=0, tools=[{"type": "x"}])
    assert (count.tokens, count.exact, int(count)) == (1002, True, 1002)


async def test_a_count_that_fails_is_the_providers_error() -> None:
    class Broken(Counts):
        async def count_tokens(self, messages, model, **options):
            raise ServerError("down")

    PROVIDER_CONFIGS["acme"] = ProviderConfig(provider_class=Broken, requires_key=False)
    with pytest.raises(ServerError, match="acme: down"):
        await QueryLLM(LLMConfig(environment={})).count_tokens("acme/large", prompt="Hi")


async def test_geminis_count(server: ScriptedServer) -> None:
    llm = QueryLLM(LLMConfig(environment={}, gemini_api_key="AIza", gemini_api_base=server.base_url))
    server.answer_json({"totalTokens": 31})
    count = await llm.count_tokens("gemini/gemini-2.5-flash", prompt="Hi", max_tokens=5)
    assert (count.tokens, count.exact) == (31, True)
    assert server.request.path == "/v1/models/gemini-2.5-flash:countTokens"


async def test_without_one_it_is_an_estimate_and_nothing_is_sent(llm: QueryLLM, server: ScriptedServer) -> None:
    short = await llm.count_tokens("acme/large", prompt="Hi")
    long = await llm.count_tokens("acme/large", prompt="word " * 1000)
    tools = await llm.count_tokens("acme/large", prompt="Hi", tools=[{"type": "function", "function": {"name": "x" * 400}}])
    picture = await llm.count_tokens("acme/large", prompt="Hi", images=[PNG])
    assert not any(count.exact for count in (short, long, tools, picture))
    assert 1 <= short.tokens < 20 and 1000 <= long.tokens < 1500 and tools.tokens > short.tokens + 90
    assert picture.tokens > short.tokens + 500
    assert server.requests == []


def test_other_scripts_have_more_tokens_to_a_character() -> None:
    def of(text: str) -> int:
        return estimate_tokens([{"role": "user", "content": text}])

    assert of("a" * 400) < of("ä" * 400) or of("ä" * 400) == of("a" * 400)
    assert of("日" * 400) > 2 * of("a" * 400) and of("Ж" * 400) > 2 * of("a" * 400)
    assert of("日" * 400) < 500


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]}],
        [{"role": "user", "content": ["a", {"type": "text", "text": "b"}, {"type": "video_url"}, 7, {"type": "text", "text": None}]}],
        [{"role": "user"}],
    ],
)
def test_every_conversation_has_an_estimate(messages: Any) -> None:
    assert estimate_tokens(messages) >= 3


# Costs beforehand


async def test_an_estimate_of_the_cost(llm: QueryLLM, server: ScriptedServer) -> None:
    ModelRegistry.register("acme/large", ModelConfig(input_price_per_million=2, output_price_per_million=8, max_output_tokens=4000))
    count = (await llm.count_tokens("acme/large", prompt="Why is the sky blue?")).tokens
    for options, output in (({}, 4000), ({"max_tokens": 500}, 500), ({"max_completion_tokens": 300}, 300), ({"max_tokens": None}, 4000)):
        estimate = await llm.estimate_cost("acme/large", prompt="Why is the sky blue?", **options)
        assert (estimate.input_tokens, estimate.output_tokens, estimate.state, estimate.currency) == (count, output, "estimated", "USD")
        assert estimate.input_cost == Decimal(2 * count) / 1_000_000
        assert estimate.cost == Decimal(2 * count + 8 * output) / 1_000_000
    assert server.requests == []


async def test_several_answers_cost_several_times_as_much(llm: QueryLLM) -> None:
    ModelRegistry.register("acme/large", ModelConfig(input_price_per_million=0, output_price_per_million=1_000_000))
    estimate = await llm.estimate_cost("acme/large", prompt="Hi", max_tokens=10, n=3)
    assert (estimate.output_tokens, estimate.cost) == (30, 30)


async def test_the_options_of_the_row_count(server: ScriptedServer) -> None:
    llm = speaks(server, models={"brief": {"id": "large", "options": {"max_tokens": 7}}}, currency="EUR")
    ModelRegistry.register("acme/large", ModelConfig(input_price_per_million=0, output_price_per_million=1_000_000))
    estimate = await llm.estimate_cost("acme/brief", prompt="Hi")
    assert (estimate.output_tokens, estimate.cost, estimate.currency) == (7, 7, "EUR")
    assert (await llm.estimate_cost("acme/brief", prompt="Hi", max_tokens=9)).cost == 9


@pytest.mark.parametrize(
    ("model", "options", "input_cost"),
    [
        (None, {"max_tokens": 5}, None),
        (ModelConfig(), {"max_tokens": 5}, None),
        (ModelConfig(output_price_per_million=1), {"max_tokens": 5}, None),
        (ModelConfig(input_price_per_million=1_000_000), {"max_tokens": 5}, 8),
        (ModelConfig(input_price_per_million=1_000_000, output_price_per_million=1), {}, 8),
    ],
)
async def test_what_is_not_known_is_none_and_never_0(llm: QueryLLM, model: Any, options: Any, input_cost: Any) -> None:
    if model is not None:
        ModelRegistry.register("acme/large", model)
    estimate = await llm.estimate_cost("acme/large", prompt="Hi", **options)
    assert (estimate.cost, estimate.input_cost, estimate.state) == (None, input_cost, "unknown")
    assert estimate.input_tokens == 8


async def test_a_row_whose_costs_are_not_calculated(server: ScriptedServer) -> None:
    llm = speaks(server, skip_cost_calculation=True)
    ModelRegistry.register("acme/large", ModelConfig(input_price_per_million=1, output_price_per_million=1))
    assert (await llm.estimate_cost("acme/large", prompt="Hi", max_tokens=5)).cost is None


async def test_an_estimate_checks_as_a_query_does(llm: QueryLLM) -> None:
    ModelRegistry.register("acme/large", ModelConfig(capabilities={"vision": False}))
    with pytest.raises(InvalidRequestError, match="read images"):
        await llm.estimate_cost("acme/large", prompt="Hi", images=[PNG])
    with pytest.raises(InvalidRequestError, match="give one of them"):
        await llm.count_tokens("acme/large", prompt="Hi", messages=[{"role": "user", "content": "Hi"}])


def _texts(content: Any) -> str | None:
    """Content as one text, or ``None`` where it holds anything else."""
    if content is None or isinstance(content, str):
        return content
    texts = [part.get("text") for part in content if part.keys() <= {"type", "text", "cache_control"}]
    return "\n".join(texts) if len(texts) == len(content) and all(isinstance(text, str) for text in texts) else None


def _said_and_counted(url: str, request: Any, response: Any) -> tuple[list[Any], int | None]:
    """Roles and texts of a request, and how many tokens the provider counted in it."""
    if url.endswith("/chat/completions"):
        usage = response.get("usage") or {}
        return [
            (message["role"], None if message.get("tool_calls") else _texts(message.get("content"))) for message in request["messages"]
        ], (usage.get("prompt_tokens"))
    if url.endswith("/v1/messages"):
        said = [("system", _texts(request["system"]))] if request.get("system") else []
        names = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
        counted = sum((response.get("usage") or {}).get(name) or 0 for name in names)
        return [*said, *((message["role"], _texts(message["content"])) for message in request["messages"])], counted
    if url.endswith("/v1/responses"):
        given = request["input"]
        turns = [("user", given)] if isinstance(given, str) else [(item.get("role"), _texts(item.get("content"))) for item in given]
        said = [("system", request["instructions"])] if request.get("instructions") else []
        return [*said, *turns], (response.get("usage") or {}).get("input_tokens")
    if url.endswith(":generateContent"):
        system = request.get("systemInstruction")
        turns = ([{"role": "system", **system}] if system else []) + request["contents"]
        return [(turn.get("role"), _texts(turn["parts"])) for turn in turns], response.get("usageMetadata", {}).get("promptTokenCount")
    return [], None


_MORE_THAN_TEXT = (
    "tools functions response_format web_search_options plugins reasoning output_config output_format mcp_servers text "
    "previous_response_id conversation context_management cachedContent prompt thinking"
).split()
"""What makes a provider put words of its own before the conversation."""


def _estimates(shortest: int, *providers: str) -> list[float]:
    """Of each recorded request of nothing but text: how many times the provider's count the estimate is."""
    found = []
    for path in sorted(WIRE.glob("*.jsonl")):
        for line in path.read_text("utf-8").splitlines() if not providers or path.stem in providers else ():
            recording = json.loads(line)
            request, response = recording["request"], recording["response"]
            if recording["status"] != 200 or not isinstance(request, dict) or not isinstance(response, dict):
                continue
            said, counted = _said_and_counted(recording["url"], request, response)
            if not counted or not all(role and text is not None for role, text in said):
                continue
            if request.keys() & set(_MORE_THAN_TEXT) or sum(len(text) for _, text in said) < shortest:
                continue
            found.append(estimate_tokens([{"role": role, "content": text} for role, text in said]) / counted)
    return sorted(found)


def _near(ratios: list[float]) -> float:
    return sum(1 / 1.5 <= ratio <= 1.5 for ratio in ratios) / len(ratios)


@pytest.mark.skipif(not WIRE.is_dir(), reason="the recordings are not here")
def test_an_estimate_is_near_what_providers_count() -> None:
    """Templates differ by tens of tokens that no text shows, which weighs little where there is some text."""
    every = _estimates(100)
    assert len(every) > 15 and _near(every) >= 0.8, every
    assert 1 / 1.3 <= every[len(every) // 2] <= 1.3, every
    openai = _estimates(0, "openai")
    assert len(openai) > 20 and _near(openai) == 1, openai
