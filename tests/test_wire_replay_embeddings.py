"""What providers really answered to embedding requests, served again over real HTTP; and what they were really asked, said by ``embed``.

The vectors are read here a second time, from the format alone. The recordings are not part of the project; where their folder is
absent, this is skipped.
"""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from servers.scripted import ScriptedServer

from llm_master import ModelConfig, ModelRegistry, QueryLLM, ServerError
from llm_master.testing import FakeClock

WIRE = Path(__file__).resolve().parents[2] / "shared" / "wire"
KEY = "AIza-recorded-0123456789"

if not WIRE.is_dir():
    pytest.skip("the recordings are not here", allow_module_level=True)


def _recordings(provider: str, ending: str) -> list[Any]:
    found: dict[str, Any] = {}
    for line in (WIRE / f"{provider}.jsonl").read_text("utf-8").splitlines():
        recording = json.loads(line)
        if recording["url"].endswith(ending):
            found[recording["id"]] = recording
    return [pytest.param(recording, id=name) for name, recording in found.items()]


OPENAI = _recordings("openai", "/embeddings")
GEMINI = _recordings("gemini", ":batchEmbedContents")
VERTEX = _recordings("vertex", ":embedContent")
COHERE = _recordings("cohere", "/v2/embed")


def test_there_are_recordings_of_every_kind() -> None:
    assert (len(OPENAI), len(GEMINI) > 5, len(VERTEX), len(COHERE)) == (1, True, 1, 2)


