"""``RotatingClient``: OpenAI's arguments in, genuine objects of the openai SDK out, over the engine of ``QueryLLM``."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from dotenv import load_dotenv
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from servers.documented import SENTENCE, SOURCES
from servers.scripted import FOREVER

from llm_master import (
    PROVIDER_CONFIGS,
    AuthenticationError,
    BaseLLMProvider,
    ConfigurationError,
    DeadlineExceededError,
    InvalidRequestError,
    LLMConfig,
    LLMError,
    LLMResponse,
    MissingApiKeyError,
    ModelConfig,
    ModelRegistry,
    ProviderConfig,
    QueryLLM,
    ReasoningDelta,
    RotatingClient,
    ServerError,
    StreamEnd,
    StreamInterruptedError,
    ToolCall,
    ToolCallDelta,
    UnknownModelError,
    Usage,
)
from llm_master.openai_objects import FINISH_REASONS, completion
from llm_master.rows import base_variable
from llm_master.testing import Fault

KEYS = ["sk-first-0123456789", "sk-second-0123456789"]
HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture
def trial(fault_server):
    PROVIDER_CONFIGS["trial"] = ProviderConfig(base_url=fault_server.base_url)
    return fault_server


@pytest.fixture
def client(trial):
    return RotatingClient(api_keys={"trial": KEYS})


def whole_body(message, **more):
    choice = {"index": 0, "message": {"role": "assistant", "content": None, **message}, "finish_reason": more.pop("finish_reason", "stop")}
    return {"id": "chatcmpl-7", "object": "chat.completion", "created": 1_700_000_000, "model": "large-1", "choices": [choice], **more}


def accumulated(chunks):
    """What a user of the SDK makes of chunks."""
    said = {"content": "", "reasoning": "", "calls": {}, "finish_reason": None, "usage": None}
    for chunk in chunks:
        if chunk.usage is not None:
            said["usage"] = chunk.usage
        for choice in chunk.choices:
            said["content"] += choice.delta.content or ""
            said["reasoning"] += getattr(choice.delta, "reasoning_content", None) or ""
            for call in choice.delta.tool_calls or ():
                known = said["calls"].setdefault(call.index, {"id": None, "name": None, "arguments": ""})
                known["id"] = known["id"] or call.id
                known["name"] = known["name"] or call.function.name
                known["arguments"] += call.function.arguments or ""
            said["finish_reason"] = choice.finish_reason or said["finish_reason"]
    said["calls"] = [said["calls"][index] for index in sorted(said["calls"])]
    return said


# The examples of the client that people know, as they stand there but for the import path


@pytest.fixture
def guide(documented, monkeypatch):
    """All providers are one server. Keys and addresses come from the environment, as in the guide."""
    for row in PROVIDER_CONFIGS.values():
        if row.name != "mock":
            monkeypatch.setenv(base_variable(row), documented.base_url)
    for name in ("GEMINI_API_KEY_1", "GEMINI_API_KEY_2", "GOOGLE_API_KEY", "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "PROXY_API_KEY"):
        monkeypatch.setenv(name, f"a-key-{name.lower()}")
    for name in [name for name in os.environ if "_API_KEY" in name and not os.environ[name].startswith("a-key-")]:
        monkeypatch.delenv(name)
    return documented


def keys_of_the_environment():
    load_dotenv()
    api_keys = {}
    for key, value in os.environ.items():
        if (key.endswith("_API_KEY") or "_API_KEY_" in key) and key != "PROXY_API_KEY":
            provider = key.split("_API_KEY")[0].lower()
            if provider not in api_keys:
                api_keys[provider] = []
            api_keys[provider].append(value)
    return api_keys


async def test_the_client_is_made_with_every_argument(guide, caplog):
    api_keys = keys_of_the_environment()
    oauth_credentials = {}
    client = RotatingClient(
        api_keys=api_keys,
        oauth_credentials=oauth_credentials,
        max_retries=2,
        usage_file_path="key_usage.json",
        configure_logging=True,
        global_timeout=30,
        abort_on_callback_error=True,
        litellm_provider_params={},
        ignore_models={},
        whitelist_models={},
        enable_request_logging=False,
        max_concurrent_requests_per_key={},
    )
    assert [len(client._engine.snapshot.keys[name]) for name in ("gemini", "openai", "anthropic", "groq")] == [3, 1, 1, 0]
    assert caplog.records == []
    response = await client.acompletion(model="openai/gpt-4.1", messages=[{"role": "user", "content": "Hello!"}])
    assert response.choices[0].message.content == SENTENCE
    await client.close()


@pytest.mark.parametrize("model", ["gemini/gemini-1.5-flash", "gemini/gemini-2.5-flash", "openai/gpt-4.1", "anthropic/claude-sonnet-4-5"])
async def test_a_request(guide, model):
    api_keys = keys_of_the_environment()
    async with RotatingClient(api_keys=api_keys, max_retries=2) as client:
        response = await client.acompletion(model=model, messages=[{"role": "user", "content": "Hello!"}])
        print(response)
    assert type(response) is ChatCompletion
    assert response.choices[0].message.content == SENTENCE
    assert response.choices[0].finish_reason == "stop"
    assert response.usage.total_tokens == response.usage.prompt_tokens + response.usage.completion_tokens


@pytest.mark.parametrize("model", ["gemini/gemini-1.5-flash", "openai/gpt-4.1", "anthropic/claude-sonnet-4-5"])
async def test_a_streamed_request(guide, model):
    api_keys = keys_of_the_environment()
    chunks = []
    async with RotatingClient(api_keys=api_keys) as client:
        response_stream = await client.acompletion(
            model=model, messages=[{"role": "user", "content": "Tell me a long story."}], stream=True
        )
        async for chunk in response_stream:
            print(chunk)
            chunks.append(chunk)
    said = accumulated(chunks)
    assert (said["content"], said["finish_reason"], said["usage"]) == (SENTENCE, "stop", None)


async def test_embeddings_counts_and_models_of_the_guide(guide):
    client = RotatingClient(api_keys=keys_of_the_environment())
    embeddings = await client.aembedding(model="openai/text-embedding-3-small", input=["Hello"])
    assert len(embeddings.data) == 1
    assert client.token_count(model="openai/gpt-4.1", text="Hello") == 2
    assert client.token_count(model="openai/gpt-4.1", messages=[{"role": "user", "content": "Hello"}]) > 2
    assert isinstance(await client.get_available_models("gemini"), list)
    assert (await client.get_all_available_models(grouped=True)).keys() >= {"openai", "anthropic", "gemini"}
    assert isinstance(await client.get_all_available_models(grouped=False), list)


# Whole answers


async def test_a_completion_is_genuine(client):
    answer = await client.acompletion(model="trial/large", messages=HELLO, temperature=0.5, max_tokens=20)
    assert type(answer) is ChatCompletion
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("echo 1: Hello", "stop")
    assert (answer.id, answer.object, answer.created, answer.model) == ("chatcmpl-1", "chat.completion", 1_700_000_000, "large")
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (2, 4, 6)
    assert ChatCompletion.model_validate(answer.model_dump()) == answer
    assert json.loads(answer.model_dump_json())["choices"][0]["message"]["role"] == "assistant"


async def test_options_go_out_as_they_are(client, trial):
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    await client.acompletion(model="trial/large", messages=HELLO, tools=tools, top_k=3, extra_body={"own": 1})
    assert trial.requests[0].body == {"model": "large", "messages": HELLO, "tools": tools, "top_k": 3, "own": 1}


async def test_all_that_the_body_says_is_kept(client, trial):
    body = whole_body(
        {"content": "one", "reasoning": "hm", "annotations": []},
        usage={
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "total_tokens": 15,
            "prompt_tokens_details": {"cached_tokens": 4},
            "completion_tokens_details": {"reasoning_tokens": 3},
        },
        system_fingerprint="fp_1",
        service_tier="default",
    )
    logprobs = {"content": [{"token": "one", "logprob": -0.5, "bytes": None, "top_logprobs": []}], "refusal": None}
    body["choices"][0]["logprobs"] = logprobs
    body["choices"].append({"index": 1, "message": {"role": "assistant", "content": "two"}, "finish_reason": "MAX_TOKENS"})
    trial.script(Fault(body=body))
    answer = await client.acompletion(model="trial/large", messages=HELLO, n=2, logprobs=True)
    assert [choice.message.content for choice in answer.choices] == ["one", "two"]
    assert [choice.finish_reason for choice in answer.choices] == ["stop", "length"]
    assert answer.choices[0].logprobs.content[0].logprob == -0.5
    assert answer.choices[0].message.reasoning_content == "hm"
    assert (answer.system_fingerprint, answer.service_tier, answer.model) == ("fp_1", "default", "large-1")
    assert answer.usage.prompt_tokens_details.cached_tokens == 4
    assert answer.usage.completion_tokens_details.reasoning_tokens == 3


async def test_sources_images_and_audio(guide, monkeypatch):
    monkeypatch.setenv("PERPLEXITY_API_KEY", KEYS[0])
    client = RotatingClient()
    message = (await client.acompletion(model="perplexity/sonar", messages=HELLO)).choices[0].message
    assert [item.url_citation.url for item in message.annotations] == [source["url"] for source in SOURCES]
    chunks = [chunk async for chunk in client.astream(model="perplexity/sonar", messages=HELLO)]
    assert len(chunks[-2].choices[0].delta.annotations) == len(SOURCES)
    message = (await client.acompletion(model="gemini/gemini-2.5-flash-image", messages=HELLO)).choices[0].message
    assert message.images[0]["image_url"]["url"].startswith("data:image/png;base64,")
    spoken = {"model": "openai/gpt-4o-audio-preview", "modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}}
    message = (await client.acompletion(messages=HELLO, **spoken)).choices[0].message
    assert (message.content, message.audio.id, message.audio.transcript) == (None, "audio_1", SENTENCE)


async def test_unknown_usage_is_none(client, trial):
    trial.script(Fault(answer="Hi", usage={}))
    assert (await client.acompletion(model="trial/large", messages=HELLO)).usage is None


async def test_details_that_nobody_stated_are_none(client):
    usage = (await client.acompletion(model="trial/large", messages=HELLO)).usage
    assert usage.prompt_tokens_details is None and usage.completion_tokens_details is None


async def test_tool_calls_and_the_message_as_the_next_turn(client, trial):
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bern"}'}}
    trial.script(Fault(body=whole_body({"tool_calls": [call], "reasoning_content": "Bern?"})))
    first = await client.acompletion(model="trial/large", messages=HELLO)
    message = first.choices[0].message
    assert first.choices[0].finish_reason == "tool_calls"  # though the server said stop
    assert message.content is None
    assert message.tool_calls[0].function.arguments == '{"city": "Bern"}'
    await client.acompletion(model="trial/large", messages=[*HELLO, message, {"role": "tool", "tool_call_id": "call_1", "content": "12"}])
    sent = trial.requests[1].body["messages"][1]
    assert sent == {"role": "assistant", "content": None, "tool_calls": [call]}


async def test_what_the_sdk_does_not_expect_is_passed_on(client, trial):
    trial.script(Fault(body=whole_body({"content": "Hi"}, service_tier="luxury")))
    answer = await client.acompletion(model="trial/large", messages=HELLO)
    assert isinstance(answer, ChatCompletion)
    assert answer.service_tier == "luxury"
    assert answer.choices[0].message.content == "Hi"


@pytest.mark.parametrize(
    ("said", "reason", "native"),
    [
        ("stop", "stop", None),
        ("STOP", "stop", "STOP"),
        ("end_turn", "stop", "end_turn"),
        ("max_tokens", "length", "max_tokens"),
        ("MAX_TOKENS", "length", "MAX_TOKENS"),
        ("SAFETY", "content_filter", "SAFETY"),
        ("tool_use", "stop", "tool_use"),  # without any call
        ("who knows", "stop", "who knows"),
    ],
)
async def test_finish_reasons_in_openais_words(client, trial, said, reason, native):
    trial.script(Fault(body=whole_body({"content": "Hi"}, finish_reason=said)))
    choice = (await client.acompletion(model="trial/large", messages=HELLO)).choices[0]
    assert (choice.finish_reason, getattr(choice, "native_finish_reason", None)) == (reason, native)


def test_the_table_of_finish_reasons_maps_to_what_the_sdk_knows():
    assert set(FINISH_REASONS.values()) == {"stop", "length", "tool_calls", "content_filter"}
    assert all(word == word.lower() for word in FINISH_REASONS)


class Own(BaseLLMProvider):
    """A provider that is no HTTP, with and without a stream."""

    answer = LLMResponse(
        "It rains.",
        "own-1",
        Usage(7, 5, reasoning_tokens=2),
        reasoning="Look outside.",
        tool_calls=[ToolCall("a", "umbrella", {}), ToolCall("b", "boots", {"size": 42}, text='{"size": 42}')],
        finish_reason="tool_use",
        native={"signed": "thought"},
    )

    async def generate(self, messages, model, **options):
        return LLMResponse(**{name: getattr(self.answer, name) for name in ("content", "model_name", "usage", "reasoning", "tool_calls")})


class OwnStream(Own):
    async def stream(self, messages, model, **options):
        yield ReasoningDelta("Look ")
        yield [ReasoningDelta("outside."), "It "]
        yield "rains."
        yield ToolCallDelta(0, "a", "umbrella")
        yield ToolCallDelta(1, "b", "boots", '{"size"')
        yield ToolCallDelta(1, None, None, ": 42}")
        yield StreamEnd(finish_reason="tool_use", usage=self.answer.usage, model_name="own-1")


@pytest.mark.parametrize("cls", [Own, OwnStream])
async def test_chunks_accumulate_to_the_whole_answer(cls):
    PROVIDER_CONFIGS["own"] = ProviderConfig(provider_class=cls, requires_key=False)
    client = RotatingClient()
    whole = await client.acompletion(model="own/m", messages=HELLO)
    chunks = [chunk async for chunk in client.astream(model="own/m", messages=HELLO, stream_options={"include_usage": True})]
    said = accumulated(chunks)
    message = whole.choices[0].message
    assert said["content"] == message.content == "It rains."
    assert said["reasoning"] == message.reasoning_content == "Look outside."
    calls = [{"id": call.id, "name": call.function.name, "arguments": call.function.arguments or "{}"} for call in message.tool_calls]
    assert [{**call, "arguments": call["arguments"] or "{}"} for call in said["calls"]] == calls
    assert [call["name"] for call in calls] == ["umbrella", "boots"]
    assert said["finish_reason"] == whole.choices[0].finish_reason == "tool_calls"
    assert said["usage"] == whole.usage
    assert said["usage"].completion_tokens_details.reasoning_tokens == 2


PIECES = st.lists(
    st.one_of(
        st.text(max_size=5),
        st.builds(ReasoningDelta, st.text(max_size=5)),
        st.lists(st.text(max_size=5), max_size=3),
        st.builds(ToolCallDelta, st.integers(0, 2), st.none(), st.none(), st.sampled_from(["", "{", '"a"', ": 1}"])),
    ),
    max_size=12,
)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    pieces=PIECES,
    reason=st.sampled_from([None, "stop", "STOP", "max_tokens", "tool_use"]),
    counts=st.tuples(*[st.none() | st.integers(0, 9)] * 2),
)
def test_whatever_comes_in_chunks_is_the_whole(pieces, reason, counts):
    class Any(BaseLLMProvider):
        async def generate(self, messages, model, **options):
            raise AssertionError

        async def stream(self, messages, model, **options):
            begun = set()
            for piece in pieces:
                if isinstance(piece, ToolCallDelta) and piece.index not in begun:
                    begun.add(piece.index)
                    yield ToolCallDelta(piece.index, f"id-{piece.index}", "f")
                yield piece
            yield StreamEnd(finish_reason=reason, usage=Usage(*counts))

    async def ask():
        stream = QueryLLM().stream("any/m", HELLO)
        async for _ in stream:
            pass
        asked = {"model": "any/m", "messages": HELLO, "stream_options": {"include_usage": True}}
        return completion(stream.response), [chunk async for chunk in RotatingClient().astream(**asked)]

    PROVIDER_CONFIGS["any"] = ProviderConfig(provider_class=Any, requires_key=False)
    whole, chunks = asyncio.run(ask())
    said, (choice,) = accumulated(chunks), whole.choices
    assert said["content"] == (choice.message.content or "")
    assert said["reasoning"] == (getattr(choice.message, "reasoning_content", None) or "")
    calls = [{"id": call.id, **call.function.model_dump()} for call in choice.message.tool_calls or ()]
    assert said["calls"] == calls
    assert (said["finish_reason"], said["usage"]) == (choice.finish_reason, whole.usage)
    assert [len(chunk.choices) for chunk in chunks[:-1]] == [1] * (len(chunks) - 1)


async def test_what_only_this_provider_understands_goes_back_to_it():
    seen = []

    class Signed(Own):
        async def generate(self, messages, model, **options):
            seen.append(messages)
            return LLMResponse("Hi", model, Usage(1, 1), native={"signed": "thought"})

    PROVIDER_CONFIGS["own"] = ProviderConfig(provider_class=Signed, requires_key=False)
    client = RotatingClient()
    first = await client.acompletion(model="own/m", messages=HELLO)
    await client.acompletion(model="own/m", messages=[*HELLO, first.choices[0].message, *HELLO])
    assert seen[1][1] == {"role": "assistant", "content": "Hi", "_native": {"signed": "thought"}}


# Streams


@pytest.mark.parametrize("how", ["plain", "awaited", "astream", "with"])
async def test_a_stream_in_every_spelling(client, how):
    arguments = {"model": "trial/large", "messages": [{"role": "user", "content": "one two three"}]}
    if how == "plain":
        chunks = [chunk async for chunk in client.acompletion(**arguments, stream=True)]
    elif how == "awaited":
        chunks = [chunk async for chunk in await client.acompletion(**arguments, stream=True)]
    elif how == "astream":
        chunks = [chunk async for chunk in client.astream(**arguments)]
    else:
        async with await client.acompletion(**arguments, stream=True) as stream:
            chunks = [chunk async for chunk in stream]
    assert all(type(chunk) is ChatCompletionChunk for chunk in chunks)
    assert len({chunk.id for chunk in chunks}) == len({chunk.created for chunk in chunks}) == 1
    assert {chunk.model for chunk in chunks} == {"large"}
    assert (chunks[0].choices[0].delta.role, chunks[0].choices[0].delta.content) == ("assistant", "")
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "echo 1: one two three"
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert all(chunk.usage is None for chunk in chunks)


async def test_a_usage_only_chunk_where_it_is_asked_for(client):
    stream = client.acompletion(model="trial/large", messages=HELLO, stream=True, stream_options={"include_usage": True})
    *others, last = [chunk async for chunk in stream]
    assert last.choices == [] and (last.usage.prompt_tokens, last.usage.completion_tokens) == (2, 4)
    assert all(chunk.choices and chunk.usage is None for chunk in others)


async def test_usage_that_is_not_known_is_no_chunk(client, trial):
    trial.script(Fault(answer="Hi", usage={}))
    stream = client.astream(model="trial/large", messages=HELLO, stream_options={"include_usage": True})
    assert all(chunk.choices for chunk in [chunk async for chunk in stream])


async def test_a_stream_that_fails_before_it_began_fails_when_it_is_awaited(trial):
    client = RotatingClient(api_keys={"trial": KEYS}, max_retries=0)
    trial.script(Fault(503, times=None))
    with pytest.raises(ServerError):
        await client.acompletion(model="trial/large", messages=HELLO, stream=True)
    stream = client.acompletion(model="trial/large", messages=HELLO, stream=True)
    with pytest.raises(ServerError):
        await anext(stream)
    assert [chunk async for chunk in stream] == []


async def test_a_stream_that_is_left_gives_its_connection_free(client, trial):
    trial.script(Fault(answer="one two three four", chunk_delay=0.05))
    async with client.astream(model="trial/large", messages=HELLO) as stream:
        async for chunk in stream:
            if chunk.choices[0].delta.content:
                break
    await stream.aclose()
    assert [chunk async for chunk in stream] == []
    assert (await client.acompletion(model="trial/large", messages=HELLO)).choices[0].message.content == "echo 2: Hello"


@pytest.mark.parametrize("how", ["dropped", "awaited and dropped", "cancelled"])
async def test_a_stream_that_nobody_holds_any_more_is_closed(server, how):
    PROVIDER_CONFIGS["trial"] = ProviderConfig(base_url=server.base_url)
    client = RotatingClient(api_keys={"trial": KEYS}, max_concurrent_requests_per_key={"trial": 1})
    event = json.dumps({"choices": [{"index": 0, "delta": {"content": "Hi"}}]})
    server.answer_sse(f"data: {event}\n\n", FOREVER)
    stream = client.astream(model="trial/large", messages=HELLO)
    if how == "awaited and dropped":
        await stream
    else:
        while not (await anext(stream)).choices[0].delta.content:
            pass
    if how == "cancelled":
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(stream), 0.02)
    del stream
    gc.collect()
    assert await server.until_open(0)
    server.answer_json(whole_body({"content": "Free"}), times=None)
    answers = await asyncio.gather(*(client.acompletion(model="trial/large", messages=HELLO) for _ in range(4)))
    assert {answer.choices[0].message.content for answer in answers} == {"Free"}


async def test_what_breaks_a_stream_is_raised_with_what_came(client, trial):
    trial.script(Fault(answer="one two three four", close_after=700))
    came = []
    with pytest.raises(StreamInterruptedError) as caught:
        async for chunk in client.astream(model="trial/large", messages=HELLO):
            came.append(chunk)
    assert accumulated(came)["content"] == caught.value.response.content
    assert accumulated(came)["finish_reason"] is None


async def test_many_at_once_each_get_their_own(trial):
    client = RotatingClient(api_keys={"trial": KEYS}, max_concurrent_requests_per_key={"trial": 4})

    async def ask(number):
        messages = [{"role": "user", "content": f"number {number}"}]
        if number % 2:
            return accumulated([chunk async for chunk in await client.acompletion(model="trial/large", messages=messages, stream=True)])[
                "content"
            ]
        return (await client.acompletion(model="trial/large", messages=messages)).choices[0].message.content

    answers = await asyncio.gather(*map(ask, range(40)))
    assert [answer.partition(": ")[2] for answer in answers] == [f"number {number}" for number in range(40)]


async def test_nothing_is_sent_for_a_stream_that_nobody_reads(client, trial):
    client.acompletion(model="trial/large", messages=HELLO, stream=True)
    await asyncio.sleep(0)
    assert trial.requests == []


# Keys, limits, settings


async def test_a_bad_key_is_changed_for_another(client, trial):
    trial.accept(keys=KEYS[1:])
    for _ in range(3):
        assert (await client.acompletion(model="trial/large", messages=HELLO)).choices
    assert trial.counts() in ({401: 1, 200: 3}, {200: 3})


async def test_keys_of_the_client_stand_in_place_of_the_environments(trial, monkeypatch):
    monkeypatch.setenv("TRIAL_API_KEY", "sk-environment-0123456789")
    trial.accept(keys={"own": KEYS[0], "environment": "sk-environment-0123456789"})
    for keys in (KEYS[0], ["", None, KEYS[0]], ["", None, "  "], None):
        await RotatingClient(api_keys={"trial": keys}).acompletion(model="trial/large", messages=HELLO)
    await RotatingClient().acompletion(model="trial/large", messages=HELLO)
    assert [seen.key for seen in trial.requests] == ["own", "own", "environment", "environment", "environment"]
    trial.accept(keys=KEYS[1:])
    with pytest.raises(AuthenticationError):
        await RotatingClient(api_keys={"trial": KEYS[0]}).acompletion(model="trial/large", messages=HELLO)


async def test_a_provider_that_only_an_address_makes(fault_server, monkeypatch):
    monkeypatch.setenv("ACME_API_BASE", fault_server.base_url)
    client = RotatingClient(api_keys={"acme": ["sk-acme-0123456789"]})
    assert (await client.acompletion(model="acme/large", messages=HELLO)).choices[0].message.content == "echo 1: Hello"
    assert fault_server.requests[0].key.endswith("6789")


@pytest.mark.parametrize(("name", "alias"), [("gemini", "GoogleAI"), ("gemini", "google"), ("together", "together_ai")])
def test_a_provider_by_its_other_name(name, alias):
    client = RotatingClient(api_keys={alias: KEYS})
    assert len(client._engine.snapshot.keys[name]) == 2


def test_settings_are_the_clients_own(trial):
    before = PROVIDER_CONFIGS["trial"]
    client = RotatingClient(
        api_keys={"trial": KEYS},
        max_retries=0,
        global_timeout=30,
        max_concurrent_requests_per_key={"trial": 3},
        ignore_models={"trial": ["*-preview"]},
        whitelist_models={"trial": ["good-*"]},
    )
    snapshot = client._engine.snapshot
    row = snapshot.rows["trial"]
    assert (row.max_retries, row.max_concurrent_per_key, row.ignore_models, row.whitelist_models) == (0, 3, ("*-preview",), ("good-*",))
    assert {row.max_retries for row in snapshot.rows.values()} == {0}
    assert snapshot.options.deadline == 30
    assert PROVIDER_CONFIGS["trial"] is before
    assert QueryLLM()._engine.snapshot.rows["trial"] == before


def test_equal_settings_share_an_engine(trial):
    made = [RotatingClient(api_keys={"trial": KEYS}, max_concurrent_requests_per_key={"trial": 3}) for _ in range(2)]
    assert made[0]._engine is made[1]._engine
    assert RotatingClient(api_keys={"trial": KEYS}, max_concurrent_requests_per_key={"trial": 4})._engine is not made[0]._engine
    config = LLMConfig(api_keys={"trial": KEYS})
    assert RotatingClient(api_keys={"trial": KEYS})._engine is QueryLLM(config)._engine


async def test_one_request_per_key(trial):
    client = RotatingClient(api_keys={"trial": KEYS}, max_concurrent_requests_per_key={"trial": 1})
    trial.script(Fault(delay=0.02, times=None))
    await asyncio.gather(*(client.acompletion(model="trial/large", messages=HELLO) for _ in range(8)))
    assert max(seen.in_flight for seen in trial.requests) <= 2
    assert sorted(trial.counts("key").values()) == [4, 4]


async def test_the_global_timeout_bounds_a_call(trial):
    client = RotatingClient(api_keys={"trial": KEYS}, global_timeout=0.05)
    trial.script(Fault(delay="forever", times=None))
    with pytest.raises(DeadlineExceededError):
        await client.acompletion(model="trial/large", messages=HELLO)


async def test_ignored_models_are_not_asked(trial):
    client = RotatingClient(api_keys={"trial": KEYS}, ignore_models={"trial": ["*"]}, whitelist_models={"trial": ["large"]})
    await client.acompletion(model="trial/large", messages=HELLO)
    with pytest.raises(UnknownModelError, match="ignore_models"):
        await client.acompletion(model="trial/small", messages=HELLO)


async def test_fallbacks_are_the_engines(trial):
    client = RotatingClient(api_keys={"trial": KEYS}, max_retries=0)
    trial.script(Fault(503, model="large", times=None))
    answer = await client.acompletion(model="trial/large", messages=HELLO, fallback_model="trial/small")
    assert answer.model == "small"


# The callback


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_the_callback_may_change_the_arguments(client, trial, kind):
    request = object()

    def change(given, kwargs):
        assert given is request
        assert kwargs["model"] == "trial/large"
        kwargs["temperature"] = 0.25
        kwargs["messages"] = [{"role": "user", "content": "Changed"}]

    async def change_async(given, kwargs):
        await asyncio.sleep(0)
        change(given, kwargs)

    callback = change if kind == "sync" else change_async
    arguments = {"model": "trial/large", "messages": HELLO, "request": request, "pre_request_callback": callback}
    answer = await client.acompletion(**arguments)
    assert answer.choices[0].message.content == "echo 1: Changed"
    said = accumulated([chunk async for chunk in client.acompletion(**arguments, stream=True)])
    assert said["content"] == "echo 2: Changed"
    assert [seen.body["temperature"] for seen in trial.requests] == [0.25, 0.25]


async def test_a_callback_that_fails_fails_the_call(client, trial):
    def refuse(request, kwargs):
        raise ValueError("not today")

    with pytest.raises(LLMError, match="not today") as caught:
        await client.acompletion(model="trial/large", messages=HELLO, pre_request_callback=refuse)
    assert isinstance(caught.value.__cause__, ValueError)
    assert trial.requests == []


async def test_or_is_only_logged(trial, caplog):
    client = RotatingClient(api_keys={"trial": KEYS}, abort_on_callback_error=False)

    async def refuse(request, kwargs):
        raise ValueError("not today")

    assert (await client.acompletion(model="trial/large", messages=HELLO, pre_request_callback=refuse)).choices
    assert "not today" in caplog.text


async def test_a_callback_may_not_change_what_is_returned(client):
    def change(request, kwargs):
        kwargs["stream"] = True

    with pytest.raises(InvalidRequestError, match="changed stream"):
        await client.acompletion(model="trial/large", messages=HELLO, pre_request_callback=change)


# Embeddings and counts


async def test_embeddings_are_genuine(client, trial):
    answer = await client.aembedding(model="trial/vectors", input=["one", "two"], dimensions=4)
    assert type(answer) is CreateEmbeddingResponse
    assert [item.index for item in answer.data] == [0, 1]
    assert all(len(item.embedding) == 4 and all(type(number) is float for number in item.embedding) for item in answer.data)
    assert (answer.model, answer.object, answer.usage.prompt_tokens, answer.usage.total_tokens) == ("vectors", "list", 2, 2)
    assert CreateEmbeddingResponse.model_validate(answer.model_dump()) == answer
    alone = await client.aembedding(model="trial/vectors", input="one", dimensions=4, encoding_format="base64")
    assert list(struct.unpack("<4f", base64.b64decode(alone.data[0].embedding))) == answer.data[0].embedding


async def test_embeddings_of_unknown_usage(client, trial):
    trial.script(Fault(usage={}))
    assert (await client.aembedding(model="trial/vectors", input="one")).usage is None


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"input": 5}, "input is a int"),
        ({"input": None}, "input is a NoneType"),
        ({"input": []}, "empty"),
        ({"input": ["a", 5]}, "is a int"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format is 'hex'"),
    ],
)
async def test_what_cannot_be_embedded(client, trial, wrong, said):
    with pytest.raises(InvalidRequestError, match=said):
        await client.aembedding(model="trial/vectors", **wrong)
    assert trial.requests == []


def test_token_count(client, trial):
    assert client.token_count(model="trial/large", text="Hello, how are you?") == 5
    assert client.token_count("trial/large", messages=HELLO) > client.token_count("trial/large", text="Hello") > 0
    assert trial.requests == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"text": "a", "messages": HELLO}, "both text and messages"),
        ({}, "neither text nor messages"),
        ({"text": 5}, "text is a int"),
        ({"messages": "Hi"}, "messages is a str"),
        ({"text": "a", "model": ""}, "model is ''"),
    ],
)
def test_what_cannot_be_counted(client, wrong, said):
    with pytest.raises(InvalidRequestError, match=said):
        client.token_count(**{"model": "trial/large", **wrong})


# Models


async def test_models_of_a_provider(trial):
    PROVIDER_CONFIGS["trial"] = ProviderConfig(base_url=trial.base_url, models={"mine": "large"})
    trial.accept(models=["large", "small", "old-preview", "good-preview"])
    client = RotatingClient(api_keys={"trial": KEYS}, ignore_models={"trial": ["*-preview"]}, whitelist_models={"trial": ["good-*"]})
    models = ["trial/large", "trial/small", "trial/good-preview", "trial/mine"]
    assert await client.get_available_models("trial") == models
    assert await client.get_available_models("Trial") == models
    assert await client.get_all_available_models() == {"trial": models}
    assert await client.get_all_available_models(grouped=False) == models


async def test_an_outage_leaves_the_declared_ones(trial, caplog):
    PROVIDER_CONFIGS["trial"] = ProviderConfig(base_url=trial.base_url, models=["mine"])
    ModelRegistry.register("trial/known", ModelConfig(input_price_per_million=1))
    client = RotatingClient(api_keys={"trial": KEYS})
    trial.script(Fault(500, path="/models", times=None))
    assert await client.get_all_available_models() == {"trial": ["trial/known", "trial/mine"]}
    assert "trial did not list its models" in caplog.text
    assert KEYS[0] not in caplog.text


async def test_a_list_by_the_key_that_may_have_it(client, trial, caplog):
    trial.accept(keys=KEYS[1:], models=["large"])
    assert await client.get_available_models("trial") == ["trial/large"]
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("body", "models"),
    [
        ([{"id": "a"}, {"id": "b", "object": "model"}], ["trial/a", "trial/b"]),
        ({"data": [{"id": "a/b:free"}, {"id": "a/b:free"}]}, ["trial/a/b:free"]),
        ({"models": [{"name": "a", "model": "a"}]}, ["trial/a"]),
        ({"nothing": 1}, []),
        ({"error": {"message": "later"}}, []),
        ("<html>", []),
    ],
)
async def test_the_shapes_of_a_list(client, trial, body, models):
    trial.script(Fault(path="/models", body=body))
    assert await client.get_available_models("trial") == models


async def test_lists_of_other_wire_formats(server, monkeypatch):
    monkeypatch.setenv("GEMINI_API_BASE", server.base_url)
    monkeypatch.setenv("ANTHROPIC_API_BASE", server.base_url)
    client = RotatingClient(api_keys={"gemini": KEYS[0], "anthropic": KEYS[0]})
    server.answer_json({"models": [{"name": "models/gemini-9", "displayName": "Nine"}]})
    assert await client.get_available_models("gemini") == ["gemini/gemini-9"]
    server.answer_json({"data": [{"type": "model", "id": "claude-9", "display_name": "Nine"}], "has_more": False})
    assert await client.get_available_models("anthropic") == ["anthropic/claude-9"]
    assert [request.path.partition("?")[2] for request in server.requests] == ["pageSize=1000", "limit=1000"]


async def test_a_provider_that_has_no_list_offers_what_is_known():
    client = RotatingClient(api_keys={"vertex": KEYS[0]})
    models = await client.get_available_models("vertex")
    assert models and all(model.startswith("vertex/") for model in models)


# What is wrong is said


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"api_keys": {"opnai": ["k"]}}, "did you mean 'openai'"),
        ({"api_keys": {"openai": [5]}}, "give a string"),
        ({"api_keys": "sk-0123"}, "api_keys is a str"),
        ({"max_retries": -1}, "max_retries is -1"),
        ({"max_retries": "2"}, "max_retries is '2'"),
        ({"global_timeout": 0}, "deadline is 0"),
        ({"max_concurrent_requests_per_key": {"openai": 0}}, "max_concurrent_per_key is 0"),
        ({"max_concurrent_requests_per_key": {"opnai": 2}}, "did you mean 'openai'"),
        ({"max_concurrent_requests_per_key": 2}, "give a dict by provider"),
        ({"ignore_models": ["a"]}, "ignore_models is a list"),
        ({"oauth_credentials": {"gemini_cli": ["file"]}}, "give API keys"),
        ({"litellm_provider_params": {"openai": {}}}, "API_BASE"),
        ({"enable_request_logging": True}, "LOG_LEVEL=DEBUG"),
    ],
)
def test_a_client_that_cannot_be(wrong, said):
    with pytest.raises(ConfigurationError, match=said):
        RotatingClient(**wrong)


@pytest.mark.parametrize("keys", [{}, {"openai": []}, {"openai": ["", None]}, {"openai": ""}])
def test_no_keys_at_all(keys, monkeypatch):
    with pytest.raises(MissingApiKeyError, match="api_keys holds no key"):
        RotatingClient(api_keys=keys)
    monkeypatch.setenv("OPENAI_API_KEY", KEYS[0])
    RotatingClient(api_keys=keys)


def test_an_argument_that_there_is_not():
    with pytest.raises(TypeError, match="max_retry"):
        RotatingClient(max_retry=2)


def test_the_file_of_the_usage_keeps_the_keys_states():
    client = RotatingClient(usage_file_path="key_usage.json")
    assert str(client._engine.snapshot.options.state).endswith("key_usage.json")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"model": "nobody-has-this"}, "nobody-has-this"),
        ({"model": None}, "None"),
        ({"messages": []}, "messages is empty"),
        ({"messages": None}, "messages"),
        ({"api_key": "sk-0123456789"}, r"RotatingClient\(api_keys"),
        ({"temprature": 1}, "temperature"),
        ({"stream_options": {"include_usage": True}}, "without stream=True"),
    ],
)
async def test_a_call_that_cannot_be(client, trial, wrong, said):
    with pytest.raises(LLMError, match=said):
        await client.acompletion(**{"model": "trial/large", "messages": HELLO, **wrong})
    assert trial.requests == []


@pytest.mark.parametrize(
    ("wrong", "said"), [({"n": 2}, "n is 2"), ({"stream": False}, "in pieces"), ({"stream_options": True}, "stream_options is a bool")]
)
async def test_a_stream_that_cannot_be(client, trial, wrong, said):
    with pytest.raises(InvalidRequestError, match=said):
        await client.astream(model="trial/large", messages=HELLO, **wrong)
    assert trial.requests == []


async def test_a_provider_that_there_is_not(client):
    with pytest.raises(ConfigurationError, match="did you mean 'trial'"):
        await client.get_available_models("trail")
    with pytest.raises(MissingApiKeyError, match="OPENAI_API_KEY"):
        await client.get_available_models("openai")


async def test_close_leaves_others_their_connections(client):
    async with QueryLLM():
        await client.acompletion(model="trial/large", messages=HELLO)
        await client.close()
        await client.acompletion(model="trial/large", messages=HELLO)
    async with client as entered:
        assert entered is client
        await client.acompletion(model="trial/large", messages=HELLO)


def test_the_sdk_is_loaded_at_the_first_answer_only():
    code = "import sys; from llm_master import RotatingClient; RotatingClient(); assert 'openai' not in sys.modules and 'pydantic' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent.parent)
