"""A real inference server, llama.cpp's, with models that answer predictably: see ``servers/llama.py``."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import urllib.request
from typing import Any

import openai
import pytest
from servers.llama import CONTEXT, SENTENCE, SLOTS, LlamaServer
from servers.scripted import eventually

from llm_master import (
    PROVIDER_CONFIGS,
    AuthenticationError,
    ContextWindowExceededError,
    InvalidRequestError,
    LLMResponse,
    ProviderConfig,
    ProviderConnectionError,
    QueryLLM,
    ServerError,
    extract_prompt,
)

pytestmark = pytest.mark.servers

ENDLESS = {"temperature": 0, "ignore_eos": True, "max_tokens": CONTEXT - 100}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Paris", "Rome"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


@pytest.fixture
def model(llama: LlamaServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """The reciting model, reached by setting one variable."""
    monkeypatch.setenv("LLAMACPP_API_BASE", llama.base_url)
    return "llamacpp/tiny"


async def test_one_variable_is_enough(model: str, llama: LlamaServer) -> None:
    answer = await QueryLLM().query(model_name=model, prompt="What do you say?", temperature=0)
    assert answer.content == str(answer) == SENTENCE
    assert answer.finish_reason == "stop"
    assert answer.model_name == model
    assert answer.provider == "llamacpp"
    assert answer.usage.output_tokens == len(SENTENCE.split()) + 1  # the word tokens, and the one that ends
    assert answer.usage.input_tokens == _tokens(llama, [{"role": "user", "content": "What do you say?"}])
    assert answer.cost is None and answer.usage.cost is None
    assert answer.latency is not None and answer.latency > 0
    assert answer.raw["object"] == "chat.completion"
    (attempt,) = answer.receipt.attempts
    assert (attempt.provider, attempt.model, attempt.model_served, attempt.status) == ("llamacpp", "tiny", "tiny", 200)
    assert attempt.key is None and attempt.error is None
    assert (answer.receipt.cost, answer.receipt.cost_state) == (None, "unknown")


async def test_one_row_is_enough(llama: LlamaServer) -> None:
    PROVIDER_CONFIGS["attic"] = ProviderConfig(base_url=llama.base_url, prefixes=("attic-",), requires_key=False)
    by_name = await QueryLLM().query(model_name="attic/tiny", prompt="hi", temperature=0)
    by_prefix = await QueryLLM().query(model_name="attic-any", prompt="hi", temperature=0)
    assert by_name.content == by_prefix.content == SENTENCE
    assert by_name.provider == by_prefix.provider == "attic"


async def test_the_default_model_of_the_provider(model: str) -> None:
    assert (await QueryLLM().query(model_name="llamacpp", prompt="hi", temperature=0)).content == SENTENCE


async def test_max_tokens_ends_it_with_length(model: str) -> None:
    answer = await QueryLLM().query(model_name=model, prompt="hi", temperature=0, max_tokens=5)
    assert (answer.content, answer.finish_reason, answer.usage.output_tokens) == ("Hello from a tiny model:", "length", 5)


async def test_a_stream_is_the_whole_answer_in_pieces(model: str) -> None:
    async with QueryLLM() as llm:
        whole = await llm.query(model_name=model, prompt="hi", temperature=0)
        async with llm.stream(model_name=model, prompt="hi", temperature=0) as stream:
            pieces = [piece async for piece in stream]
    assert len(pieces) > 5
    assert "".join(pieces) == stream.response.content == whole.content
    assert stream.response.finish_reason == "stop"
    assert (stream.response.usage.input_tokens, stream.response.usage.output_tokens) == (
        whole.usage.input_tokens,
        whole.usage.output_tokens,
    )
    (attempt,) = stream.response.receipt.attempts
    assert attempt.status == 200
    assert attempt.first_delta is not None and attempt.latency is not None and attempt.first_delta <= attempt.latency


async def test_query_with_stream_true(model: str) -> None:
    stream = await QueryLLM().query(model_name=model, prompt="hi", temperature=0, stream=True)
    assert "".join([piece async for piece in stream]) == SENTENCE
    assert stream.response.usage.output_tokens == len(SENTENCE.split()) + 1


async def test_tool_calls_whole_and_streamed(model: str) -> None:
    arguments: dict[str, Any] = {"model_name": model, "prompt": "hi", "tools": [WEATHER], "tool_choice": "required", "temperature": 0}
    async with QueryLLM() as llm:
        answer = await llm.query(**arguments)
        async with llm.stream(**arguments) as stream:
            text = [piece async for piece in stream]
    assert answer.finish_reason == stream.response.finish_reason == "tool_calls"
    for call in (answer.tool_calls[0], stream.response.tool_calls[0]):
        assert call.name == "get_weather"
        assert call.arguments["city"] in ("Paris", "Rome")
        assert call.id and call.error is None
    assert [call.arguments for call in stream.response.tool_calls] == [call.arguments for call in answer.tool_calls]
    assert text == [] and answer.content == ""


async def test_a_tools_result_goes_back_to_the_model(model: str, llama: LlamaServer) -> None:
    """The model's template writes id, name, arguments and result into the prompt, so its length tells what arrived."""
    async with QueryLLM() as llm:
        messages: list[Any] = [{"role": "user", "content": "Is it warm?"}]
        asked = await llm.query(model_name=model, messages=messages, tools=[WEATHER], tool_choice="required", temperature=0)
        call = asked.tool_calls[0]
        messages += [asked.message, {"role": "tool", "tool_call_id": call.id, "content": "warm"}]
        answer = await llm.query(model_name=model, messages=messages, temperature=0)
    assert answer.content == SENTENCE
    rendered = _rendered(llama, messages)
    assert f"<|call|>{call.id} get_weather" in rendered and f"<|tool|>warm for {call.id}<|end|>" in rendered
    assert answer.usage.input_tokens == _tokens(llama, messages)


