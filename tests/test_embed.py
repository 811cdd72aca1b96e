"""``embed``: texts in batches, and their vectors in the order of the texts."""

from __future__ import annotations

import asyncio
import json
from array import array
from decimal import Decimal
from typing import Any

import pytest
from servers.scripted import FOREVER, ScriptedServer, vector_for

from llm_master import (
    PROVIDER_CONFIGS,
    BaseLLMProvider,
    DeadlineExceededError,
    InvalidRequestError,
    LLMConfig,
    LLMResponse,
    ModelConfig,
    ModelRegistry,
    ProviderConfig,
    QueryLLM,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    Usage,
)
from llm_master.results import EmbeddingResponse
from llm_master.testing import FakeClock

REFUSED = {"error": {"message": "Invalid input.", "type": "invalid_request_error", "param": "input", "code": None}}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(auto_advance=True)


@pytest.fixture
def llm(clock: FakeClock, server: ScriptedServer) -> QueryLLM:
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url=server.base_url, requires_key=False)
    return QueryLLM(LLMConfig(environment={}, clock=clock))


def in_batches_of(size: int, server: ScriptedServer, clock: FakeClock, **row: Any) -> QueryLLM:
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url=server.base_url, requires_key=False, embed_batch_size=size, **row)
    return QueryLLM(LLMConfig(environment={}, clock=clock))


def texts(count: int) -> list[str]:
    return [f"text number {number}" for number in range(count)]


def lists(answer: EmbeddingResponse) -> list[list[float]]:
    return [vector.tolist() for vector in answer]


# One request


