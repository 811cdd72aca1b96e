"""Gemini beside text: sources and where they stand, images, audio, Imagen, speech, embeddings, counts.

Sources: https://ai.google.dev/api/generate-content#GroundingMetadata, and those of servers/media.py
"""

from __future__ import annotations

import copy
import json
from array import array
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import media
from servers.scripted import ScriptedServer

from llm_master import (
    PROVIDER_CONFIGS,
    Audio,
    AudioDelta,
    AuthenticationError,
    Citation,
    ContentPolicyError,
    Image,
    InvalidRequestError,
    LLMResponse,
    ProviderError,
    QueryLLM,
    ServerError,
    StreamInterruptedError,
)
from llm_master.providers.gemini import GeminiProvider
from llm_master.providers.gemini_citations import Sources
from llm_master.providers.vertex import VertexProvider
from llm_master.testing import FakeClock

KEY = "AIza-media-0123456789"
MODEL = "gemini/gemini-3-pro-image"
PNG = {"inlineData": {"mimeType": "image/png", "data": media.b64(media.PNG)}}
SAMPLES = bytes(range(256)) * 4
PROMPT = "race car on a track"
WIRE = Path(__file__).resolve().parents[2] / "shared" / "wire"


def sound(data: bytes, media_type: str = "audio/L16;codec=pcm;rate=24000") -> dict[str, Any]:
    return {"inlineData": {"mimeType": media_type, "data": media.b64(data)}}


def chunk_of(*parts: Any, finish: str | None = "STOP", usage: Any = None, **candidate: Any) -> dict[str, Any]:
    said = [{"text": part} if isinstance(part, str) else part for part in parts]
    reason = {"finishReason": finish} if finish else {}
    counts = usage or {"promptTokenCount": 8, "candidatesTokenCount": 1290, "totalTokenCount": 1298}
    return {"candidates": [{"content": {"role": "model", "parts": said}, "index": 0, **reason, **candidate}], "usageMetadata": counts}


@pytest.fixture
def llm(server: ScriptedServer) -> QueryLLM:
    fields = {"gemini_api_base": f"{server.url}/v1beta", "vertex_api_base": f"{server.url}/v1beta1/publishers/google"}
    return QueryLLM(**fields, gemini_api_key=KEY, vertex_api_key=KEY, clock=FakeClock(auto_advance=True))


@pytest.fixture
def gemini(server: ScriptedServer) -> GeminiProvider:
    return GeminiProvider(attrs.evolve(PROVIDER_CONFIGS["gemini"], base_url=f"{server.url}/v1beta", api_key=KEY))


@pytest.fixture
def vertex(server: ScriptedServer) -> VertexProvider:
    return VertexProvider(attrs.evolve(PROVIDER_CONFIGS["vertex"], base_url=f"{server.url}/v1beta1/publishers/google", api_key=KEY))


both_ways = pytest.mark.parametrize("how", ["whole", "streamed"])


async def answered(llm: QueryLLM, server: ScriptedServer, how: str, *chunks: dict[str, Any], model: str = MODEL) -> LLMResponse:
    if how == "streamed":
        server.answer_sse(*(f"data: {json.dumps(chunk, ensure_ascii=False)}\r\n\r\n" for chunk in chunks))
        async with llm.stream(model, prompt="hi") as stream:
            async for _ in stream:
                pass
        return stream.response
    whole = copy.deepcopy(chunks[-1])
    whole["candidates"][0]["content"]["parts"] = [part for chunk in chunks for part in chunk["candidates"][0]["content"]["parts"]]
    server.answer_json(whole)
    return await llm.query(model, prompt="hi")


# Citations


def web(name: str) -> dict[str, Any]:
    return {"web": {"uri": f"https://{name}.example", "title": name}}


def support(content: str, sentence: str, *indices: int, **segment: Any) -> dict[str, Any]:
    start = content.encode().index(sentence.encode())
    held = {"startIndex": start, "endIndex": start + len(sentence.encode()), "text": sentence, **segment}
    return {
        "segment": {name: value for name, value in held.items() if value},
        "groundingChunkIndices": list(indices),
        "confidenceScores": [],
    }