async def test_a_json_schema_is_kept(model: str) -> None:
    schema = {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"], "additionalProperties": False}
    answer = await QueryLLM().query(
        model_name=model,
        prompt="Where?",
        response_format={"type": "json_schema", "json_schema": {"name": "place", "schema": schema}},
        temperature=0,
    )
    assert json.loads(answer.content)["city"] in ("Paris", "Rome")


async def test_a_wrong_value_is_an_invalid_request(model: str) -> None:
    with pytest.raises(InvalidRequestError, match="temperature") as caught:
        await QueryLLM().query(model_name=model, prompt="hi", temperature="warm")
    assert caught.value.status == 400
    assert caught.value.provider == "llamacpp" and "llamacpp" in str(caught.value)
    assert len(caught.value.receipt.attempts) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_too_long_a_prompt_exceeds_the_context_window(model: str, stream: bool) -> None:
    with pytest.raises(ContextWindowExceededError, match=str(CONTEXT)) as caught:
        await QueryLLM().query(model_name=model, prompt="hi " * CONTEXT, stream=stream)
    assert caught.value.status == 400
    assert len(caught.value.receipt.attempts) == 1


async def test_with_its_key(llama_with_key: LlamaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMACPP_API_BASE", llama_with_key.base_url)
    monkeypatch.setenv("LLAMACPP_API_KEY", str(llama_with_key.api_key))
    answer = await QueryLLM().query(model_name="llamacpp/tiny", prompt="hi", temperature=0, max_tokens=20)
    assert len(answer.content) >= 10
    assert answer.usage.output_tokens == 20
    assert answer.receipt.attempts[0].key == f"LLAMACPP_API_KEY …{llama_with_key.api_key[-4:]}"
    assert str(llama_with_key.api_key) not in repr(answer.receipt)


@pytest.mark.parametrize("key", ["sk-wrong-0123456789", None])
async def test_without_the_right_key(llama_with_key: LlamaServer, monkeypatch: pytest.MonkeyPatch, key: str | None) -> None:
    monkeypatch.setenv("LLAMACPP_API_BASE", llama_with_key.base_url)
    if key:
        monkeypatch.setenv("LLAMACPP_API_KEY", key)
    with pytest.raises(AuthenticationError) as caught:
        await QueryLLM().query(model_name="llamacpp/tiny", prompt="hi")
    assert caught.value.status == 401
    assert len(caught.value.receipt.attempts) == 1
    assert "sk-wrong-0123456789" not in f"{caught.value!r} {caught.value.receipt!r}"


async def test_no_server_there(monkeypatch: pytest.MonkeyPatch, unused_port: int) -> None:
    PROVIDER_CONFIGS["nobody"] = {"base_url": f"http://127.0.0.1:{unused_port}/v1", "requires_key": False, "max_retries": 0}
    with pytest.raises(ProviderConnectionError, match=f"127.0.0.1:{unused_port}") as caught:
        await QueryLLM().query(model_name="nobody/tiny", prompt="hi")
    assert caught.value.status is None
    assert len(caught.value.receipt.attempts) == 1


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_a_cancelled_query_frees_its_slot(model: str, llama: LlamaServer) -> None:
    async with QueryLLM() as llm:
        task = asyncio.create_task(llm.query(model_name=model, prompt="on and on", **ENDLESS))
        assert await eventually(lambda: llama.busy_slots() == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await eventually(lambda: llama.busy_slots() == 0)
        assert (await llm.query(model_name=model, prompt="hi", temperature=0)).content == SENTENCE


async def test_a_cancelled_stream_frees_its_slot(model: str, llama: LlamaServer) -> None:
    began = asyncio.Event()

    async def listen() -> None:
        async with llm.stream(model_name=model, prompt="on and on", **ENDLESS) as stream:
            async for _ in stream:
                began.set()
                await asyncio.Event().wait()

    async with QueryLLM() as llm:
        task = asyncio.create_task(listen())
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await eventually(lambda: llama.busy_slots() == 0)
        assert (await llm.query(model_name=model, prompt="hi", temperature=0)).content == SENTENCE


async def test_a_stopped_stream_keeps_what_came_and_frees_its_slot(model: str, llama: LlamaServer) -> None:
    async with QueryLLM() as llm:
        stream = llm.stream(model_name=model, prompt="on and on", **ENDLESS)
        pieces = []
        async for piece in stream:
            pieces.append(piece)
            if len(pieces) == 5:
                await stream.stop()
        assert len(pieces) == 5
        assert stream.response.content == "".join(pieces)
        assert stream.response.cost is None
        assert "stopped" in stream.response.receipt.attempts[0].then
        assert await eventually(lambda: llama.busy_slots() == 0)
        assert (await llm.query(model_name=model, prompt="hi", temperature=0)).content == SENTENCE


async def test_abandoned_streams_free_their_slots(model: str, llama: LlamaServer) -> None:
    async with QueryLLM() as llm:
        for _ in range(2 * SLOTS):  # with a slot lost each time, the server would stand still
            async for piece in llm.stream(model_name=model, prompt="on and on", **ENDLESS):
                assert piece
                break
        assert await eventually(lambda: llama.busy_slots() == 0)


async def test_fifty_at_once(model: str) -> None:
    async with QueryLLM() as llm:
        answers = await asyncio.gather(*(llm.query(model_name=model, prompt=f"hi {n}", temperature=0) for n in range(50)))
    assert [answer.content for answer in answers] == [SENTENCE] * 50
    assert all(len(answer.receipt.attempts) == 1 for answer in answers)


async def test_many_streams_at_once(model: str) -> None:
    async def listen(n: int) -> str:
        async with llm.stream(model_name=model, prompt=f"hi {n}", temperature=0) as stream:
            return "".join([piece async for piece in stream])

    async with QueryLLM() as llm:
        assert await asyncio.gather(*(listen(n) for n in range(20))) == [SENTENCE] * 20


def test_query_sync(model: str) -> None:
    llm = QueryLLM()
    assert llm.query_sync(model, prompt="hi", temperature=0).content == SENTENCE
    assert llm.query_sync(model_name=model, messages=[{"role": "user", "content": "hi"}], temperature=0).content == SENTENCE


async def test_query_sync_inside_a_running_loop(model: str) -> None:
    assert QueryLLM().query_sync(model, prompt="hi", temperature=0).content == SENTENCE


def test_asyncio_run_twice_with_one_object(model: str) -> None:
    llm = QueryLLM()

    async def ask() -> tuple[str, str]:
        whole = await llm.query(model_name=model, prompt="hi", temperature=0)
        async with llm.stream(model_name=model, prompt="hi", temperature=0) as stream:
            return whole.content, "".join([piece async for piece in stream])

    assert asyncio.run(ask()) == (SENTENCE, SENTENCE)
    assert asyncio.run(ask()) == (SENTENCE, SENTENCE)


def test_two_threads_share_one_object(model: str) -> None:
    llm = QueryLLM()
    answers: list[list[str]] = []
    together = threading.Barrier(2)

    async def ask() -> list[str]:
        found = await asyncio.gather(*(llm.query(model_name=model, prompt="hi", temperature=0) for _ in range(10)))
        return [answer.content for answer in found]

    def work() -> None:
        together.wait(10)
        answers.append(asyncio.run(ask()))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [[SENTENCE] * 10] * 2


class Tracing(openai.AsyncOpenAI):
    """A client as a tracing library wraps it: it wants to see every call."""

    seen: list[str] = []  # noqa: RUF012

    async def request(self, *arguments: Any, **options: Any) -> Any:
        Tracing.seen.append("stream" if options.get("stream") else "whole")
        return await super().request(*arguments, **options)


async def test_a_clients_subclass_gets_every_call(llama: LlamaServer) -> None:
    Tracing.seen = []
    PROVIDER_CONFIGS["traced"] = ProviderConfig(base_url=llama.base_url, requires_key=False, client_class=Tracing)
    async with QueryLLM() as llm:
        answer = await llm.query(model_name="traced/tiny", prompt="hi", temperature=0)
        async with llm.stream(model_name="traced/tiny", prompt="hi", temperature=0) as stream:
            text = "".join([piece async for piece in stream])
        tools = await llm.query(model_name="traced/tiny", prompt="hi", temperature=0, tools=[WEATHER], tool_choice="required", top_k=1)
        with pytest.raises(ContextWindowExceededError) as caught:
            await llm.query(model_name="traced/tiny", prompt="hi " * CONTEXT)
    assert Tracing.seen == ["whole", "stream", "whole", "whole"]
    assert answer.content == text == SENTENCE
    assert answer.usage == stream.response.usage
    assert (answer.finish_reason, stream.response.finish_reason) == ("stop", "stop")
    assert tools.tool_calls[0].name == "get_weather"
    assert (caught.value.status, caught.value.provider) == (400, "traced")


async def test_a_stopped_stream_of_a_clients_subclass_frees_its_slot(llama: LlamaServer) -> None:
    PROVIDER_CONFIGS["traced"] = ProviderConfig(base_url=llama.base_url, requires_key=False, client_class=Tracing)
    stream = QueryLLM().stream(model_name="traced/tiny", prompt="on and on", **ENDLESS)
    async for _ in stream:
        await stream.stop()
    assert stream.response.content
    assert await eventually(lambda: llama.busy_slots() == 0)


async def _recite(provider: Any, messages: Any, model: str, **options: Any) -> LLMResponse:
    completion = await provider.client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": extract_prompt(messages)}], temperature=0, **options
    )
    return LLMResponse(f"{model}: {completion.choices[0].message.content}", model)


async def test_a_generator_has_the_providers_client(llama_with_key: LlamaServer) -> None:
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url=llama_with_key.base_url, generate_map={"acme-recite": _recite})
    async with QueryLLM(acme_api_key=llama_with_key.api_key) as llm:
        answer = await llm.query(model_name="acme-recite", prompt="hi", max_tokens=10)
    assert answer.content.startswith("acme-recite: ") and len(answer.content) > len("acme-recite: ")
    assert (answer.provider, answer.model_name) == ("acme", "acme-recite")
    assert answer.receipt.attempts[0].key.endswith(llama_with_key.api_key[-4:])


async def test_an_exception_of_the_sdk_is_translated(llama_with_key: LlamaServer) -> None:
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url=llama_with_key.base_url, generate_map={"acme-recite": _recite})
    with pytest.raises(AuthenticationError) as caught:
        await QueryLLM(acme_api_key="sk-wrong-0123456789").query(model_name="acme-recite", prompt="hi")
    assert (caught.value.status, caught.value.provider) == (401, "acme")
    assert isinstance(caught.value.__cause__, openai.AuthenticationError)
    assert len(caught.value.receipt.attempts) == 1
    assert "sk-wrong-0123456789" not in f"{caught.value!r} {caught.value.receipt!r}"