async def test_one_text_is_one_input_and_never_its_characters(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_vectors()
    answer = await llm.embed("acme/small", "a cat")
    assert server.request.json == {"model": "small", "input": ["a cat"], "encoding_format": "base64"}
    assert server.request.path == "/v1/embeddings"
    assert lists(answer) == [vector_for("a cat")]
    assert (len(answer), answer[0], answer.embeddings[0].typecode) == (1, array("f", vector_for("a cat")), "f")


async def test_what_an_answer_says(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_vectors(headers={"x-request-id": "req_1"})
    answer = await llm.embed("acme/small", ["a", "b"])
    assert (answer.model_name, answer.provider) == ("acme/small", "acme")
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens) == (2, 0, 2)
    assert (answer.cost, answer.receipt.cost, answer.receipt.cost_state) == (None, None, "unknown")
    (attempt,) = answer.receipt.attempts
    assert (attempt.provider, attempt.model, attempt.model_served, attempt.status, attempt.request_id) == (
        "acme",
        "small",
        "small",
        200,
        "req_1",
    )
    assert answer.latency is not None and attempt.latency == answer.latency
    assert answer.raw["object"] == "list"
    assert "0.5" not in repr(answer) and "2 vectors" in repr(answer)


@pytest.mark.parametrize("encoding", [None, "float", "base64"])
@pytest.mark.parametrize("shuffled", [False, True])
async def test_order_is_kept_in_both_encodings(llm: QueryLLM, server: ScriptedServer, encoding: Any, shuffled: bool) -> None:
    server.answer_vectors(shuffled=shuffled)
    answer = await llm.embed("acme/small", texts(7), encoding_format=encoding)
    assert lists(answer) == [vector_for(text) for text in texts(7)]
    assert server.request.json["encoding_format"] == (encoding or "base64")


async def test_numbers_come_also_where_base64_was_asked_for(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_json({"data": [{"embedding": [1, 0.5]}, {"embedding": [0, -2]}], "model": "small"})
    answer = await llm.embed("acme/small", ["a", "b"])
    assert lists(answer) == [[1, 0.5], [0, -2]]
    assert answer.usage.input_tokens is None


async def test_options_reach_the_wire(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_vectors()
    answer = await llm.embed("acme/small", "a", dimensions=256, user="u1", extra_body={"input_type": "query"})
    sent = server.request.json
    assert (sent["dimensions"], sent["user"], sent["input_type"]) == (256, "u1", "query")
    assert answer.receipt.options == {"dimensions": 256, "user": "u1", "input_type": "query"}


async def test_quantized_vectors_are_not_asked_for_as_base64_of_floats(llm: QueryLLM, server: ScriptedServer) -> None:
    """Four bytes of four 8-bit numbers would be read as one float."""
    server.answer_json({"data": [{"index": 0, "embedding": [1, -128, 127, 0]}], "model": "small"})
    answer = await llm.embed("acme/small", "a", output_dtype="int8")
    assert "encoding_format" not in server.request.json
    assert lists(answer) == [[1, -128, 127, 0]]


async def test_a_row_renames_and_refuses_options(server: ScriptedServer, clock: FakeClock) -> None:
    llm = in_batches_of(10, server, clock, renames={"dimensions": "output_dimension", "user": None, "encoding_format": None})
    server.answer_vectors()
    answer = await llm.embed("acme/small", "a", dimensions=8)
    assert server.request.json == {"model": "small", "input": ["a"], "output_dimension": 8}
    assert answer.receipt.renamed == {"dimensions": "output_dimension"}
    with pytest.raises(InvalidRequestError, match="acme does not take 'user'"):
        await llm.embed("acme/small", "a", user="u1")
    dropped = await llm.embed("acme/small", "a", user="u1", on_unsupported="drop")
    assert dropped.receipt.dropped == ("user",)
    assert [("user" in request.json) for request in server.requests] == [False, False]


async def test_a_misspelt_option_is_refused(llm: QueryLLM, server: ScriptedServer) -> None:
    with pytest.raises(InvalidRequestError, match="did you mean 'dimensions'"):
        await llm.embed("acme/small", "a", dimenssions=8)
    assert server.requests == []


async def test_a_path_of_the_rows_own(server: ScriptedServer, clock: FakeClock) -> None:
    llm = in_batches_of(10, server, clock, paths={"embed": f"{server.url}/other/embed?version=2"}, headers={"x-team": "blue"})
    server.answer_vectors()
    await llm.embed("acme/small", "a")
    assert server.request.path == "/other/embed?version=2"
    assert server.request.headers["x-team"] == "blue"


async def test_the_cost_by_registered_prices(llm: QueryLLM, server: ScriptedServer) -> None:
    ModelRegistry.register("acme/small", ModelConfig(input_price_per_million=20))
    server.answer_vectors()
    answer = await llm.embed("acme/small", ["abc", "de"])
    assert answer.cost == answer.receipt.cost == answer.receipt.attempts[0].cost == Decimal("0.0001")
    assert answer.receipt.cost_state == "exact"


# Input that is none


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ([], "inputs is empty"),
        ((), "inputs is empty"),
        ("", r"inputs\[0\] is empty"),
        ("  \n", r"inputs\[0\] is empty"),
        (["a", "", "b"], r"inputs\[1\] is empty"),
        (["a", None], r"inputs\[1\] is a NoneType"),
        (["a", 7], r"inputs\[1\] is a int"),
        ([b"a"], r"inputs\[0\] is a bytes"),
        (["a", ["b"]], r"inputs\[1\] is a list"),
        ([[1, 2, 3]], r"inputs\[0\] is a list"),
        ([{"text": "a"}], r"inputs\[0\] is a dict"),
        (None, "inputs is a NoneType"),
        (7, "inputs is a int"),
        (b"abc", "inputs is a bytes"),
        (bytearray(b"abc"), "inputs is a bytearray"),
        ({"a": "b"}, "inputs is a dict"),
        ({"a"}, "inputs is a set"),
        ((text for text in "ab"), "inputs is a generator"),
        ([*texts(9_999), ""], r"inputs\[9999\] is empty"),
    ],
    ids=lambda value: repr(value)[:24] if not isinstance(value, str) else None,
)
async def test_what_is_no_input_is_refused_by_its_position(llm: QueryLLM, server: ScriptedServer, inputs: Any, said: str) -> None:
    with pytest.raises(InvalidRequestError, match=said) as caught:
        await llm.embed("acme/small", inputs)
    assert ":" in str(caught.value), "a remedy"
    assert server.requests == []


# Batches


async def test_ten_thousand_texts(server: ScriptedServer, clock: FakeClock) -> None:
    llm = in_batches_of(2048, server, clock)
    ModelRegistry.register("acme/small", ModelConfig(input_price_per_million=1))
    server.answer_vectors(shuffled=True)
    given = texts(10_000)
    answer = await llm.embed("acme/small", given)
    assert lists(answer) == [vector_for(text) for text in given]
    requests = [request.json["input"] for request in server.requests]
    assert sorted(map(len, requests)) == [1808, 2048, 2048, 2048, 2048]
    assert sorted(text for batch in requests for text in batch) == sorted(given)
    tokens = sum(map(len, given))
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.cached_tokens) == (tokens, 0, 0)
    assert answer.cost == Decimal(tokens) / 1_000_000
    receipt = answer.receipt
    assert (receipt.cost, receipt.cost_state, receipt.model_name, receipt.provider) == (answer.cost, "exact", "acme/small", "acme")
    assert len(receipt.attempts) == 5
    assert sum(attempt.cost for attempt in receipt.attempts) == receipt.cost
    assert answer.model_name == "acme/small" and answer.provider == "acme" and answer.latency is not None


