"""Ollama's own API, by a stub of the documented shape: what goes out, and what is made of what comes back.

What all formats share is in ``test_contract.py``. Sources: https://docs.ollama.com/api/chat, .../api/tags, .../api/embed, .../api/errors.
"""

from __future__ import annotations

import base64
import json
import socket
from typing import Any

import attrs
import pytest
from servers.format_ollama import OLLAMA
from servers.formats import CHAT
from servers.scripted import ScriptedServer

from llm_master import (
    PROVIDER_CONFIGS,
    InvalidRequestError,
    LLMConfig,
    ModelNotFoundError,
    ProviderConnectionError,
    QueryLLM,
    ReasoningDelta,
    ServerError,
    StreamInterruptedError,
    Usage,
)
from llm_master.row_classes import provider_class
from llm_master.testing import FakeClock

TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {"at": {"type": "string"}}}}}
NDJSON = {"content-type": "application/x-ndjson"}
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}


@pytest.fixture
def llm(server: ScriptedServer) -> QueryLLM:
    return QueryLLM(LLMConfig(environment={"OLLAMA_HOST": server.url}, clock=FakeClock(auto_advance=True)))


async def sent(llm: QueryLLM, server: ScriptedServer, **options: Any) -> Any:
    """The body that a call with these options sends."""
    server.answer_json(OLLAMA.answer("Yes."))
    await llm.query("ollama_chat/qwen3:0.6b", **{"prompt": "Hi", **options})
    return server.requests[-1].json


# Where it goes


async def test_the_tag_survives_beside_the_compatible_endpoint(llm: QueryLLM, server: ScriptedServer) -> None:
    """Both rows find the server by OLLAMA_HOST, and neither sends a key that is not there."""
    server.answer_json(OLLAMA.answer("Own."))
    server.answer_json(CHAT.answer("Compatible."))
    server.answer_json(OLLAMA.answer("Own."))
    assert str(await llm.query("ollama_chat/llama3.2:latest", prompt="Hi")) == "Own."
    assert str(await llm.query("ollama/llama3.2:latest", prompt="Hi")) == "Compatible."
    assert str(await llm.query("ollama-chat:hf.co/org/model:Q4_K_M", prompt="Hi")) == "Own."
    assert [(request.path, request.json["model"]) for request in server.requests] == [
        ("/api/chat", "llama3.2:latest"),
        ("/v1/chat/completions", "llama3.2:latest"),
        ("/api/chat", "hf.co/org/model:Q4_K_M"),
    ]
    assert not any("authorization" in request.headers for request in server.requests)


@pytest.mark.parametrize("ending", ["", "/", "/v1", "/api", "/proxy", "/proxy/api/"])
async def test_the_addresss_own_ending_does_not_matter(server: ScriptedServer, ending: str) -> None:
    llm = QueryLLM(LLMConfig(environment={"OLLAMA_CHAT_API_BASE": server.url + ending, "OLLAMA_API_KEY": "ollama-key-0123456789"}))
    server.answer_json(OLLAMA.answer("Yes."))
    await llm.query("ollama_chat/m", prompt="Hi")
    assert server.request.path == ("/proxy" if "proxy" in ending else "") + "/api/chat"
    assert server.request.headers["authorization"] == "Bearer ollama-key-0123456789"


async def test_the_cloud_by_its_key() -> None:
    llm = QueryLLM(LLMConfig(environment={"OLLAMA_HOST": "https://ollama.com", "OLLAMA_API_KEY": "ollama-key-0123456789"}))
    assert llm.plan("ollama_chat/gpt-oss:120b", prompt="Hi").url == "https://ollama.com/api/chat"


# Options


async def test_openais_options_in_its_words(llm: QueryLLM, server: ScriptedServer) -> None:
    body = await sent(llm, server, max_tokens=5, temperature=0, top_p=0.5, stop="END", seed=1, n=1, frequency_penalty=0.5)
    assert body == {
        "model": "qwen3:0.6b",
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": False,
        "options": {"num_predict": 5, "temperature": 0, "top_p": 0.5, "stop": ["END"], "seed": 1, "frequency_penalty": 0.5},
    }