async def test_the_sdk_repeats_nothing_by_itself(unused_port: int) -> None:
    sent = []

    async def ask(provider: Any, messages: Any, model: str, **options: Any) -> LLMResponse:
        sent.append(model)
        return await _recite(provider, messages, model)

    PROVIDER_CONFIGS["nobody"] = ProviderConfig(
        base_url=f"http://127.0.0.1:{unused_port}/v1", requires_key=False, max_retries=0, generate_map={"nobody-x": ask}
    )
    with pytest.raises(ProviderConnectionError) as caught:
        await QueryLLM().query(model_name="nobody-x", prompt="hi")
    assert sent == ["nobody-x"]
    assert caught.value.provider == "nobody"


async def test_the_servers_own_failure_is_a_server_error(llama: LlamaServer) -> None:
    """It answers 500 where a model with tools writes no JSON, which this one never does by itself."""
    PROVIDER_CONFIGS["attic"] = ProviderConfig(base_url=llama.base_url, requires_key=False, max_retries=0)
    with pytest.raises(ServerError) as caught:
        await QueryLLM().query(model_name="attic/tiny", prompt="hi", tools=[WEATHER], temperature=0)
    assert caught.value.status == 500


def _post(llama: LlamaServer, path: str, content: Any) -> Any:
    request = urllib.request.Request(llama.url + path, json.dumps(content).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def _rendered(llama: LlamaServer, messages: Any) -> str:
    return str(_post(llama, "/apply-template", {"messages": messages})["prompt"])


def _tokens(llama: LlamaServer, messages: Any) -> int:
    """Tokens of the prompt, counted by the server itself beside the library."""
    return len(_post(llama, "/tokenize", {"content": _rendered(llama, messages), "add_special": True, "parse_special": True})["tokens"])