TEXT = "Grüße aus 東京 🗾. Es regnet. Es regnet sehr. Ende."


@both_ways
async def test_citations_stand_where_their_sentences_do_in_characters(llm: QueryLLM, server: ScriptedServer, how: str) -> None:
    grounding = {
        "groundingChunks": [
            web("a"),
            web("b"),
            {"retrievedContext": {"uri": "gs://b/c.pdf", "title": "c", "text": "aus C"}},
            web("unused"),
        ],
        "groundingSupports": [
            support(TEXT, "Grüße aus 東京 🗾.", 0),
            support(TEXT, "Es regnet sehr.", 1, 2),
            {"segment": {}, "groundingChunkIndices": [0]},
        ],
        "webSearchQueries": ["x"],
    }
    first, last = chunk_of(TEXT[:20], finish=None), chunk_of(TEXT[20:], groundingMetadata=grounding)
    answer = await answered(llm, server, how, first, last)
    assert answer.content == TEXT
    found = [(str(c), c.title, c.text, TEXT[c.start : c.end] if c.start is not None else None) for c in answer.citations]
    assert found == [
        ("https://a.example", "a", None, "Grüße aus 東京 🗾."),
        ("https://b.example", "b", None, "Es regnet sehr."),
        ("gs://b/c.pdf", "c", "aus C", "Es regnet sehr."),
        ("https://a.example", "a", None, None),
        ("https://unused.example", "unused", None, None),
    ]
    assert [citation.raw for citation in answer.citations][2] == grounding["groundingChunks"][2]
    assert all(isinstance(citation, Citation) for citation in answer.citations)


async def test_the_chunks_of_all_events_are_counted_through(llm: QueryLLM, server: ScriptedServer) -> None:
    events = [
        chunk_of("One. ", finish=None, groundingMetadata={"groundingChunks": [web("a")]}),
        chunk_of(
            "Two.", finish=None, groundingMetadata={"groundingChunks": [web("b")], "groundingSupports": [support("One. Two.", "One.", 1)]}
        ),
        chunk_of("", groundingMetadata={"groundingSupports": [support("One. Two.", "Two.", 0)]}),
    ]
    answer = await answered(llm, server, "streamed", *events)
    assert [(c.title, answer.content[c.start : c.end]) for c in answer.citations] == [("b", "One."), ("a", "Two.")]


@pytest.mark.parametrize(
    ("segment", "sentence"),
    [
        ({"startIndex": 0, "endIndex": 4, "text": "Two."}, "Two."),  # numbers that are off
        ({"partIndex": 1, "endIndex": 4, "text": "Two."}, "Two."),  # counted within the part
        ({"partIndex": 1, "endIndex": 4}, "One."),  # without the text nobody can tell
        ({"startIndex": 5, "endIndex": 9}, "Two."),
        ({"startIndex": 5, "endIndex": 900}, None),
        ({"startIndex": 1, "endIndex": 4, "text": "not there"}, None),
        ({"endIndex": "x"}, None),
        ({"partIndex": 99, "startIndex": 5, "endIndex": 9, "text": "Two."}, "Two."),
    ],
    ids=str,
)
def test_segments_that_are_counted_otherwise(segment: dict[str, Any], sentence: str | None) -> None:
    sources = Sources()
    sources.add({"groundingChunks": [web("a")], "groundingSupports": [{"segment": segment, "groundingChunkIndices": [0]}]}, None)
    (citation,) = sources.citations("One. Two.", [0, 5])
    assert ("One. Two."[citation.start : citation.end] if citation.start is not None else None) == sentence


@settings(deadline=None, max_examples=150)
@given(st.text(min_size=1, max_size=30), st.data())
def test_any_piece_of_any_text_is_found_in_characters(content: str, data: st.DataObject) -> None:
    content = content.encode(errors="ignore").decode()
    start = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(start, len(content)))
    segment = {"startIndex": len(content[:start].encode()), "endIndex": len(content[:end].encode()), "text": content[start:end]}
    sources = Sources()
    sources.add({"groundingChunks": [web("a")], "groundingSupports": [{"segment": segment, "groundingChunkIndices": [0]}]}, None)
    (citation,) = sources.citations(content, [0])
    assert (citation.start, citation.end) == (start, end)