async def test_its_own_options_go_where_they_belong(llm: QueryLLM, server: ScriptedServer) -> None:
    body = await sent(llm, server, keep_alive="10m", num_ctx=8192, options={"num_gpu": 1}, truncate=False, logprobs=True, top_logprobs=2)
    assert (body["keep_alive"], body["truncate"], body["logprobs"], body["top_logprobs"]) == ("10m", False, True, 2)
    assert body["options"] == {"num_ctx": 8192, "num_gpu": 1}
    assert (await sent(llm, server, keep_alive=0))["keep_alive"] == 0
    with pytest.raises(InvalidRequestError, match="options is 'num_ctx=1'"):
        await llm.query("ollama_chat/m", prompt="Hi", options="num_ctx=1")


async def test_what_the_server_would_pass_over_is_refused(llm: QueryLLM, server: ScriptedServer) -> None:
    for option in ({"num_cxt": 8192}, {"user": "me"}, {"parallel_tool_calls": False}, {"tools": [TOOL], "tool_choice": "required"}):
        with pytest.raises(InvalidRequestError, match=list(option)[-1]):
            await llm.query("ollama_chat/m", prompt="Hi", **option)
    assert server.requests == []
    assert (await sent(llm, server, extra_body={"new_word": 1}))["new_word"] == 1


async def test_no_tool_is_to_be_called(llm: QueryLLM, server: ScriptedServer) -> None:
    for options in ({"tools": [TOOL], "tool_choice": "none"}, {"tool_choice": "none", "tools": [TOOL]}):
        assert "tools" not in await sent(llm, server, **options)
    assert (await sent(llm, server, tools=[TOOL], tool_choice="auto"))["tools"] == [TOOL]


@pytest.mark.parametrize(("effort", "think"), [("none", False), ("minimal", "low"), ("medium", "medium"), ("xhigh", "max")])
async def test_effort_is_how_it_thinks(llm: QueryLLM, server: ScriptedServer, effort: str, think: Any) -> None:
    assert (await sent(llm, server, reasoning_effort=effort))["think"] == think
    assert (await sent(llm, server, think=True))["think"] is True
    with pytest.raises(InvalidRequestError, match="reasoning_effort"):
        await llm.query("ollama_chat/m", prompt="Hi", reasoning_effort="huge")


