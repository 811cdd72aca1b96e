"""What each row claims, in ``ProviderConfig.capabilities``, is carried: docs/providers.md says it, and here it is done.

Chat, streaming and tools are the business of ``test_contract.py``, the whole conversation that of ``test_conversation.py``.
"""

from __future__ import annotations

import base64
from typing import Any

import attrs
import pytest
from servers import media
from servers.formats import format_of
from servers.scripted import ScriptedServer

from llm_master import PROVIDER_CONFIGS, LLMConfig, QueryLLM
from llm_master.row_checks import PROVIDER_CAPABILITIES
from llm_master.rows import base_variable, key_variables
from llm_master.row_classes import provider_class
from llm_master.testing import FakeClock

KEY = "sk-claimed-0123456789"
PDF = b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"
WAV = b"RIFF\x24\x00\x00\x00WAVEfmt \x10\x00\x00\x00" + bytes(24)
MP4 = b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom" + bytes(8)
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
ELSEWHERE = {"mock": "in this process", "gguf": "in a process of ours: tests/test_gguf.py"}
"""Rows that are not asked over HTTP, and where they are."""


def claiming(*words: str) -> list[str]:
    return [name for name, row in PROVIDER_CONFIGS.items() if set(words) <= set(row.capabilities) and name not in ELSEWHERE]


def over(name: str, server: ScriptedServer) -> QueryLLM:
    row = PROVIDER_CONFIGS[name]
    environment = {base_variable(row): server.base_url, format_of(name).key_variable or key_variables(row)[0]: KEY}
    environment |= format_of(name).environment
    return QueryLLM(LLMConfig(environment=environment, clock=FakeClock(auto_advance=True)))


def has_key(request: Any) -> bool:
    return any(KEY in value for value in request.headers.values())


def uri(data: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def base64_of(data: bytes) -> bytes:
    return base64.b64encode(data)


PARTS = {
    "vision": (media.PNG, {"type": "image_url", "image_url": {"url": uri(media.PNG, "image/png")}}),
    "pdf": (PDF, {"type": "file", "file": {"filename": "a.pdf", "file_data": uri(PDF, "application/pdf")}}),
    "audio_input": (WAV, {"type": "input_audio", "input_audio": {"data": base64.b64encode(WAV).decode(), "format": "wav"}}),
    "video_input": (MP4, {"type": "file", "file": {"filename": "a.mp4", "file_data": uri(MP4, "video/mp4")}}),
}


@pytest.mark.parametrize(("word", "name"), [(word, name) for word in PARTS for name in claiming(word)])
async def test_media_reach_the_provider(word: str, name: str, server: ScriptedServer) -> None:
    data, part = PARTS[word]
    server.answer_json(format_of(name).answer("Seen."))
    content = [{"type": "text", "text": "What is this?"}, part]
    answer = await over(name, server).query(f"{name}/any-model", [{"role": "user", "content": content}])
    assert answer.content == "Seen."
    assert base64_of(data) in server.request.body


THINKERS = {"bedrock": "us.anthropic.claude-sonnet-4-6"}
"""Models that are known to think, where it depends on the model how that is asked for."""


@pytest.mark.parametrize("name", claiming("reasoning"))
async def test_effort_changes_what_is_sent(name: str, server: ScriptedServer) -> None:
    server.answer_json(format_of(name).answer("Yes."), times=2)
    llm = over(name, server)
    model = f"{name}/{THINKERS.get(name, 'any-model')}"
    plain = await llm.query(model, prompt="Is it so?")
    thinking = await llm.query(model, prompt="Is it so?", reasoning_effort="low")
    assert plain.content == thinking.content == "Yes."
    assert server.requests[0].json != server.requests[1].json
    assert thinking.receipt.dropped == ()


@pytest.mark.parametrize(("word", "name"), [(word, name) for word in ("json_schema", "json_mode") for name in claiming(word)])
async def test_an_answer_of_a_form(word: str, name: str, server: ScriptedServer) -> None:
    server.answer_json(format_of(name).answer('{"n": 7}'), times=2)
    llm = over(name, server)
    wanted = {
        "json_schema": {"type": "json_schema", "json_schema": {"name": "count", "schema": SCHEMA}},
        "json_mode": {"type": "json_object"},
    }
    prompt = "How many? Answer in JSON."
    answer = await llm.query(f"{name}/any-model", prompt=prompt, response_format=wanted[word])
    assert answer.parsed == {"n": 7}
    await llm.query(f"{name}/any-model", prompt=prompt)
    formed, plain = server.requests
    said = format_of(name).read(formed.path, formed.json)
    assert formed.json != plain.json
    if word == "json_schema":
        assert said.schema == SCHEMA


VECTORS: dict[str, Any] = {
    "cohere": {"embeddings": {"float": [[0.5, 0.25]]}, "meta": {"billed_units": {"input_tokens": 3}}},
    "gemini": {"embeddings": [{"values": [0.5, 0.25]}]},
    "ollama_chat": {"model": "any-model", "embeddings": [[0.5, 0.25]], "prompt_eval_count": 3},
    "vertex": {"predictions": [{"embeddings": {"values": [0.5, 0.25]}}]},
    "yandex": {"embedding": [0.5, 0.25], "numTokens": "3", "modelVersion": "1"},
}
"""By row, where it is not OpenAI's form."""


@pytest.mark.parametrize("name", claiming("embedding"))
async def test_embeddings(name: str, server: ScriptedServer) -> None:
    data = [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}]
    server.answer_json(VECTORS.get(name, {"object": "list", "data": data, "usage": {"prompt_tokens": 3, "total_tokens": 3}}))
    answer = await over(name, server).embed(f"{name}/any-model", ["a cat"])
    assert [list(vector) for vector in answer.embeddings] == [[0.5, 0.25]]
    assert has_key(server.request)