@pytest.mark.parametrize(("count", "sizes"), [(1, [1]), (99, [99]), (100, [100]), (101, [1, 100]), (250, [50, 100, 100])])
async def test_batches_of_the_rows_size(server: ScriptedServer, clock: FakeClock, count: int, sizes: list[int]) -> None:
    llm = in_batches_of(100, server, clock)
    server.answer_vectors()
    answer = await llm.embed("acme/small", texts(count))
    assert lists(answer) == [vector_for(text) for text in texts(count)]
    assert sorted(len(request.json["input"]) for request in server.requests) == sizes


async def test_long_texts_go_in_smaller_batches(llm: QueryLLM, server: ScriptedServer) -> None:
    """An API bounds a request's tokens, too; a text that alone is beyond it goes alone, and the API says what it thinks of it."""
    server.answer_vectors()
    given = ["x" * 150_000, "y" * 150_000, "z" * 450_000, "short", "shorter"]
    answer = await llm.embed("acme/small", given)
    assert lists(answer) == [vector_for(text) for text in given]
    assert sorted([text[0] for text in request.json["input"]] for request in server.requests) == [["s", "s"], ["x", "y"], ["z"]]


async def test_several_batches_at_once_but_not_all(server: ScriptedServer, clock: FakeClock) -> None:
    llm = in_batches_of(1, server, clock)
    server.answer(delay=FOREVER, times=None)
    task = asyncio.create_task(llm.embed("acme/small", texts(20)))
    assert await server.until_asked(4)
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(server.requests) == 4
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await server.until_open(0), "a cancelled embed leaves nothing behind"


async def test_the_order_holds_whoever_answers_first() -> None:
    started: list[Any] = []

    class Slow(BaseLLMProvider):
        async def generate(self, messages, model, **options):
            raise NotImplementedError

        async def embed(self, inputs, model, **options):
            gate = asyncio.Event()
            started.append(gate)
            await gate.wait()
            return EmbeddingResponse(embeddings=[array("f", vector_for(text)) for text in inputs])

    PROVIDER_CONFIGS["acme"] = ProviderConfig(provider_class=Slow, requires_key=False, embed_batch_size=2)
    task = asyncio.create_task(QueryLLM(LLMConfig(environment={}, clock=FakeClock())).embed("acme/small", texts(8)))
    while len(started) < 4:
        await asyncio.sleep(0)
    for gate in reversed(started):
        gate.set()
        await asyncio.sleep(0)
    answer = await task
    assert lists(answer) == [vector_for(text) for text in texts(8)]
    assert answer.usage == Usage(None, 0)


# A batch that fails