json_values = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=3), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
    st.sampled_from(["segment", "groundingChunkIndices", "startIndex", "endIndex", "text", "partIndex", "web", "uri", "title"]), inner, max_size=4
), max_leaves=12)  # fmt: skip


@settings(deadline=None, max_examples=150)
@given(st.lists(json_values, max_size=3), st.lists(json_values, max_size=3), st.lists(json_values, max_size=3))
def test_metadata_of_any_shape_breaks_nothing(chunks: list[Any], supports: list[Any], sources: list[Any]) -> None:
    collected = Sources()
    collected.add({"groundingChunks": chunks, "groundingSupports": supports}, {"citationSources": sources})
    for citation in collected.citations("Grüße", [0]):
        assert isinstance(citation, Citation) and (citation.start is None) == (citation.end is None)


@pytest.mark.parametrize(
    ("chunk", "url", "title", "text"),
    [
        ({"web": {"uri": "https://a.example", "title": "A", "domain": "a"}}, "https://a.example", "A", None),
        (
            {"maps": {"uri": "https://maps.example/1", "title": "Café", "text": "open", "placeId": "p"}},
            "https://maps.example/1",
            "Café",
            "open",
        ),
        ({"retrievedContext": {"title": "doc", "text": "t", "fileSearchStore": "s"}}, None, "doc", "t"),
        (
            {"image": {"sourceUri": "https://i.example", "imageUri": "https://i.example/1.png", "title": "I"}},
            "https://i.example",
            "I",
            None,
        ),
        ({"brandNew": {"uri": "https://n.example"}}, "https://n.example", None, None),
        ({}, None, None, None),
    ],
)
def test_every_kind_of_chunk(chunk: dict[str, Any], url: str | None, title: str | None, text: str | None) -> None:
    sources = Sources()
    sources.add({"groundingChunks": [chunk]}, None)
    (citation,) = sources.citations("x", [0])
    assert (citation.url, citation.title, citation.text, citation.start, citation.raw) == (url, title, text, None, chunk)


@both_ways
@pytest.mark.parametrize("name", ["citationSources", "citations"])
async def test_citation_metadata(llm: QueryLLM, server: ScriptedServer, how: str, name: str) -> None:
    source = {"startIndex": 7, "endIndex": 11, "uri": "https://a.example", "title": "A", "license": "mit"}
    metadata = {name: [source, {"uri": "https://b.example"}]}
    chunks = [chunk_of("Grüß ", finish=None, citationMetadata={name: [source]}), chunk_of("Gott.", citationMetadata=metadata)]
    answer = await answered(llm, server, how, *chunks)
    assert [(c.url, c.title, c.start, c.end, c.raw) for c in answer.citations] == [
        ("https://a.example", "A", 5, 9, source),
        ("https://b.example", None, None, None, metadata[name][1]),
    ]


# Images


@both_ways
async def test_images_are_values_and_not_in_the_text(llm: QueryLLM, server: ScriptedServer, how: str) -> None:
    jpeg = {"inlineData": {"mimeType": "image/jpeg", "data": media.b64(b"\xff\xd8\xff")}, "thoughtSignature": "c2ln"}
    draft = {"inlineData": {"mimeType": "image/png", "data": media.b64(b"draft")}, "thought": True}
    chunks = [chunk_of(draft, "Here: ", finish=None), chunk_of(PNG, finish=None), chunk_of("and ", jpeg)]
    answer = await answered(llm, server, how, *chunks)
    assert answer.content == "Here: and "
    assert answer.images == [Image(media.PNG, media_type="image/png"), Image(b"\xff\xd8\xff", media_type="image/jpeg")]
    assert (answer.usage.images, answer.usage.output_tokens, answer.audio) == (2, 1290, None)
    server.answer_json(chunk_of("ok"))
    await llm.query(MODEL, [{"role": "user", "content": "hi"}, answer.message, {"role": "user", "content": "brighter"}])
    sent = server.requests[-1].json["contents"][1]["parts"]
    assert sent == [draft, {"text": "Here: "}, PNG, {"text": "and "}, jpeg]  # the model edits what it made