@pytest.mark.parametrize("name", claiming("rerank"))
async def test_rankings(name: str, server: ScriptedServer) -> None:
    ranked = [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.1}]
    server.answer_json({"data" if name == "voyage" else "results": ranked})
    answer = await over(name, server).rerank(f"{name}/any-model", "cats", ["dogs", "cats"])
    assert [result.index for result in answer.results] == [1, 0]
    assert has_key(server.request)


@pytest.mark.parametrize("name", claiming("moderation"))
async def test_moderation(name: str, server: ScriptedServer) -> None:
    result = {"flagged": True, "categories": {"violence": True}, "category_scores": {"violence": 0.9}}
    server.answer_json({"id": "m", "model": "any-model", "results": [result]})
    answer = await over(name, server).moderate("I will hit you.", model_name=f"{name}/any-model")
    assert answer.flagged and answer.categories == ("violence",)
    assert has_key(server.request)


@pytest.mark.parametrize("name", claiming("speech"))
async def test_speech(name: str, server: ScriptedServer) -> None:
    server.answer(WAV, headers={"content-type": "audio/wav"})
    answer = await over(name, server).speech(f"{name}/tts-1", "Hello", voice="alloy", response_format="wav")
    assert answer.audio is not None and answer.audio.data == WAV
    assert has_key(server.request)


PICTURE = {"data": [{"b64_json": base64.b64encode(media.PNG).decode()}]}
PICTURES: dict[str, tuple[str, Any]] = {
    "openai": ("gpt-image-1.5", PICTURE),
    "azure": ("gpt-image-1.5", PICTURE),
    "recraft": ("recraftv3", PICTURE),
    "gemini": (
        "gemini-3-image",
        {
            "candidates": [
                {
                    "content": {"parts": [{"inlineData": {"mimeType": "image/png", "data": PICTURE["data"][0]["b64_json"]}}]},
                    "finishReason": "STOP",
                }
            ]
        },
    ),
}
PICTURES["vertex"] = PICTURES["gemini"]


@pytest.mark.parametrize("name", [name for name in claiming("image_output") if name != "bfl"])  # which test_bfl.py asks
async def test_pictures(name: str, server: ScriptedServer) -> None:
    model, body = PICTURES[name]
    server.answer_json(body)
    answer = await over(name, server).query(f"{name}/{model}", prompt="A cat")
    (image,) = answer.images
    assert image.data == media.PNG
    assert has_key(server.request)


LISTS: dict[str, Any] = {"gemini": {"models": [{"name": "models/m-1"}]}, "cohere": {"models": [{"name": "m-1"}]}}
LISTS["ollama_chat"] = {"models": [{"name": "m-1", "model": "m-1", "size": 1}]}
COUNTS: dict[str, Any] = {
    "bedrock": {"inputTokens": 12},
    "anthropic": {"input_tokens": 12},
    "gemini": {"totalTokens": 12},
    "vertex": {"totalTokens": 12},
    "gigachat": [{"tokens": 12}],
    "yandex": {"tokens": [{"id": "1", "text": "a", "special": False}] * 12},
}


@pytest.mark.parametrize("name", claiming("list_models"))
async def test_lists_of_models(name: str, server: ScriptedServer) -> None:
    server.answer_json(LISTS.get(name, {"object": "list", "data": [{"id": "m-1", "object": "model"}]}))
    row = PROVIDER_CONFIGS[name]
    provider = provider_class(row)(attrs.evolve(row, base_url=server.base_url, api_key=KEY))
    provider.key_source = format_of(name).key_variable or key_variables(row)[0]
    assert await provider.list_models() == ["m-1"]
    assert has_key(server.request)


@pytest.mark.parametrize("name", claiming("count_tokens"))
async def test_counts_of_tokens(name: str, server: ScriptedServer) -> None:
    server.answer_json(COUNTS[name])
    count = await over(name, server).count_tokens(f"{name}/any-model", prompt="Hello")
    assert (count.tokens, count.exact) == (12, True)
    assert has_key(server.request)


UNTESTED = {"web_search", "audio_output"}
"""What a row may not claim until it is checked here."""


def test_every_claim_is_checked() -> None:
    claimed = {word for row in PROVIDER_CONFIGS.values() for word in row.capabilities}
    assert claimed <= set(PROVIDER_CAPABILITIES) - UNTESTED
    assert claimed - {"chat", "streaming", "tools", "parallel_tools"} <= {
        *PARTS,
        "reasoning",
        "json_schema",
        "json_mode",
        "embedding",
        "rerank",
        "moderation",
        "speech",
        "image_output",
        "list_models",
        "count_tokens",
    }


def test_who_chats_streams_and_says_so() -> None:
    for name, row in PROVIDER_CONFIGS.items():
        assert row.capabilities, f"{name} claims nothing"
        if "tools" in row.capabilities or "vision" in row.capabilities:
            assert {"chat", "streaming"} <= set(row.capabilities), name