async def test_a_form(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_json(OLLAMA.answer('{"n": 7}'), times=3)
    assert (await llm.query("ollama_chat/m", prompt="Hi", response_format=SCHEMA)).parsed == {"n": 7}
    assert (await llm.query("ollama_chat/m", prompt="Hi, JSON", response_format={"type": "json_object"})).parsed == {"n": 7}
    beside_tools = await llm.query("ollama_chat/m", prompt="Hi", response_format=SCHEMA, tools=[TOOL])
    schema, any_object, in_words = (request.json for request in server.requests)
    assert (schema["format"], any_object["format"]) == (SCHEMA, "json")
    # It would hold for every word, and no tool could be called.
    assert "format" not in in_words and beside_tools.receipt.structured_output == "prompt"
    assert beside_tools.parsed == {"n": 7}


# Messages


async def test_images_stand_beside_the_text(llm: QueryLLM, server: ScriptedServer) -> None:
    png = base64.b64encode(b"\x89PNG\r\n\x1a\n0123").decode()
    content = ["One.", {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{png}"}}, {"type": "text", "text": "Two."}]
    body = await sent(llm, server, prompt=None, messages=[{"role": "user", "content": content}])
    assert body["messages"] == [{"role": "user", "content": "One.\nTwo.", "images": [png]}]
    url = {"type": "image_url", "image_url": {"url": "https://pictures.example/a.png"}}
    plan = llm.plan("ollama_chat/m", [{"role": "user", "content": [url]}])
    assert plan.body["messages"][0]["images"] == ["https://pictures.example/a.png"], "which only the call itself fetches"


async def test_calls_get_ids_and_results_their_names(llm: QueryLLM, server: ScriptedServer) -> None:
    calls = (("", "look", {"at": "x"}), ("", "look", {"at": "y"}))
    server.answer_json(OLLAMA.answer("", calls))
    first = await llm.query("ollama_chat/m", prompt="Hi", tools=[TOOL])
    one, two = first.tool_calls
    assert one.id and two.id and one.id != two.id
    assert first.finish_reason == "tool_calls"
    results = [{"role": "tool", "tool_call_id": call.id, "content": call.arguments["at"]} for call in first.tool_calls]
    body = await sent(llm, server, prompt=None, messages=[{"role": "user", "content": "Hi"}, first.message, *results], tools=[TOOL])
    _, assistant, *answers = body["messages"]
    assert [call["function"] for call in assistant["tool_calls"]] == [
        {"index": 0, "name": "look", "arguments": {"at": "x"}},
        {"index": 1, "name": "look", "arguments": {"at": "y"}},
    ]
    assert [(answer["tool_name"], answer["content"]) for answer in answers] == [("look", "x"), ("look", "y")]
    assert [answer["tool_call_id"] for answer in answers] == [one.id, two.id] == [call["id"] for call in assistant["tool_calls"]]


async def test_an_id_that_the_server_gives_is_kept(llm: QueryLLM, server: ScriptedServer) -> None:
    body = OLLAMA.answer("", (("", "look", {}),))
    body["message"]["tool_calls"][0]["id"] = "call_7"
    body["message"]["tool_calls"] += [None, {"id": "x"}, {"function": {"name": "look", "arguments": '{"at": 1}'}}]
    server.answer_json(body)
    first, second = (await llm.query("ollama_chat/m", prompt="Hi")).tool_calls
    assert (first.id, first.arguments, second.arguments) == ("call_7", {}, {"at": 1})


@pytest.mark.parametrize("streamed", [False, True])
async def test_thoughts_go_back(llm: QueryLLM, server: ScriptedServer, streamed: bool) -> None:
    if streamed:
        server.answer_sse(*OLLAMA.stream("Ye", "s.", thinking="Why not?"), headers=NDJSON)
        async with llm.stream("ollama_chat/m", prompt="Hi", think=True) as stream:
            events = [event async for event in stream.events()]
        assert "".join(event.text for event in events if isinstance(event, ReasoningDelta)) == "Whynot?"
        answer = stream.response
    else:
        server.answer_json(OLLAMA.answer("Yes.", thinking="Whynot?"))
        answer = await llm.query("ollama_chat/m", prompt="Hi", think=True)
    assert (answer.content, answer.reasoning) == ("Yes.", "Whynot?")
    message = json.loads(json.dumps(answer.message))
    body = await sent(llm, server, prompt=None, messages=[{"role": "user", "content": "a"}, message, {"role": "user", "content": "b"}])
    assert body["messages"][1] == {"role": "assistant", "content": "Yes.", "thinking": "Whynot?"}


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
        await llm.query("ollama_chat/m", [{"role": "user", "content": "Hi"}, message])
    assert server.requests == []


# Answers


@pytest.mark.parametrize(
    ("wire", "usage"),
    [
        ({"prompt_eval_count": 3, "eval_count": 2}, Usage(3, 2)),
        ({"eval_count": 2}, Usage(None, 2)),  # the prompt was in its cache
        ({"prompt_eval_count": 3.0, "eval_count": "2"}, Usage(3, 2)),
        ({"prompt_eval_count": True, "eval_count": "many"}, Usage()),
        ({}, Usage()),
    ],
)
async def test_a_count_that_is_left_out_is_not_known(llm: QueryLLM, server: ScriptedServer, wire: Any, usage: Usage) -> None:
    said = {"model": "m", "message": {"content": "Yes."}, "done": True, "done_reason": "stop", **wire}
    server.answer_json(said)
    server.answer_sse(json.dumps({**said, "done": False, "x": 1}) + "\n", json.dumps({"done": True, **wire}), headers=NDJSON)
    answer = await llm.query("ollama_chat/m", prompt="Hi")
    async with llm.stream("ollama_chat/m", prompt="Hi") as stream:
        assert [piece async for piece in stream] == ["Yes."]
    assert answer.usage == stream.response.usage == usage
    assert answer.cost is None
    assert answer.raw == said


@pytest.mark.parametrize(("theirs", "ours"), [("length", "length"), ("load", "load"), ("unload", "unload"), (None, None)])
async def test_why_it_stopped(llm: QueryLLM, server: ScriptedServer, theirs: str | None, ours: str | None) -> None:
    server.answer_json({"model": "m", "message": {"role": "assistant", "content": ""}, "done": True, "done_reason": theirs})
    assert (await llm.query("ollama_chat/m", prompt="Hi")).finish_reason == ours


async def test_an_error_in_mid_stream(llm: QueryLLM, server: ScriptedServer) -> None:
    error = {"error": "an error was encountered while running the model: CUDA error"}
    server.answer_sse(*OLLAMA.stream("Hello", " you")[:2], json.dumps(error) + "\n", headers=NDJSON)
    with pytest.raises(StreamInterruptedError, match="CUDA error") as caught:
        async with llm.stream("ollama_chat/m", prompt="Hi") as stream:
            async for _ in stream:
                pass
    assert caught.value.response is not None and caught.value.response.content == "Hello you"


async def test_a_line_that_is_none(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_sse(OLLAMA.stream("Hello")[0], "data: what\n", headers=NDJSON)
    with pytest.raises(StreamInterruptedError, match="cannot be read"):
        async with llm.stream("ollama_chat/m", prompt="Hi") as stream:
            async for _ in stream:
                pass


# Failures that a user of a server of their own meets


@pytest.mark.parametrize("name", ["llama3.2", "qwen3:0.6b"])
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_model_that_is_not_there_is_to_be_pulled(llm: QueryLLM, server: ScriptedServer, name: str, streamed: bool) -> None:
    server.answer_json({"error": f"model '{name}' not found"}, status=404)
    with pytest.raises(ModelNotFoundError, match=f"`ollama pull {name}`") as caught:
        if streamed:
            await llm.stream(f"ollama_chat/{name}", prompt="Hi").connect()
        else:
            await llm.query(f"ollama_chat/{name}", prompt="Hi")
    assert (caught.value.status, caught.value.model, caught.value.provider) == (404, name, "ollama_chat")
    assert "base_url" not in str(caught.value)


async def test_an_address_that_is_no_ollama(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer("404 page not found", status=404, headers={"content-type": "text/plain"})
    with pytest.raises(ModelNotFoundError, match="is base_url right") as caught:
        await llm.query("ollama_chat/m", prompt="Hi")
    assert "pull" not in str(caught.value)


async def test_a_server_that_does_not_run_is_to_be_started() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    llm = QueryLLM(LLMConfig(environment={"OLLAMA_HOST": address}, clock=FakeClock(auto_advance=True)))
    for ask in (
        llm.query("ollama_chat/m", prompt="Hi"),
        llm.stream("ollama_chat/m", prompt="Hi").connect(),
        llm.embed("ollama_chat/m", "a"),
    ):
        with pytest.raises(ProviderConnectionError, match=f"no connection to {address}.*`ollama serve`.*OLLAMA_HOST"):
            await ask
    assert llm.config.validate()["ollama_chat"] is True, "whether it runs is not asked"


async def test_a_connection_that_breaks_says_nothing_of_starting(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer(framing="raw", end="close", times=None)
    with pytest.raises(ProviderConnectionError) as caught:
        await llm.query("ollama_chat/m", prompt="Hi")
    assert "ollama serve" not in str(caught.value)


# Models and embeddings


async def test_models_are_those_on_the_server(server: ScriptedServer) -> None:
    server.answer_json({"models": [{"name": "deepseek-r1:latest", "model": "deepseek-r1:latest", "size": 1}, {"name": "llama3.2:latest"}]})
    server.answer_json({"models": []})
    row = PROVIDER_CONFIGS["ollama_chat"]
    provider = provider_class(row)(attrs.evolve(row, base_url=server.url))
    assert await provider.list_models() == ["deepseek-r1:latest", "llama3.2:latest"]
    assert await provider.health_check() is True
    assert [request.path for request in server.requests] == ["/api/tags", "/api/tags"]


async def test_vectors(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_json({"model": "all-minilm", "embeddings": [[0.5, 1], [0.25, 2]], "prompt_eval_count": 8})
    answer = await llm.embed("ollama_chat/all-minilm", ["a", "b"], dimensions=2, truncate=False, keep_alive="1m")
    assert [vector.tolist() for vector in answer] == [[0.5, 1], [0.25, 2]]
    assert server.request.path == "/api/embed"
    asked = {"model": "all-minilm", "input": ["a", "b"], "dimensions": 2, "truncate": False, "keep_alive": "1m"}
    assert server.request.json == asked
    assert (answer.usage.input_tokens, answer.model_name) == (8, "ollama_chat/all-minilm")
    with pytest.raises(InvalidRequestError, match="encoding_format"):
        await llm.embed("ollama_chat/m", "a", encoding_format="base64")
    server.answer_json({"embeddings": [[1]]}, times=None)
    with pytest.raises(ServerError, match="1 vectors for 2 inputs"):
        await llm.embed("ollama_chat/m", ["a", "b"])