@both_ways
async def test_an_answer_without_images_has_made_none(llm: QueryLLM, server: ScriptedServer, how: str) -> None:
    answer = await answered(llm, server, how, chunk_of("ok"))
    assert (answer.images, answer.usage.images) == ([], None)


async def test_an_image_that_is_no_base64(llm: QueryLLM, server: ScriptedServer) -> None:
    broken = {"inlineData": {"mimeType": "image/png", "data": "x"}}
    server.answer_json(chunk_of(broken), times=None)
    with pytest.raises(ServerError, match="image/png that is no base64"):
        await llm.query(MODEL, prompt="hi")
    server.reset()
    server.answer_sse(f"data: {json.dumps(chunk_of('Half', finish=None))}\n\n", f"data: {json.dumps(chunk_of(broken))}\n\n")
    with pytest.raises(StreamInterruptedError, match="no base64"):
        _ = [piece async for piece in llm.stream(MODEL, prompt="hi")]


@pytest.mark.parametrize(
    ("options", "config"),
    [
        ({"modalities": ["text", "image"]}, {"responseModalities": ["TEXT", "IMAGE"]}),
        ({"size": "1024x1024"}, {"imageConfig": {"aspectRatio": "1:1"}}),
        ({"size": "1920x1080"}, {"imageConfig": {"aspectRatio": "16:9", "imageSize": "2K"}}),
        ({"size": "4096x4096"}, {"imageConfig": {"aspectRatio": "1:1", "imageSize": "4K"}}),
        ({"size": "21:9"}, {"imageConfig": {"aspectRatio": "21:9"}}),
        ({"size": "2K", "aspect_ratio": "3:4"}, {"imageConfig": {"imageSize": "2K", "aspectRatio": "3:4"}}),
        ({"image_size": "4K"}, {"imageConfig": {"imageSize": "4K"}}),
        ({"voice": "Puck"}, {"speechConfig": {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": "Puck"}}}}),
    ],
    ids=str,
)
async def test_options(llm: QueryLLM, server: ScriptedServer, options: dict[str, Any], config: dict[str, Any]) -> None:
    server.answer_json(chunk_of("ok"))
    await llm.query(MODEL, prompt="hi", **options)
    assert server.request.json["generationConfig"] == config


@pytest.mark.parametrize("size", ["large", "1000x999", "0x5", "17:3", "", 7])
async def test_a_size_that_is_none(llm: QueryLLM, server: ScriptedServer, size: Any) -> None:
    for model in (MODEL, "gemini/imagen-4.0-generate-001"):
        with pytest.raises(InvalidRequestError, match="size is"):
            await llm.query(model, prompt="hi", size=size)
    assert server.requests == []


# Audio


@both_ways
async def test_audio_is_joined_and_streamed_as_samples(llm: QueryLLM, server: ScriptedServer, how: str, tmp_path: Path) -> None:
    counts = {
        "promptTokenCount": 30,
        "candidatesTokenCount": 90,
        "totalTokenCount": 120,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 10}, {"modality": "AUDIO", "tokenCount": 20}],
        "candidatesTokensDetails": [{"modality": "AUDIO", "tokenCount": 90}],
    }
    pieces = [SAMPLES[:500], SAMPLES[500:]]
    chunks = [chunk_of(sound(piece), finish=None if piece is pieces[0] else "STOP", usage=counts) for piece in pieces]
    answer = await answered(llm, server, how, *chunks)
    assert answer.audio == Audio(SAMPLES, "audio/pcm", sample_rate=24_000)
    assert (answer.content, answer.images) == ("", [])
    assert (answer.usage.audio_input_tokens, answer.usage.audio_output_tokens, answer.usage.output_tokens) == (20, 90, 90)
    saved = answer.audio.save(tmp_path / "x.wav").read_bytes()
    assert saved[:4] == b"RIFF" and saved.endswith(SAMPLES)


async def test_the_pieces_of_audio_are_events(llm: QueryLLM, server: ScriptedServer) -> None:
    pieces = [chunk_of(sound(SAMPLES[:500]), finish=None), chunk_of(sound(SAMPLES[500:]))]
    server.answer_sse(*(f"data: {json.dumps(piece)}\n\n" for piece in pieces))
    events = [event async for event in llm.stream(MODEL, prompt="hi").events()]
    assert [event.data for event in events if isinstance(event, AudioDelta)] == [SAMPLES[:500], SAMPLES[500:]]


@pytest.mark.parametrize(
    ("theirs", "ours", "rate"),
    [
        ("audio/L16;rate=16000", "audio/pcm", 16_000),
        ("audio/pcm", "audio/pcm", 24_000),
        ("audio/wav", "audio/wav", 24_000),
        ("audio/MP3; x=1", "audio/mp3", 24_000),
    ],
)
async def test_types_of_audio(llm: QueryLLM, server: ScriptedServer, theirs: str, ours: str, rate: int) -> None:
    answer = await answered(llm, server, "whole", chunk_of(sound(b"abcd", theirs)))
    assert (answer.audio.media_type, answer.audio.sample_rate, answer.audio.data) == (ours, rate, b"abcd")


# Imagen


IMAGEN = "imagen-4.0-generate-001"


def predictions(*found: dict[str, Any]) -> dict[str, Any]:
    return {"predictions": list(found)}


PREDICTED = {"mimeType": "image/png", "bytesBase64Encoded": media.b64(media.PNG)}


@pytest.mark.parametrize("how", ["prompt", "messages", "stream", "query with stream"])
@pytest.mark.parametrize(
    ("model", "place"), [(IMAGEN, "/v1beta"), (f"vertex/{IMAGEN}", "/v1beta1/publishers/google")], ids=["gemini", "vertex"]
)
async def test_imagen_makes_an_image_once(llm: QueryLLM, server: ScriptedServer, model: str, place: str, how: str) -> None:
    server.answer_json(predictions(PREDICTED), headers={"x-request-id": "r1"})
    messages = [{"role": "system", "content": "x"}, {"role": "user", "content": [{"type": "text", "text": PROMPT}]}]
    if how == "prompt":
        answer = await llm.query(model, prompt=PROMPT)
    elif how == "messages":
        answer = await llm.query(model, messages)
    else:
        stream = await llm.query(model, messages, stream=True) if how == "query with stream" else llm.stream(model, messages)
        assert [piece async for piece in stream] == []
        answer = stream.response
    body = media.read_predict(server.request)
    assert body == {"instances": [{"prompt": PROMPT}], "parameters": {"includeRaiReason": True, "sampleCount": 1}}
    assert server.request.path == f"{place}/models/{IMAGEN}:predict" and server.request.headers["x-goog-api-key"] == KEY
    assert (answer.content, answer.images, answer.usage.images) == ("", [Image(media.PNG, media_type="image/png")], 1)
    assert (answer.receipt.attempts[0].request_id, answer.raw) == ("r1", predictions(PREDICTED))


async def test_imagens_options(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_json(predictions(PREDICTED, {**PREDICTED, "prompt": "Better", "mimeType": "image/jpeg"}, {"gcsUri": "gs://b/1.png"}))
    options = {"negative_prompt": "blur", "personGeneration": "dont_allow", "seed": 7, "add_watermark": False}
    answer = await llm.query(IMAGEN, prompt=PROMPT, n=3, size="2048x1152", output_format="jpeg", **options)
    assert media.read_predict(server.request)["parameters"] == {
        "includeRaiReason": True,
        "sampleCount": 3,
        "aspectRatio": "16:9",
        "imageSize": "2K",
        "outputOptions": {"mimeType": "image/jpeg"},
        "negativePrompt": "blur",
        "personGeneration": "dont_allow",
        "seed": 7,
        "addWatermark": False,
    }
    assert [(image.media_type, image.revised_prompt, image.url) for image in answer.images] == [
        ("image/png", None, None),
        ("image/jpeg", "Better", None),
        ("image/png", None, "gs://b/1.png"),
    ]
    assert answer.usage.images == 3


async def test_what_was_filtered_is_not_there(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_json(predictions({"raiFilteredReason": "Unsafe."}, PREDICTED))
    assert len((await llm.query(IMAGEN, prompt=PROMPT, n=2)).images) == 1


@pytest.mark.parametrize(
    ("answered", "said"),
    [
        (
            predictions({"raiFilteredReason": "Unsafe (58061214)."}, {"raiFilteredReason": "Unsafe (58061214)."}),
            r"filtered: Unsafe \(58061214\)\.$",
        ),
        (predictions(), "did not say why"),
        ({}, "did not say why"),
    ],
)
async def test_everything_was_filtered(llm: QueryLLM, server: ScriptedServer, answered: Any, said: str) -> None:
    server.answer_json(answered)
    with pytest.raises(ContentPolicyError, match=said):
        await llm.query(IMAGEN, prompt=PROMPT)


@pytest.mark.parametrize("body", ["", "<html>", "[]", '{"predictions": 7}', '{"predictions": [{"bytesBase64Encoded": "x"}]}'])
async def test_imagen_answers_garbage(llm: QueryLLM, server: ScriptedServer, body: str) -> None:
    server.answer(body, times=None)
    with pytest.raises(ServerError):
        await llm.query(IMAGEN, prompt=PROMPT)


async def test_imagen_refuses(llm: QueryLLM, server: ScriptedServer) -> None:
    error = {"code": 400, "message": f"API key not valid: {KEY}", "status": "INVALID_ARGUMENT", "details": [{"reason": "API_KEY_INVALID"}]}
    server.answer_json({"error": error}, status=400)
    with pytest.raises(AuthenticationError) as caught:
        await llm.query(IMAGEN, prompt=PROMPT)
    assert KEY not in f"{caught.value!r} {caught.value.receipt!r}"


@pytest.mark.parametrize(
    ("content", "options", "said"),
    [
        (PROMPT, {"temperature": 1, "quality": "hd"}, "does not take 'quality', 'temperature'"),
        ([{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": media.PNG_URI}}], {}, "from text alone"),
        (" ", {}, "has no text"),
    ],
)
async def test_bad_input_for_imagen(llm: QueryLLM, server: ScriptedServer, content: Any, options: Any, said: str) -> None:
    with pytest.raises(InvalidRequestError, match=said):
        await llm.query(IMAGEN, [{"role": "user", "content": content}], **options)
    assert server.requests == []


# Speech


TTS = "gemini-2.5-flash-preview-tts"
SAY = [{"role": "user", "content": "Have a wonderful day!"}]


@pytest.mark.parametrize(("options", "voice", "text"), [
    ({}, "Kore", "Have a wonderful day!"),
    ({"voice": "Puck", "format": "pcm"}, "Puck", "Have a wonderful day!"),
    ({"instructions": "Say cheerfully", "response_format": "pcm"}, "Kore", "Say cheerfully: Have a wonderful day!"),
])  # fmt: skip
async def test_speech(gemini: GeminiProvider, server: ScriptedServer, options: dict[str, Any], voice: str, text: str) -> None:
    server.answer_json(chunk_of(sound(SAMPLES)))
    answer = await gemini.speech(SAY, TTS, **options)
    assert answer.audio == Audio(SAMPLES, "audio/pcm", transcript="Have a wonderful day!")
    assert (answer.content, answer.usage.characters) == ("", 21)
    speech = {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": voice}}}
    assert server.request.path == f"/v1beta/models/{TTS}:generateContent"
    assert server.request.json == {
        "contents": [{"role": "user", "parts": [{"text": text}]}],
        "generationConfig": {"responseModalities": ["AUDIO"], "speechConfig": speech},
    }


@pytest.mark.parametrize(
    ("messages", "options", "said"),
    [
        (SAY, {"format": "mp3"}, "format is 'mp3'.*pcm only.*WAV"),
        (SAY, {"speed": 2}, "does not take 'speed'"),
        (SAY, {"user": "u"}, "does not take 'user'"),
        ([{"role": "user", "content": ""}], {}, "has no text"),
    ],
)
async def test_speech_that_is_refused(gemini: GeminiProvider, server: ScriptedServer, messages: Any, options: Any, said: str) -> None:
    with pytest.raises(InvalidRequestError, match=said):
        await gemini.speech(messages, TTS, **options)
    assert server.requests == []


async def test_speech_without_audio(gemini: GeminiProvider, server: ScriptedServer) -> None:
    server.answer_json(chunk_of("I would rather write", finish="OTHER"))
    with pytest.raises(ServerError, match="without audio: other"):
        await gemini.speech(SAY, TTS)


# Embeddings


async def test_embeddings(gemini: GeminiProvider, server: ScriptedServer) -> None:
    server.answer_json({"embeddings": [{"values": [0.25, -1]}, {"values": [1e-3, 2.0]}]})
    answer = await gemini.embed(
        ["a", "b"], "gemini-embedding-001", dimensions=2, task_type="RETRIEVAL_DOCUMENT", title="T", encoding_format="float"
    )
    assert answer.embeddings == [array("f", [0.25, -1]), array("f", [1e-3, 2.0])]
    options = {"outputDimensionality": 2, "taskType": "RETRIEVAL_DOCUMENT", "title": "T"}
    assert media.read_embedding(server.request) == [
        {"model": "models/gemini-embedding-001", "content": {"parts": [{"text": text}]}, **options} for text in ("a", "b")
    ]
    assert (answer.usage.input_tokens, answer.wire.status) == (None, 200)
    assert answer.raw["embeddings"][0] == {"values": [0.25, -1]}


@pytest.mark.parametrize("option", [{"encoding_format": "base64"}, {"user": "u"}, {"input_type": "query"}], ids=str)
async def test_embedding_options_without_a_word(gemini: GeminiProvider, server: ScriptedServer, option: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError, match=next(iter(option))):
        await gemini.embed(["a"], "gemini-embedding-001", **option)
    assert server.requests == []


@pytest.mark.parametrize(
    "body", ["", "[]", "{}", '{"embeddings": [{"values": [1]}]}', '{"embeddings": [{"values": ["x"]}, {"values": [1]}]}']
)
async def test_embeddings_that_cannot_be_read(gemini: GeminiProvider, server: ScriptedServer, body: str) -> None:
    server.answer(body)
    with pytest.raises(ServerError):
        await gemini.embed(["a", "b"], "gemini-embedding-001")


async def test_embeddings_refused(gemini: GeminiProvider, server: ScriptedServer) -> None:
    server.answer_json({"error": {"code": 400, "message": "bad taskType", "status": "INVALID_ARGUMENT"}}, status=400)
    with pytest.raises(InvalidRequestError, match="bad taskType"):
        await gemini.embed(["a"], "gemini-embedding-001", task_type="X")


async def test_vertex_embeds_one_content_a_request(vertex: VertexProvider, server: ScriptedServer) -> None:
    for number in (1.0, 2.0):
        server.answer_json({"embedding": {"values": [number]}, "usageMetadata": {"promptTokenCount": 11, "totalTokenCount": 11}})
    answer = await vertex.embed(["a", "b"], "gemini-embedding-2", dimensions=1)
    assert answer.embeddings == [array("f", [1.0]), array("f", [2.0])]
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (22, 0)
    for request, text in zip(server.requests, "ab", strict=True):
        assert request.path == "/v1beta1/publishers/google/models/gemini-embedding-2:embedContent"
        assert request.json == {"content": {"parts": [{"text": text}]}, "outputDimensionality": 1}


@pytest.mark.parametrize(("model", "batches"), [("text-embedding-005", [["a", "b"]]), ("gemini-embedding-001", [["a"], ["b"]])])
async def test_vertex_predicts_the_older_ones(vertex: VertexProvider, server: ScriptedServer, model: str, batches: list[list[str]]) -> None:
    for batch in batches:
        server.answer_json(
            {"predictions": [{"embeddings": {"values": [0.5], "statistics": {"token_count": 3, "truncated": False}}} for _ in batch]}
        )
    answer = await vertex.embed(["a", "b"], model, dimensions=1, task_type="CLUSTERING", title="T", auto_truncate=False)
    assert answer.embeddings == [array("f", [0.5])] * 2 and answer.usage.input_tokens == 6
    assert [request.json for request in server.requests] == [
        {
            "instances": [{"content": text, "task_type": "CLUSTERING", "title": "T"} for text in batch],
            "parameters": {"outputDimensionality": 1, "autoTruncate": False},
        }
        for batch in batches
    ]


# Counts


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"x": {"type": "string"}}}}}
ASKED = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]


async def test_tokens_are_counted(gemini: GeminiProvider, server: ScriptedServer) -> None:
    server.answer_json({"totalTokens": 31, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 31}]})
    said = gemini.translate("gemini-2.5-flash", {"tools": [TOOL]}).options
    assert await gemini.count_tokens(ASKED, "gemini-2.5-flash", **said) == 31
    assert server.request.path == "/v1beta/models/gemini-2.5-flash:countTokens"
    request = server.request.json["generateContentRequest"]
    assert request["model"] == "models/gemini-2.5-flash" and request["tools"] == said["tools"]
    assert request["systemInstruction"] == {"parts": [{"text": "Be brief."}]}