async def test_a_batch_that_is_refused_ends_all_of_them(server: ScriptedServer, clock: FakeClock) -> None:
    llm = in_batches_of(1, server, clock)
    server.answer_json(REFUSED, status=400)
    server.answer(delay=FOREVER, times=None)
    with pytest.raises(InvalidRequestError, match="Invalid input") as caught:
        await llm.embed("acme/small", texts(20))
    assert type(caught.value) is InvalidRequestError and caught.value.status == 400
    attempts = caught.value.receipt.attempts
    assert len(attempts) == len(server.requests) <= 4, "those that had not begun never begin"
    assert [attempt.status for attempt in attempts if attempt.error] == [400]
    assert {attempt.then for attempt in attempts if not attempt.error} <= {"cancelled: another batch failed"}
    assert await server.until_open(1), "only that of the refusal is kept for the next"
    assert caught.value.receipt.cost is None


async def test_a_batch_that_is_rate_limited_waits_and_goes_on(server: ScriptedServer, clock: FakeClock) -> None:
    llm = in_batches_of(2, server, clock)
    ModelRegistry.register("acme/small", ModelConfig(input_price_per_million=1))
    server.answer_json({"error": {"message": "Slow down."}}, status=429, headers={"retry-after": "7"})
    server.answer_vectors()
    answer = await llm.embed("acme/small", texts(5))
    assert lists(answer) == [vector_for(text) for text in texts(5)]
    assert clock.sleeps == [7]
    attempts = answer.receipt.attempts
    assert sorted(str(attempt.status) for attempt in attempts) == ["200", "200", "200", "429"]
    limited = next(position for position, attempt in enumerate(attempts) if attempt.status == 429)
    assert attempts[limited + 1].wait == 7, "batch by batch"
    assert answer.cost == answer.receipt.cost == Decimal(sum(map(len, texts(5)))) / 1_000_000


async def test_a_batch_is_repeated_as_any_call_is_and_then_given_up(server: ScriptedServer, clock: FakeClock) -> None:
    llm = in_batches_of(2, server, clock)
    server.answer_json({"error": {"message": "Down."}}, status=500, times=None)
    with pytest.raises(ServerError, match="Down") as caught:
        await llm.embed("acme/small", texts(3))
    assert type(caught.value) is ServerError
    per_batch = [attempt.then for attempt in caught.value.receipt.attempts if attempt.then and "max_retries" in attempt.then]
    assert per_batch
    assert 3 <= len(server.requests) <= 6
    assert len(caught.value.receipt.attempts) >= len(server.requests)


async def test_one_failure_among_many_is_that_failure_and_no_group(server: ScriptedServer, clock: FakeClock) -> None:
    llm = in_batches_of(1, server, clock)
    server.answer_json({"error": {"message": "No key."}}, status=401, times=None)
    with pytest.raises(Exception) as caught:
        await llm.embed("acme/small", texts(10))
    assert type(caught.value).__name__ == "AuthenticationError"
    assert not isinstance(caught.value, BaseExceptionGroup)


async def test_a_providers_own_exception_comes_as_it_is_also_out_of_batches() -> None:
    class Broken(BaseLLMProvider):
        async def generate(self, messages, model, **options):
            raise NotImplementedError

        async def embed(self, inputs, model, **options):
            raise KeyError("theirs")

    PROVIDER_CONFIGS["acme"] = ProviderConfig(provider_class=Broken, requires_key=False, embed_batch_size=1)
    for count in (1, 3):
        with pytest.raises(KeyError, match="theirs"):
            await QueryLLM(LLMConfig(environment={})).embed("acme/small", texts(count))


# Answers that are none


