"""Generators: images and speech by OpenAI's API and by those of its shape, through the SDK, as a user's own would go.

What they are asked and what they would refuse stands in servers/media.py, with its sources.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from decimal import Decimal
from typing import Any

import attrs
import pytest
from servers import media
from servers.scripted import FOREVER, ScriptedServer

from llm_master import (
    PROVIDER_CONFIGS,
    Audio,
    AuthenticationError,
    ContentPolicyError,
    Image,
    InvalidRequestError,
    LLMResponse,
    ProviderConnectionError,
    ProviderError,
    QueryLLM,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    UnifiedProvider,
)
from llm_master.generators.images import image_type, openai_image, recraft_image
from llm_master.generators.speech import speech
from llm_master.providers.base import load
from llm_master.testing import FakeClock

KEY = "sk-images-0123456789"
PROMPT = "race car on a track"
JPEG = b"\xff\xd8\xff\xe0rest"
LINK = "https://img.recraft.ai/1.webp"


@pytest.fixture(params=["openai:AsyncOpenAI", "openai:OpenAI"], ids=["async client", "sync client"])
def llm(request: pytest.FixtureRequest, server: ScriptedServer) -> QueryLLM:
    """The rows with the functions themselves, and either kind of client."""
    for name, generators in {
        "openai": {"gpt-image-*": openai_image, "dall-e-*": openai_image, "tts-*": "speech", "gpt-4o-mini-tts": speech},
        "recraft": {"recraft-image-gen": recraft_image, "recraft*": recraft_image},
    }.items():
        PROVIDER_CONFIGS[name] = attrs.evolve(PROVIDER_CONFIGS[name], client_class=request.param, generate_map=generators)
    return QueryLLM(
        openai_api_key=KEY,
        openai_api_base=server.base_url,
        recraft_api_key=KEY,
        recraft_api_base=server.base_url,
        clock=FakeClock(auto_advance=True),
    )


def parts(*urls: str, text: str = PROMPT) -> list[dict[str, Any]]:
    return [
        {"role": "user", "content": [{"type": "text", "text": text}, *({"type": "image_url", "image_url": {"url": url}} for url in urls)]}
    ]


async def asked(llm: QueryLLM, how: str, model: str, **options: Any) -> LLMResponse:
    """The same question in every way in which it can be put."""
    if how == "prompt":
        return await llm.query(model, prompt=PROMPT, **options)
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "no"}, *parts()]
    if how == "messages":
        return await llm.query(model, messages, **options)
    stream = (
        await llm.query(model, messages, stream=True, **options) if how == "query with stream" else llm.stream(model, messages, **options)
    )
    pieces = [piece async for piece in stream]
    assert pieces == ([stream.response.content] if stream.response.content else [])
    return stream.response


every_way = pytest.mark.parametrize("how", ["prompt", "messages", "stream", "query with stream"])


# The table


def test_the_rows_name_generators_that_exist() -> None:
    strings = {value for row in PROVIDER_CONFIGS.values() for value in row.generate_map.values() if isinstance(value, str) and ":" in value}
    assert {load(value, "") for value in strings if ".images:" in value} == {openai_image, recraft_image}
    for name, row in PROVIDER_CONFIGS.items():
        for value in row.generate_map.values():
            if isinstance(value, str) and ":" not in value:
                provider = load(row.provider_class or "llm_master.providers.unified:UnifiedProvider", name)
                assert callable(getattr(provider, value)), (name, value)


@pytest.mark.parametrize(
    ("name", "provider", "wire"),
    [
        ("gpt-image-2.5-flare", "openai", "gpt-image-2.5-flare"),
        ("chatgpt-image-latest", "openai", "chatgpt-image-latest"),
        ("openai/dall-e-3", "openai", "dall-e-3"),
        ("tts-1-hd", "openai", "tts-1-hd"),
        ("gpt-4o-mini-tts", "openai", "gpt-4o-mini-tts"),
        ("responses-gpt-5", "openai", "gpt-5"),
        ("openai/responses/gpt-5", "openai", "gpt-5"),
        ("recraft-image-gen", "recraft", "recraft-image-gen"),
        ("recraftv4_1", "recraft", "recraftv4_1"),
        ("imagen-4.0-generate-001", "gemini", "imagen-4.0-generate-001"),
        ("vertex/imagen-4.0-generate-001", "vertex", "imagen-4.0-generate-001"),
    ],
)
def test_names_lead_to_generators(name: str, provider: str, wire: str) -> None:
    llm = QueryLLM(openai_api_key=KEY, recraft_api_key=KEY, gemini_api_key=KEY, vertex_api_key=KEY)
    plan = llm.plan(name, prompt=PROMPT)
    assert (plan.provider, plan.model) == (provider, wire)


# OpenAI's images


@every_way
async def test_an_image_comes_once_and_is_paid_once(llm: QueryLLM, server: ScriptedServer, how: str) -> None:
    server.answer_json(media.images(media.PNG, output_format="png"), headers={"x-request-id": "req_1"})
    answer = await asked(llm, how, "gpt-image-2")
    assert media.read_image(server.request, KEY) == {"model": "gpt-image-2", "prompt": PROMPT}
    assert (answer.content, answer.images) == ("", [Image(media.PNG, media_type="image/png")])
    usage = answer.usage
    assert (usage.input_tokens, usage.image_input_tokens, usage.output_tokens, usage.images) == (90, 40, 1056, 1)
    assert (answer.provider, answer.model_name, answer.finish_reason) == ("openai", "gpt-image-2", "stop")
    (attempt,) = answer.receipt.attempts
    assert (attempt.status, attempt.request_id) == (200, "req_1")
    assert KEY not in repr(answer)


async def test_several_images_and_every_option(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_json(media.images(JPEG, JPEG, JPEG))
    options = {"size": "1536x1024", "quality": "high", "background": "opaque", "output_format": "jpeg", "output_compression": 80}
    # query() has a moderation of its own.
    answer = await llm.query("gpt-image-2", prompt=PROMPT, n=3, extra_body={"moderation": "low"}, user="u1", **options)
    body = media.read_image(server.request, KEY)
    assert body == {"model": "gpt-image-2", "prompt": PROMPT, "n": 3, "moderation": "low", "user": "u1", **options}
    assert answer.images == [Image(JPEG, media_type="image/jpeg")] * 3 and answer.usage.images == 3


async def test_what_the_sdk_has_no_parameter_for_goes_out_all_the_same(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_json(media.images(media.PNG))
    await llm.query("gpt-image-2", prompt=PROMPT, brand_new={"a": 1}, extra_body={"another": [2]})
    body = server.request.json
    assert body == {"model": "gpt-image-2", "prompt": PROMPT, "brand_new": {"a": 1}, "another": [2]}


async def test_an_api_that_answers_with_links(llm: QueryLLM, server: ScriptedServer) -> None:
    urls = ["https://acme.ai/1.png", "https://acme.ai/2.png"]
    answered = media.links(*urls)
    answered["data"][0]["revised_prompt"] = "A red race car"
    server.answer_json(answered)
    answer = await llm.query("dall-e-3", prompt=PROMPT, response_format="url", style="vivid")
    assert answer.content == urls[0]
    assert answer.images == [Image(url=urls[0], revised_prompt="A red race car"), Image(url=urls[1])]
    assert (answer.usage.images, answer.usage.input_tokens) == (2, None)


async def test_a_link_may_hold_the_image_itself(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_json(media.links(media.PNG_URI))
    answer = await llm.query("gpt-image-2", prompt=PROMPT)
    assert (answer.content, answer.images) == ("", [Image(media.PNG, media_type="image/png")])


async def test_the_tokens_of_an_svgs_author_are_not_in_the_counts(llm: QueryLLM, server: ScriptedServer) -> None:
    author = {"model": "gpt-x", "input_tokens": 1, "output_tokens": 2, "reasoning_tokens": 0, "total_tokens": 3}
    server.answer_json(media.images(b"<svg xmlns='http://www.w3.org/2000/svg'/>", output_format="svg", svg_usage=author))
    answer = await llm.query("gpt-image-2.5-flare", prompt=PROMPT, output_format="svg")
    assert answer.images[0].media_type == "image/svg+xml" and answer.usage.others_worked


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (media.PNG, "image/png"),
        (JPEG, "image/jpeg"),
        (b"RIFF....WEBPVP8 ", "image/webp"),
        (b"GIF89a", "image/gif"),
        (b" <svg >", "image/svg+xml"),
    ],
)
def test_the_type_of_an_image_by_its_first_bytes(data: bytes, media_type: str) -> None:
    assert image_type(data) == media_type


# Edits


async def test_images_in_the_message_are_edited(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_json(media.images(media.PNG))
    mask = Image(media.PNG, media_type="image/png")
    answer = await llm.query("gpt-image-2", parts(media.PNG_URI, f"data:image/jpeg;base64,{media.b64(JPEG)}"), mask=mask, size="1024x1024")
    fields = media.read_edit(server.request, KEY)
    assert fields["image[]"] == [("image-1.png", "image/png", media.PNG), ("image-2.jpeg", "image/jpeg", JPEG)]
    assert fields["mask"] == [("mask.png", "image/png", media.PNG)]
    assert (fields["prompt"], fields["model"], fields["size"]) == (PROMPT, "gpt-image-2", "1024x1024")
    assert answer.images == [Image(media.PNG, media_type="image/png")]


@pytest.mark.parametrize("mask", [media.PNG, media.PNG_URI, ("mask.png", media.PNG, "image/png")], ids=["bytes", "data URI", "file"])
async def test_a_mask_in_every_form(llm: QueryLLM, server: ScriptedServer, mask: Any) -> None:
    server.answer_json(media.images(media.PNG))
    await llm.query("gpt-image-2", parts(media.PNG_URI), mask=mask)
    assert media.read_edit(server.request, KEY)["mask"] == [("mask.png", "image/png", media.PNG)]


@pytest.mark.parametrize(
    ("messages", "options", "said"),
    [
        (parts(media.PNG_URI), {"mask": "https://example.com/m.png"}, "mask is only known by its address"),
        (parts(), {"mask": media.PNG}, "a mask is given and no image"),
        (parts(text=" "), {}, "has no text"),
        ([{"role": "system", "content": "x"}], {}, "has no text"),
    ],
)
async def test_bad_input_is_refused_before_it_is_sent(
    llm: QueryLLM, server: ScriptedServer, messages: Any, options: Any, said: str
) -> None:
    with pytest.raises(InvalidRequestError, match=said):
        await llm.query("gpt-image-2", messages, **options)
    assert server.requests == []


async def test_an_image_that_nobody_has_fetched_is_refused(server: ScriptedServer) -> None:
    """Under ``QueryLLM`` it is fetched before the generator sees it."""
    provider = UnifiedProvider(attrs.evolve(PROVIDER_CONFIGS["openai"], base_url=server.base_url, api_key=KEY))
    with pytest.raises(InvalidRequestError, match="only known by its address.*data URI"):
        await openai_image(provider, parts("https://example.com/a.png"), "gpt-image-2")
    assert server.requests == []


# Recraft


@every_way
async def test_the_example_of_the_guide(llm: QueryLLM, server: ScriptedServer, how: str) -> None:
    server.answer_json(media.links(LINK, credits=40))
    response = await asked(llm, how, "recraft-image-gen", style="digital_illustration")
    assert response.content == LINK
    assert response.images == [Image(url=LINK)]
    body = media.read_recraft(server.request, KEY)
    assert body == {"prompt": PROMPT, "style": "digital_illustration", "model": "recraftv3"}
    assert (response.cost, response.receipt.cost_state) == (Decimal("0.040"), "billed")
    assert (response.provider, response.model_name) == ("recraft", "recraft-image-gen")


@pytest.mark.parametrize(
    ("model", "wire"), [("recraft-image-gen", {}), ("recraftv4_1", {"model": "recraftv4_1"}), ("recraftv3", {"model": "recraftv3"})]
)
async def test_the_model_on_the_wire(llm: QueryLLM, server: ScriptedServer, model: str, wire: dict[str, str]) -> None:
    server.answer_json(media.links(LINK))
    await llm.query(model, prompt=PROMPT)
    assert media.read_recraft(server.request, KEY) == {"prompt": PROMPT, **wire}


async def test_recrafts_own_options(llm: QueryLLM, server: ScriptedServer) -> None:
    answered = media.images(media.PNG, b"RIFF....WEBPVP8 ", tokens=None, credits=80)
    answered["data"][1]["revised_prompt"] = "Better"
    server.answer_json(answered)
    controls = {"colors": [{"rgb": [255, 142, 60]}], "no_text": True, "artistic_level": 3}
    options = {
        "substyle": "2d_art_poster",
        "style": "digital_illustration",
        "size": "16:9",
        "negative_prompt": "blur",
        "controls": controls,
    }
    answer = await llm.query("recraftv3", prompt=PROMPT, n=2, response_format="b64_json", random_seed=7, **options)
    body = media.read_recraft(server.request, KEY)
    assert body == {"model": "recraftv3", "prompt": PROMPT, "n": 2, "response_format": "b64_json", "random_seed": 7, **options}
    assert [(image.media_type, image.revised_prompt) for image in answer.images] == [("image/png", None), ("image/webp", "Better")]
    assert (answer.content, answer.usage.images, answer.cost) == ("", 2, Decimal("0.080"))


async def test_an_image_for_recraft_is_refused(llm: QueryLLM, server: ScriptedServer) -> None:
    with pytest.raises(InvalidRequestError, match="leave the images out"):
        await llm.query("recraftv3", parts(media.PNG_URI))
    assert server.requests == []


# Errors, the same for all


@pytest.mark.parametrize("model", ["gpt-image-2", "recraftv3", "tts-1"])
@pytest.mark.parametrize(
    ("status", "error", "expected"),
    [
        (400, {"message": "Your request was rejected by the safety system.", "code": "moderation_blocked"}, ContentPolicyError),
        (400, {"message": "Invalid size.", "code": None}, InvalidRequestError),
        (401, {"message": f"Incorrect API key provided: {KEY}", "code": "invalid_api_key"}, AuthenticationError),
        (429, {"message": "Rate limit reached.", "code": "rate_limit_exceeded"}, RateLimitError),
        (500, {"message": "The server had an error.", "code": None}, ServerError),
    ],
    ids=["moderated", "invalid", "key", "limit", "server"],
)
async def test_refusals(
    llm: QueryLLM,
    server: ScriptedServer,
    caplog: pytest.LogCaptureFixture,
    model: str,
    status: int,
    error: Any,
    expected: type[ProviderError],
) -> None:
    caplog.set_level(logging.DEBUG, "llm_master")
    server.answer_json({"error": error}, status=status, times=None)
    with pytest.raises(ProviderError) as caught:
        await llm.query(model, prompt=PROMPT, deadline=9)
    assert type(caught.value) is expected and caught.value.status == status
    repeated = 3 if expected is ServerError else 1
    assert len(server.requests) == len(caught.value.receipt.attempts) == repeated
    assert KEY not in f"{caught.value} {caught.value!r} {caught.value.receipt!r} {caught.value.__cause__!r} {caplog.text}"


async def test_a_failure_that_passes_is_met_by_asking_again(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer("", status=503)
    server.answer("{", end="reset", cut_at=0)
    server.answer_json(media.images(media.PNG))
    answer = await llm.query("gpt-image-2", prompt=PROMPT)
    assert len(answer.receipt.attempts) == len(server.requests) == 3
    assert ProviderConnectionError.__name__ in answer.receipt.attempts[1].error


@pytest.mark.parametrize(
    "answered",
    [{"created": 1}, {"created": 1, "data": []}, {"created": 1, "data": [{}]}, {"created": 1, "data": [{"b64_json": "x"}]}],
    ids=str,
)
async def test_an_answer_without_an_image(llm: QueryLLM, server: ScriptedServer, answered: Any) -> None:
    server.answer_json(answered, times=None)
    with pytest.raises(ServerError, match="answered with"):
        await llm.query("gpt-image-2", prompt=PROMPT)


async def test_an_image_that_never_comes(server: ScriptedServer) -> None:
    PROVIDER_CONFIGS["openai"] = attrs.evolve(PROVIDER_CONFIGS["openai"], generate_map={"gpt-image-*": openai_image}, max_retries=0)
    clock = FakeClock()
    server.answer("", delay=FOREVER)
    llm = QueryLLM(openai_api_key=KEY, openai_api_base=server.base_url, clock=clock)
    asking = asyncio.create_task(llm.query("gpt-image-2", prompt=PROMPT, timeout=30))
    assert await server.until_asked()
    await clock.advance(31)
    with pytest.raises(RequestTimeoutError):
        await asking


async def test_a_sync_client_does_not_hold_up_the_loop(server: ScriptedServer) -> None:
    threads = []

    class Client:
        def __init__(self, **settings: Any) -> None:
            self.images = self

        def generate(self, **arguments: Any) -> Any:
            threads.append(threading.current_thread())
            assert arguments == {"model": "mine", "prompt": PROMPT, "anything": 1}  # it takes what comes, so no extra_body

            class Answer:
                data = (type("Item", (), {"url": LINK, "b64_json": None}),)

            return Answer()

    PROVIDER_CONFIGS["acme"] = {
        "base_url": server.base_url,
        "client_class": Client,
        "requires_key": False,
        "generate_map": {"acme-image": openai_image, "mine": openai_image},
    }
    answer = await QueryLLM().query("acme/mine", prompt=PROMPT, anything=1)
    assert answer.content == LINK
    assert threads != [threading.main_thread()]


# Speech


@every_way
async def test_speech_by_method_name(llm: QueryLLM, server: ScriptedServer, how: str) -> None:
    server.answer(b"ID3audio", headers={"content-type": "audio/mpeg"})
    answer = await asked(llm, how, "tts-1")
    assert media.read_speech(server.request, KEY) == {"model": "tts-1", "input": PROMPT, "voice": "alloy", "response_format": "mp3"}
    assert (answer.content, answer.audio) == ("", Audio(b"ID3audio", "audio/mpeg", transcript=PROMPT))
    assert (answer.usage.characters, answer.usage.input_tokens, answer.provider) == (len(PROMPT), None, "openai")


@pytest.mark.parametrize("name", ["format", "response_format"])
@pytest.mark.parametrize(
    ("format", "media_type"),
    [
        ("wav", "audio/wav"),
        ("opus", "audio/opus"),
        ("aac", "audio/aac"),
        ("flac", "audio/flac"),
        ("pcm", "audio/pcm"),
        ("new", "audio/new"),
    ],
)
async def test_speech_by_function_in_every_format(llm: QueryLLM, server: ScriptedServer, name: str, format: str, media_type: str) -> None:
    server.answer(b"\x00\x01audio", headers={"content-type": media_type})
    options = {"voice": "marin", "speed": 1.5, "instructions": "Whisper."}
    answer = await llm.query("gpt-4o-mini-tts", prompt=PROMPT, **options, **{name: format})
    body = media.read_speech(server.request, KEY)
    assert body == {"model": "gpt-4o-mini-tts", "input": PROMPT, "response_format": format, **options}
    assert (answer.audio.data, answer.audio.media_type, answer.audio.sample_rate) == (b"\x00\x01audio", media_type, 24_000)


@pytest.mark.parametrize(
    ("messages", "options", "said"),
    [
        (parts(text=""), {}, "has no text: say what is to be spoken"),
        ([{"role": "assistant", "content": "x"}], {}, "has no text"),
        (parts(), {"format": "wav", "response_format": "mp3"}, "one option"),
    ],
)
async def test_speech_of_nothing_is_refused(llm: QueryLLM, server: ScriptedServer, messages: Any, options: Any, said: str) -> None:
    with pytest.raises(InvalidRequestError, match=said):
        await llm.query("tts-1", messages, **options)
    assert server.requests == []


async def test_an_answer_without_audio(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer(b"", times=None)
    with pytest.raises(ServerError, match="without audio"):
        await llm.query("tts-1", prompt=PROMPT)


# A user's own, which is written in the same way


async def test_a_generator_of_ones_own_is_written_alike(server: ScriptedServer) -> None:
    async def poster(provider: Any, messages: Any, model: str, **options: Any) -> LLMResponse:
        drawn = await openai_image(provider, messages, "gpt-image-2", size="1024x1536", **options)
        spoken = await provider.speech(messages, "tts-1", format="wav")
        drawn.audio = spoken.audio
        return drawn

    PROVIDER_CONFIGS["openai"] = attrs.evolve(PROVIDER_CONFIGS["openai"], generate_map={"poster": poster})
    server.answer_json(media.images(media.PNG))
    server.answer(b"RIFFaudio", headers={"content-type": "audio/wav"})
    answer = await QueryLLM(openai_api_key=KEY, openai_api_base=server.base_url).query("poster", prompt=PROMPT)
    assert (answer.images[0].data, answer.audio.data, answer.model_name) == (media.PNG, b"RIFFaudio", "poster")