async def test_tokens_are_counted_on_vertex(vertex: VertexProvider, server: ScriptedServer) -> None:
    server.answer_json({"totalTokens": 13, "totalBillableCharacters": 47})
    assert await vertex.count_tokens(ASKED, "gemini-2.5-flash") == 13
    assert server.request.path == "/v1beta1/publishers/google/models/gemini-2.5-flash:countTokens"
    assert server.request.json == {
        "contents": [{"role": "user", "parts": [{"text": "hi"}]}],
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
    }


@pytest.mark.parametrize("body", ["", "{}", '{"totalTokens": "x"}', "[]"])
async def test_a_count_that_is_none(gemini: GeminiProvider, server: ScriptedServer, body: str) -> None:
    server.answer(body)
    with pytest.raises(ServerError):
        await gemini.count_tokens(ASKED, "gemini-2.5-flash")


async def test_a_count_that_is_refused(gemini: GeminiProvider, server: ScriptedServer) -> None:
    server.answer_json({"error": {"code": 404, "message": "models/x is not found", "status": "NOT_FOUND"}}, status=404)
    with pytest.raises(ProviderError, match="models/x is not found"):
        await gemini.count_tokens(ASKED, "x")


# What was really asked and answered; the recordings are not part of the project


def _recordings(file: str, method: str) -> list[Any]:
    path = WIRE / f"{file}.jsonl"
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    found = [recording for recording in map(json.loads, lines) if recording["url"].endswith(f":{method}")]
    absent = pytest.param(None, marks=pytest.mark.skip("the recordings are not here"))
    return [pytest.param(recording, id=f"{number} {recording['id']}") for number, recording in enumerate(found)] or [absent]