def with_vectors(*vectors: Any, **more: Any) -> str:
    return json.dumps({"data": [{"index": index, "embedding": vector} for index, vector in enumerate(vectors)], "model": "m", **more})


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (with_vectors([1.0]), "1 vectors for 2 inputs"),
        (with_vectors([1.0], [1.0], [1.0]), "3 vectors for 2 inputs"),
        (with_vectors(), "0 vectors for 2 inputs"),
        ("{}", "0 vectors for 2 inputs"),
        (with_vectors([1.0], [None]), "cannot be read"),
        (with_vectors([1.0], ["1"]), "cannot be read"),
        (with_vectors([1.0], None), "cannot be read"),
        (with_vectors("AACAPw==", "no base64!"), "cannot be read"),
        (with_vectors("AACAPw==", "AACA"), "cannot be read"),
        (with_vectors([1.0], []), "empty vector"),
        (with_vectors("AACAPw==", ""), "empty vector"),
        ("", "empty body"),
        ("<html>Bad gateway</html>", "HTML page"),
        ("[1, 2]", "cannot be read"),
        ('{"data": [{"index": 0, "embed', "cannot be read"),
        ('{"error": {"message": "The engine is overloaded.", "type": "server_error"}}', "overloaded"),
    ],
)
async def test_garbage_under_200_is_a_servers_fault_and_asked_again(
    llm: QueryLLM, server: ScriptedServer, clock: FakeClock, body: str, said: str
) -> None:
    server.answer(body)
    server.answer_vectors()
    answer = await llm.embed("acme/small", ["a", "b"])
    assert lists(answer) == [vector_for("a"), vector_for("b")]
    first, second = answer.receipt.attempts
    assert said in first.error and first.error.startswith("ServerError: acme") and first.status == 200
    assert second.status == 200 and len(clock.sleeps) == 1