@pytest.fixture
def llm(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> QueryLLM:
    for provider in ("OPENAI", "GEMINI", "VERTEX", "COHERE"):
        monkeypatch.setenv(f"{provider}_API_BASE", server.base_url)
        monkeypatch.setenv(f"{provider}_API_KEY", KEY)
    return QueryLLM(clock=FakeClock(auto_advance=True))


def in_32_bits(numbers: list[float]) -> list[float]:
    return list(struct.unpack(f"{len(numbers)}f", struct.pack(f"{len(numbers)}f", *numbers)))


@pytest.mark.parametrize("recording", OPENAI)
@pytest.mark.parametrize("encoding", ["given", "by default", "as numbers"])
async def test_openai(llm: QueryLLM, server: ScriptedServer, recording: dict[str, Any], encoding: str) -> None:
    request, response = recording["request"], json.loads(json.dumps(recording["response"]))
    packed = base64.b64decode(response["data"][0]["embedding"])
    expected = list(struct.unpack(f"<{len(packed) // 4}f", packed))
    assert len(expected) == request["dimensions"]
    if encoding == "as numbers":
        response["data"][0]["embedding"] = expected
    server.answer_json(response, headers=recording["headers"])
    more = {"encoding_format": request["encoding_format"]} if encoding == "given" else {}
    answer = await llm.embed(request["model"], request["input"], dimensions=request["dimensions"], **more)
    assert answer[0].tolist() == expected
    assert answer.usage.input_tokens == response["usage"]["prompt_tokens"]
    assert answer.raw == response and answer.receipt.attempts[0].model_served == response["model"]
    assert answer.cost == ModelRegistry.get_config("openai/" + request["model"]).input_price_per_million * 4 / 1_000_000
    assert server.request.json == request
    assert server.request.path == "/v1/embeddings" and server.request.headers["authorization"] == f"Bearer {KEY}"


def _options(said: dict[str, Any]) -> dict[str, Any]:
    """A recorded request's options, as a user of the library says them."""
    names = {"outputDimensionality": "dimensions", "taskType": "task_type"}
    return {names[name]: value for name, value in said.items() if name not in ("content", "model")}


@pytest.mark.parametrize("recording", GEMINI)
async def test_gemini(llm: QueryLLM, server: ScriptedServer, recording: dict[str, Any]) -> None:
    (request,), response = recording["request"]["requests"], recording["response"]
    model = request["model"].removeprefix("models/")
    ModelRegistry.register(f"gemini/{model}", ModelConfig(input_price_per_million=1_000_000))
    server.answer_json(response, headers=recording["headers"])
    answer = await llm.embed(model, request["content"]["parts"][0]["text"], **_options(request))
    assert [vector.tolist() for vector in answer] == [in_32_bits(found["values"]) for found in response["embeddings"]]
    # Not every model counts its tokens here, and what is not counted has no cost.
    counted = response.get("usageMetadata", {}).get("promptTokenCount")
    assert (answer.usage.input_tokens, answer.cost) == (counted, counted)
    assert answer.receipt.attempts[0].model_served is None, "it does not say"
    assert server.request.json == recording["request"]
    assert server.request.path == f"/v1/models/{model}:batchEmbedContents"
    assert server.request.headers["x-goog-api-key"] == KEY


async def test_gemini_in_batches(llm: QueryLLM, server: ScriptedServer) -> None:
    """100 a request is what the API takes."""
    recording = GEMINI[-1].values[0]
    vector = recording["response"]["embeddings"][0]
    texts = [f"text {number}" for number in range(300)]
    server.answer_json({"embeddings": [vector] * 100, "usageMetadata": {"promptTokenCount": 300}}, times=3)
    answer = await llm.embed("gemini-embedding-2", texts)
    sent = [[one["content"]["parts"][0]["text"] for one in request.json["requests"]] for request in server.requests]
    assert sorted(sent) == sorted(texts[start : start + 100] for start in (0, 100, 200))
    assert (len(answer), answer.usage.input_tokens) == (300, 900) and answer[299].tolist() == in_32_bits(vector["values"])


@pytest.mark.parametrize("recording", GEMINI[:1])
async def test_fewer_vectors_than_texts_are_garbage(llm: QueryLLM, server: ScriptedServer, recording: dict[str, Any]) -> None:
    server.answer_json(recording["response"], times=None)
    with pytest.raises(ServerError, match="1 vectors for 2 inputs"):
        await llm.embed("gemini/gemini-embedding-2-preview", ["a", "b"])


@pytest.mark.parametrize("recording", VERTEX)
async def test_vertex(llm: QueryLLM, server: ScriptedServer, recording: dict[str, Any]) -> None:
    request, response = recording["request"], recording["response"]
    model = recording["url"].rpartition("/")[2].partition(":")[0]
    server.answer_json(response, headers=recording["headers"], times=2)
    text = request["content"]["parts"][0]["text"]
    answer = await llm.embed(f"vertex/{model}", text)
    assert answer[0].tolist() == in_32_bits(response["embedding"]["values"])
    assert answer.usage.input_tokens == response["usageMetadata"]["promptTokenCount"]
    assert server.request.json == request
    assert server.request.path == f"/v1/models/{model}:embedContent"
    server.reset()
    server.answer_json(response, times=2)
    both = await llm.embed(f"vertex/{model}", [text, text])
    assert len(both) == 2 and both.usage.input_tokens == 2 * response["usageMetadata"]["promptTokenCount"]
    assert [sent.json for sent in server.requests] == [request, request], "that API takes one text a request"


@pytest.mark.parametrize("recording", COHERE)
async def test_cohere(llm: QueryLLM, server: ScriptedServer, recording: dict[str, Any]) -> None:
    """By its own API, at its own place, though the settings moved the provider: whoever moves it moves all of it."""
    request, response = recording["request"], recording["response"]
    said = {name: value for name, value in request.items() if value is not None}
    server.answer_json(response, headers=recording["headers"])
    answer = await llm.embed(f"cohere/{request['model']}", request["texts"], input_type=request["input_type"], truncate=request["truncate"])
    assert [vector.tolist() for vector in answer] == [in_32_bits(vector) for vector in response["embeddings"]["float"]]
    assert answer.usage.input_tokens == response["meta"]["billed_units"]["input_tokens"]
    assert answer.raw == response
    assert (server.request.path, server.request.json) == ("/v2/embed", said)
    assert server.request.headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("recording", COHERE[:1])
async def test_cohere_with_another_number_of_vectors(llm: QueryLLM, server: ScriptedServer, recording: dict[str, Any]) -> None:
    server.answer_json(recording["response"], times=None)
    with pytest.raises(ServerError, match="1 vectors for 2 inputs"):
        await llm.embed("cohere/embed-v4.0", ["a", "b"])