@pytest.mark.parametrize("recording", _recordings("gemini", "batchEmbedContents"))
async def test_recorded_embeddings(gemini: GeminiProvider, server: ScriptedServer, recording: Any) -> None:
    asked = recording["request"]["requests"]
    server.answer_json(recording["response"])
    options = {
        name: asked[0][theirs]
        for name, theirs in {"dimensions": "outputDimensionality", "task_type": "taskType"}.items()
        if theirs in asked[0]
    }
    texts = [one["content"]["parts"][0]["text"] for one in asked]
    answer = await gemini.embed(texts, asked[0]["model"].removeprefix("models/"), **options)
    assert server.request.json == recording["request"]
    assert server.request.path == "/" + recording["url"].split("/", 3)[3]
    assert answer.embeddings == [array("f", one["values"]) for one in recording["response"]["embeddings"]]


@pytest.mark.parametrize("recording", _recordings("vertex", "embedContent"))
async def test_recorded_embedding_of_vertex(vertex: VertexProvider, server: ScriptedServer, recording: Any) -> None:
    server.answer_json(recording["response"])
    model = recording["url"].partition("/models/")[2].partition(":")[0]
    answer = await vertex.embed([recording["request"]["content"]["parts"][0]["text"]], model)
    assert server.request.json == recording["request"]
    assert answer.embeddings == [array("f", recording["response"]["embedding"]["values"])]
    assert answer.usage.input_tokens == recording["response"]["usageMetadata"]["promptTokenCount"]


@pytest.mark.parametrize("recording", _recordings("vertex", "countTokens"))
async def test_recorded_count_of_vertex(vertex: VertexProvider, server: ScriptedServer, recording: Any) -> None:
    server.answer_json(recording["response"])
    assert await vertex.count_tokens(ASKED, "gemini-2.5-flash", tools=recording["request"]["tools"]) == recording["response"]["totalTokens"]