async def test_garbage_without_end_is_an_error(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer(with_vectors([1.0]), times=None)
    with pytest.raises(ServerError, match="1 vectors for 2 inputs") as caught:
        await llm.embed("acme/small", ["a", "b"])
    assert len(caught.value.receipt.attempts) == len(server.requests) == 3


# Time


@pytest.mark.parametrize("size", [1, 10], ids=["batches", "one"])
async def test_the_timeout_holds_for_each_request(server: ScriptedServer, size: int) -> None:
    clock = FakeClock()
    llm = in_batches_of(size, server, clock, max_retries=0)
    server.answer(delay=FOREVER, times=None)
    task = asyncio.create_task(llm.embed("acme/small", texts(2), timeout=5))
    assert await server.until_asked(2 if size == 1 else 1)
    await clock.advance(4.9)
    assert not task.done()
    await clock.advance(0.2)
    with pytest.raises(RequestTimeoutError, match="acme within 5 s") as caught:
        await task
    assert any("RequestTimeoutError" in str(attempt.error) for attempt in caught.value.receipt.attempts)


@pytest.mark.parametrize("size", [1, 10], ids=["batches", "one"])
async def test_the_deadline_holds_for_all_of_them(server: ScriptedServer, size: int) -> None:
    clock = FakeClock()
    llm = in_batches_of(size, server, clock)
    server.answer(delay=FOREVER, times=None)
    task = asyncio.create_task(llm.embed("acme/small", texts(9), deadline=20))
    assert await server.until_asked(4 if size == 1 else 1)
    await clock.advance(20.1)
    with pytest.raises(DeadlineExceededError, match=r"20 s.*deadline=") as caught:
        await task
    assert len(server.requests) == len(caught.value.receipt.attempts)


async def test_a_wait_beyond_the_deadline_fails_at_once(server: ScriptedServer, clock: FakeClock) -> None:
    llm = in_batches_of(1, server, clock)
    server.answer_json({"error": {"message": "Slow down."}}, status=429, headers={"retry-after": "3600"}, times=None)
    with pytest.raises(RateLimitError, match="60 min"):
        await llm.embed("acme/small", texts(3), deadline=60)
    assert clock.sleeps == []


@pytest.mark.parametrize("arguments", [{"timeout": 0}, {"deadline": -1}, {"timeout": "5"}, {"deadline": "5"}, {"extra_body": "x"}])
async def test_arguments_of_the_wrong_kind_are_refused(llm: QueryLLM, server: ScriptedServer, arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError, match=next(iter(arguments))):
        await llm.embed("acme/small", "a", **arguments)
    assert server.requests == []


# Whoever has no embeddings, or has his own


async def test_a_provider_without_embeddings_says_so() -> None:
    class Chat(BaseLLMProvider):
        async def generate(self, messages, model, **options):
            raise NotImplementedError

    PROVIDER_CONFIGS["acme"] = ProviderConfig(display_name="Acme Inc.", provider_class=Chat, requires_key=False)
    with pytest.raises(InvalidRequestError, match="Acme Inc. cannot make embeddings here: ask another provider"):
        await QueryLLM(LLMConfig(environment={})).embed("acme/small", "a")


class Own(BaseLLMProvider):
    """A user's own."""

    seen: list[Any]

    async def generate(self, messages, model, **options):
        return "no"

    async def embed(self, inputs, model, **options):
        type(self).seen.append((list(inputs), model, options))
        return EmbeddingResponse(embeddings=[[1.0, 2.0] for _ in inputs], usage=Usage(len(inputs), 0), model_name="own-1")


def own(base: type = Own, **row: Any) -> Any:
    cls = type("Acme", (base,), {"seen": []})
    PROVIDER_CONFIGS["acme"] = ProviderConfig(provider_class=cls, requires_key=False, **row)
    return cls, QueryLLM(LLMConfig(environment={}, clock=FakeClock(auto_advance=True)))


async def test_a_users_own_embeddings() -> None:
    cls, llm = own(embed_batch_size=2)
    ModelRegistry.register("acme/small", ModelConfig(input_price_per_million=1_000_000))
    answer = await llm.embed("acme/small", texts(3), dimensions=2)
    assert list(answer) == [[1.0, 2.0]] * 3
    assert sorted(cls.seen, key=lambda seen: seen[0]) == [
        (["text number 0", "text number 1"], "small", {"dimensions": 2}),
        (["text number 2"], "small", {"dimensions": 2}),
    ]
    assert (answer.usage.input_tokens, answer.cost) == (3, 3)
    assert {attempt.model_served for attempt in answer.receipt.attempts} == {"own-1"}


@pytest.mark.parametrize("count", [1, 3])
async def test_too_few_vectors_of_a_users_own_are_an_error_with_the_receipt(count: int) -> None:
    class Short(Own):
        async def embed(self, inputs, model, **options):
            return EmbeddingResponse(embeddings=[])

    _, llm = own(Short, embed_batch_size=1)
    with pytest.raises(ServerError, match=r"acme: answered 0 vectors for 1 input") as caught:
        await llm.embed("acme/small", texts(count))
    assert caught.value.provider == "acme"
    assert any("0 vectors" in str(attempt.error) for attempt in caught.value.receipt.attempts)


async def test_an_answer_that_names_no_model_leaves_it_open() -> None:
    class Nameless(Own):
        async def embed(self, inputs, model, **options):
            return EmbeddingResponse(embeddings=[[1.0]])

    _, llm = own(Nameless)
    assert (await llm.embed("acme/small", "a")).receipt.attempts[0].model_served is None


@pytest.mark.parametrize("wrong", [None, [[1.0]], LLMResponse("no", "m"), "no"])
@pytest.mark.parametrize("count", [1, 2])
async def test_what_is_no_answer_is_told(wrong: Any, count: int) -> None:
    class Wrong(Own):
        async def embed(self, inputs, model, **options):
            return wrong

    _, llm = own(Wrong, embed_batch_size=1)
    with pytest.raises(TypeError, match=rf"Acme.embed returned a {type(wrong).__name__}; it must return EmbeddingResponse"):
        await llm.embed("acme/small", texts(count))


async def test_keys_are_shown_nowhere(server: ScriptedServer, clock: FakeClock) -> None:
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url=server.base_url, embed_batch_size=1, max_retries=0)
    llm = QueryLLM(LLMConfig(environment={}, clock=clock, acme_api_key="sk-secret-0123456789"))
    server.answer_json({"error": {"message": "Key sk-secret-0123456789 is wrong."}}, status=401, times=None)
    with pytest.raises(Exception) as caught:
        await llm.embed("acme/small", texts(3))
    assert "sk-secret" not in f"{caught.value!r} {caught.value.receipt!r} {caught.value.__cause__!r}"
    assert {request.headers["authorization"] for request in server.requests} == {"Bearer sk-secret-0123456789"}
