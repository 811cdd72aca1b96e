"""Black Forest Labs: a task is submitted once, asked about until it is done, and the key stays at home.

Sources: https://docs.bfl.ai/api_integration/integration_guidelines, https://docs.bfl.ai/api_integration/errors
"""

from __future__ import annotations

import asyncio
import json
import logging
from decimal import Decimal
from typing import Any

import attrs
import pytest
from servers import media
from servers.scripted import FOREVER, ScriptedServer

from llm_master import (
    PROVIDER_CONFIGS,
    AuthenticationError,
    ContentPolicyError,
    DeadlineExceededError,
    Image,
    InsufficientFundsError,
    InvalidRequestError,
    LLMError,
    PermissionDeniedError,
    ProviderConfig,
    ProviderError,
    QueryLLM,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
)
from llm_master.providers.bfl import FAULTS, FIRST_PAUSE, LONGEST_PAUSE, BFLProvider
from llm_master.testing import FakeClock

KEY = "bfl-secret-0123456789"
SAMPLE = "https://delivery.bfl.ai/results/1/sample.jpeg?sig=abc"
PROMPT = "race car on a track"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(auto_advance=True)


@pytest.fixture
def llm(clock: FakeClock, server: ScriptedServer) -> QueryLLM:
    class OnTheClock(BFLProvider):
        async def _pause(self, seconds: float) -> None:
            await clock.sleep(seconds)

    PROVIDER_CONFIGS["bfl"] = attrs.evolve(PROVIDER_CONFIGS["bfl"], provider_class=OnTheClock)
    return QueryLLM(bfl_api_key=KEY, bfl_api_base=server.base_url, clock=clock)


def posts(server: ScriptedServer) -> list[Any]:
    return [media.read_submission(request, KEY) for request in server.requests if request.method == "POST"]


def polls(server: ScriptedServer) -> list[str]:
    return [media.read_poll(request, KEY) for request in server.requests if request.method == "GET"]


def submits(server: ScriptedServer, id: str = "task-1", **rest: Any) -> None:
    server.answer_json(media.submitted(server.url, id, **rest))


# Submit and poll


async def test_the_example_of_the_guide(llm: QueryLLM, server: ScriptedServer, clock: FakeClock) -> None:
    submits(server, cost=4.0, input_mp=0.0, output_mp=0.79)
    for status in ("Pending", "Pending", "Pending"):
        server.answer_json(media.task(status))
    server.answer_json(media.done(SAMPLE, prompt=PROMPT))
    answer = await llm.query(model_name="flux-pro-1.1", messages=[{"role": "user", "content": PROMPT}], width=1024, height=768)
    assert answer.content == str(answer) == SAMPLE
    assert answer.images == [Image(url=SAMPLE)]
    assert posts(server) == [("flux-pro-1.1", {"prompt": PROMPT, "width": 1024, "height": 768})]
    assert polls(server) == ["task-1"] * 4
    assert (answer.usage.images, answer.usage.cost, answer.cost) == (1, Decimal("0.04"), Decimal("0.04"))
    assert (answer.receipt.cost_state, answer.receipt.currency) == ("billed", "USD")
    assert (answer.provider, answer.finish_reason, answer.raw["status"]) == ("bfl", "stop", "Ready")
    assert clock.sleeps[0] == FIRST_PAUSE and clock.sleeps == sorted(clock.sleeps)


@pytest.mark.parametrize("how", ["query", "stream", "query with stream"])
async def test_from_a_prompt_whole_and_as_a_stream_it_is_made_and_paid_once(llm: QueryLLM, server: ScriptedServer, how: str) -> None:
    submits(server, cost=3)
    server.answer_json({**media.done(SAMPLE, prompt="A red race car on a wet track"), "cost": 4.5})
    if how == "query":
        answer = await llm.query("flux-2-pro", prompt=PROMPT)
    else:
        stream = (
            await llm.query("flux-2-pro", prompt=PROMPT, stream=True)
            if how == "query with stream"
            else llm.stream("flux-2-pro", prompt=PROMPT)
        )
        assert [piece async for piece in stream] == [SAMPLE]
        answer = stream.response
    assert (answer.content, answer.cost) == (SAMPLE, Decimal("0.045"))  # what was settled, where that is said
    assert answer.images[0].revised_prompt == "A red race car on a wet track"
    assert posts(server) == [("flux-2-pro", {"prompt": PROMPT})] and len(polls(server)) == 1


async def test_the_provider_alone_means_its_default_model(llm: QueryLLM, server: ScriptedServer) -> None:
    submits(server)
    server.answer_json(media.done(SAMPLE))
    answer = await llm.query("bfl", prompt=PROMPT)
    assert posts(server)[0][0] == "flux-2-pro"
    assert answer.usage.cost is None and answer.receipt.cost_state in ("estimated", "unknown")  # it did not say what it costs


@pytest.mark.parametrize("status", ["Pending", "Queued", "Processing", "Reasoning", "Generating", "Brand New"])
async def test_a_status_on_the_way_is_waited_for(llm: QueryLLM, server: ScriptedServer, status: str) -> None:
    submits(server)
    server.answer_json(media.task(status, progress=0.5), times=20)
    server.answer_json(media.done(SAMPLE))
    assert (await llm.query("flux-2-pro", prompt=PROMPT)).content == SAMPLE
    assert (len(posts(server)), len(polls(server))) == (1, 21)


async def test_the_pauses_grow_to_a_bound(llm: QueryLLM, server: ScriptedServer, clock: FakeClock) -> None:
    submits(server)
    server.answer_json(media.task("Pending"), times=20)
    server.answer_json(media.done(SAMPLE))
    await llm.query("flux-2-pro", prompt=PROMPT)
    assert clock.sleeps[0] == FIRST_PAUSE and clock.sleeps[-1] == LONGEST_PAUSE == max(clock.sleeps)


@pytest.mark.parametrize(("status", "what"), [("Request Moderated", "the request"), ("Content Moderated", "the image")])
@pytest.mark.parametrize("http", [200, 503])
async def test_moderated(llm: QueryLLM, server: ScriptedServer, status: str, what: str, http: int) -> None:
    submits(server)
    server.answer_json(media.task(status, details={"Moderation Reasons": ["Derivative Works Filter"]}), status=http)
    with pytest.raises(ContentPolicyError, match=f"{what} was refused by moderation.*Derivative Works Filter") as caught:
        await llm.query("flux-2-pro", prompt=PROMPT)
    assert caught.value.code == status
    assert (len(posts(server)), len(polls(server)), len(caught.value.receipt.attempts)) == (1, 1, 1)


@pytest.mark.parametrize("status", ["Error", "Failed"])
async def test_a_task_that_failed_is_submitted_anew(llm: QueryLLM, server: ScriptedServer, status: str) -> None:
    submits(server)
    server.answer_json(media.task(status, details={"error": "CUDA out of memory"}))
    submits(server, "task-2")
    server.answer_json(media.done(SAMPLE, "task-2"))
    answer = await llm.query("flux-2-pro", prompt=PROMPT)
    assert answer.content == SAMPLE and polls(server) == ["task-1", "task-2"]
    assert "ServerError: bfl: task task-1 failed: CUDA out of memory" in answer.receipt.attempts[0].error


async def test_a_task_may_be_unknown_at_first(llm: QueryLLM, server: ScriptedServer) -> None:
    submits(server)
    server.answer_json(media.task("Task not found"), status=404, times=3)
    server.answer_json(media.done(SAMPLE))
    assert (await llm.query("flux-2-pro", prompt=PROMPT)).content == SAMPLE
    assert len(posts(server)) == 1


async def test_a_task_that_stays_unknown_is_not_submitted_anew(llm: QueryLLM, server: ScriptedServer) -> None:
    submits(server)
    server.answer_json(media.task("Task not found"), times=None)
    with pytest.raises(ProviderError, match="task-1 is not known.*ask again") as caught:
        await llm.query("flux-2-pro", prompt=PROMPT)
    assert type(caught.value) is ProviderError
    assert (len(posts(server)), len(polls(server))) == (1, 6)


@pytest.mark.parametrize("result", [None, {}, {"sample": None}, {"sample": ""}, "x"])
async def test_done_and_without_an_image(llm: QueryLLM, server: ScriptedServer, result: Any) -> None:
    submits(server)
    server.answer_json(media.task("Ready", result=result))
    with pytest.raises(ProviderError, match="has no image"):
        await llm.query("flux-2-pro", prompt=PROMPT)
    assert len(posts(server)) == 1


# What never ends, is cancelled, or breaks


async def test_a_poll_that_never_ends_is_ended_by_the_time_limits_and_submitted_once(llm: QueryLLM, server: ScriptedServer) -> None:
    submits(server)
    server.answer_json(media.task("Pending"), times=None)
    with pytest.raises(DeadlineExceededError) as caught:
        await llm.query("flux-2-pro", prompt=PROMPT)
    first, second = caught.value.receipt.attempts
    assert "no answer from bfl within 300 s" in first.error and "deadline of 600 s" in second.error
    assert len(posts(server)) == 1


async def test_an_attempt_goes_on_with_the_task_of_the_one_before_it(llm: QueryLLM, server: ScriptedServer) -> None:
    submits(server, cost=3)
    server.answer_json(media.task("Pending"), times=10)
    server.answer_json(media.done(SAMPLE))
    answer = await llm.query("flux-2-pro", prompt=PROMPT, timeout=10)
    assert (answer.content, answer.cost) == (SAMPLE, Decimal("0.03"))
    assert len(answer.receipt.attempts) == 2 and len(posts(server)) == 1


async def test_another_question_gets_a_task_of_its_own(llm: QueryLLM, server: ScriptedServer) -> None:
    submits(server)
    server.answer_json(media.task("Pending"), times=5)
    submits(server, "task-2")
    server.answer_json(media.done(SAMPLE, "task-2"))
    with pytest.raises(LLMError):
        await llm.query("flux-2-pro", prompt=PROMPT, deadline=2.6)
    assert (await llm.query("flux-2-pro", prompt="another")).content == SAMPLE
    assert [body["prompt"] for _, body in posts(server)] == [PROMPT, "another"]


async def test_equal_questions_at_once_are_tasks_of_their_own(llm: QueryLLM, server: ScriptedServer) -> None:
    for number in range(3):
        submits(server, f"task-{number}")
    server.answer_json(media.done(SAMPLE), times=3)
    answers = await asyncio.gather(*(llm.query("flux-2-pro", prompt=PROMPT) for _ in range(3)))
    assert len(answers) == len(posts(server)) == 3


async def test_a_timeout_of_one_attempt_is_named(llm: QueryLLM, server: ScriptedServer, clock: FakeClock) -> None:
    PROVIDER_CONFIGS["bfl"] = attrs.evolve(PROVIDER_CONFIGS["bfl"], max_retries=0)
    submits(server)
    server.answer_json(media.task("Pending"), times=None)
    llm = QueryLLM(bfl_api_key=KEY, bfl_api_base=server.base_url, clock=clock)
    with pytest.raises(RequestTimeoutError, match="within 2 s.*timeout="):
        await llm.query("flux-2-pro", prompt=PROMPT, timeout=2)


async def test_cancelling_ends_the_questions(server: ScriptedServer) -> None:
    class Quick(BFLProvider):
        async def _pause(self, seconds: float) -> None:
            await asyncio.sleep(0.002)

    PROVIDER_CONFIGS["bfl"] = attrs.evolve(PROVIDER_CONFIGS["bfl"], provider_class=Quick)
    submits(server)
    server.answer_json(media.task("Pending"), times=None)
    asking = asyncio.create_task(QueryLLM(bfl_api_key=KEY, bfl_api_base=server.base_url).query("flux-2-pro", prompt=PROMPT))
    assert await server.until_asked(4)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    asked = len(server.requests)
    await asyncio.sleep(0.1)
    assert len(server.requests) == asked


async def test_cancelling_while_an_answer_is_awaited(llm: QueryLLM, server: ScriptedServer) -> None:
    submits(server)
    server.answer_json(media.task("Pending"), delay=FOREVER)
    asking = asyncio.create_task(llm.query("flux-2-pro", prompt=PROMPT))
    assert await server.until_asked(2)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert await server.until_open(0)
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "fault",
    [
        {"end": "reset", "cut_at": 5},
        {"end": "close", "cut_at": 5},
        {"status": 500},
        {"status": 502},
        {"status": 429},
        {},
    ],
    ids=str,
)
async def test_a_fault_while_polling_asks_about_the_same_task_again(llm: QueryLLM, server: ScriptedServer, fault: dict[str, Any]) -> None:
    submits(server)
    server.answer("<html>a proxy's page</html>", times=FAULTS - 1, **fault)
    server.answer_json(media.task("Pending"))
    server.answer("<html>a proxy's page</html>", times=FAULTS - 1, **fault)
    server.answer_json(media.done(SAMPLE))
    answer = await llm.query("flux-2-pro", prompt=PROMPT)
    assert answer.content == SAMPLE and len(answer.receipt.attempts) == 1
    assert len(posts(server)) == 1


async def test_faults_without_end_fail_the_attempt_and_the_next_goes_on_with_the_task(llm: QueryLLM, server: ScriptedServer) -> None:
    submits(server)
    server.answer("{}", end="reset", cut_at=0, times=FAULTS)
    server.answer_json(media.done(SAMPLE))
    answer = await llm.query("flux-2-pro", prompt=PROMPT)
    assert answer.content == SAMPLE and len(answer.receipt.attempts) == 2
    assert "ProviderConnectionError" in answer.receipt.attempts[0].error
    assert len(posts(server)) == 1


async def test_a_refusal_while_polling_is_final(llm: QueryLLM, server: ScriptedServer) -> None:
    submits(server)
    server.answer_json({"detail": "Not authenticated"}, status=403)
    with pytest.raises(AuthenticationError):
        await llm.query("flux-2-pro", prompt=PROMPT)
    assert len(server.requests) == 2


async def test_a_submission_that_breaks_is_sent_again(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_json({"detail": "busy"}, status=503)
    submits(server)
    server.answer_json(media.done(SAMPLE))
    assert (await llm.query("flux-2-pro", prompt=PROMPT)).content == SAMPLE
    assert len(posts(server)) == 2


@pytest.mark.parametrize(
    ("status", "detail", "expected"),
    [
        (400, "Bad request", InvalidRequestError),
        (402, "Insufficient credits. Please add credits to your account.", InsufficientFundsError),
        (403, "Not authenticated - Invalid Authentication", AuthenticationError),
        (403, "This endpoint is not enabled for you", PermissionDeniedError),
        (422, [{"loc": ["body", "width"], "msg": "Input should be a multiple of 32", "type": "multiple_of"}], InvalidRequestError),
        (429, "Exceeded number of active tasks", RateLimitError),
    ],
    ids=lambda value: str(value)[:20],
)
async def test_a_submission_that_is_refused(llm: QueryLLM, server: ScriptedServer, status: int, detail: Any, expected: type) -> None:
    server.answer_json({"detail": detail}, status=status)
    with pytest.raises(ProviderError) as caught:
        await llm.query("flux-2-pro", prompt=PROMPT, deadline=1)
    assert type(caught.value) is expected and caught.value.status == status
    assert (detail if isinstance(detail, str) else "body.width: Input should be") in str(caught.value)


@pytest.mark.parametrize("body", ["", "<html>", "[]", "{}", '{"id": 7}', '"x"'])
async def test_a_submission_that_is_answered_with_garbage(llm: QueryLLM, server: ScriptedServer, body: str) -> None:
    server.answer(body, times=None)
    with pytest.raises(ServerError):
        await llm.query("flux-2-pro", prompt=PROMPT, deadline=0.1)
    assert polls(server) == []


# The key


FOREIGN = [
    "https://evil.example/v1/get_result?id=task-1",
    "https://api.us1.bfl.ai/v1/get_result?id=task-1",  # foreign to 127.0.0.1
    "http://127.0.0.1.evil.example/v1/get_result?id=task-1",
    "http://127.0.0.1@evil.example/v1/get_result?id=task-1",
    "http://localhost:1/v1/get_result?id=task-1",
    "//evil.example/x",
    "file:///etc/passwd",
    "http://[bad",
    "x",
]


@pytest.mark.parametrize("place", FOREIGN)
async def test_a_foreign_place_to_ask_gets_no_key(llm: QueryLLM, server: ScriptedServer, place: str) -> None:
    server.answer_json({"id": "task-1", "polling_url": place})
    with pytest.raises(ProviderError, match="not its own: the key is not sent there") as caught:
        await llm.query("flux-2-pro", prompt=PROMPT)
    assert KEY not in f"{caught.value!r} {caught.value.receipt!r}"
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("base", "place", "own"),
    [
        ("https://api.bfl.ai/v1", "https://api.bfl.ai/v1/get_result?id=1", True),
        ("https://api.bfl.ai/v1", "https://api.us1.bfl.ai/v1/get_result?id=1", True),
        ("https://api.eu.bfl.ai/v1", "https://api.eu2.bfl.ai/v1/get_result?id=1", True),
        ("https://api.bfl.ai/v1", "http://api.us1.bfl.ai/v1/get_result?id=1", False),
        ("https://api.bfl.ai/v1", "https://api.us1.bfl.ai:8443/v1/get_result?id=1", False),
        ("https://api.bfl.ai/v1", "https://api.bfl.ai.evil.example/v1/get_result?id=1", False),
        ("https://api.bfl.ai/v1", "https://evilbfl.ai/v1/get_result?id=1", False),
        ("https://api.bfl.ai/v1", "https://user@api.bfl.ai/v1/get_result?id=1", False),
        ("https://flux.acme.co.uk/v1", "https://evil.co.uk/v1/get_result?id=1", False),
        ("https://flux.acme.co.uk/v1", "https://api.bfl.ai/v1/get_result?id=1", False),
        ("https://flux.acme.co.uk:8443/v1", "https://flux.acme.co.uk:8443/x?id=1", True),
    ],
)
def test_what_is_the_apis_own(base: str, place: str, own: bool) -> None:
    assert BFLProvider(ProviderConfig(name="bfl", base_url=base, api_key=KEY))._is_own(place) is own


async def test_without_a_place_to_ask_it_is_the_documented_one(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_json({"id": "task-1"})
    server.answer_json(media.done(SAMPLE))
    assert (await llm.query("flux-2-pro", prompt=PROMPT)).content == SAMPLE
    assert polls(server) == ["task-1"]


async def test_the_place_to_ask_is_taken_as_it_is(llm: QueryLLM, server: ScriptedServer) -> None:
    server.answer_json({"id": "task-1", "polling_url": f"{server.base_url}/get_result?id=task-1&sig=a%2Bb%3D"})
    server.answer_json(media.done(SAMPLE))
    await llm.query("flux-2-pro", prompt=PROMPT)
    assert server.requests[1].path == "/v1/get_result?id=task-1&sig=a%2Bb%3D"


async def test_the_key_is_in_no_error_and_no_log(llm: QueryLLM, server: ScriptedServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    server.answer_json({"detail": f"bad key {KEY}"}, status=403)
    submits(server)
    server.answer_json(media.task("Content Moderated", details={"key": KEY}))
    for _ in range(2):
        with pytest.raises(ProviderError) as caught:
            await llm.query("flux-2-pro", prompt=PROMPT)
        assert KEY not in f"{caught.value!r} {caught.value} {caught.value.receipt!r} {caught.value.__cause__!r}"
    assert KEY not in caplog.text


# What is asked


async def said(llm: QueryLLM, server: ScriptedServer, model: str, *parts: Any, **options: Any) -> dict[str, Any]:
    submits(server)
    server.answer_json(media.done(SAMPLE))
    await llm.query(model, [{"role": "user", "content": [{"type": "text", "text": PROMPT}, *parts]}], **options)
    ((asked, body),) = posts(server)
    assert asked == model
    return body


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


async def test_images_of_the_message_go_along(llm: QueryLLM, server: ScriptedServer) -> None:
    body = await said(llm, server, "flux-2-pro", image(media.PNG_URI), image("https://example.com/b.png"))
    assert body == {"prompt": PROMPT, "input_image": media.b64(media.PNG), "input_image_2": "https://example.com/b.png"}


@pytest.mark.parametrize(
    ("model", "field"), [("flux-pro-1.1", "image_prompt"), ("flux-pro-1.0-fill", "image"), ("flux-kontext-pro", "input_image")]
)
async def test_older_models_call_them_otherwise(llm: QueryLLM, server: ScriptedServer, model: str, field: str) -> None:
    assert await said(llm, server, model, image(media.PNG_URI)) == {"prompt": PROMPT, field: media.b64(media.PNG)}


async def test_options(llm: QueryLLM, server: ScriptedServer) -> None:
    options = {"seed": 7, "output_format": "png", "safety_tolerance": 5, "prompt_upsampling": True}
    body = await said(llm, server, "flux-pro-1.1", size="1024x768", n=1, **options)
    assert body == {"prompt": PROMPT, "width": 1024, "height": 768, **options}


def test_a_plan(llm: QueryLLM, server: ScriptedServer) -> None:
    plan = llm.plan("flux-pro-1.1", prompt=PROMPT, size="1024x768", n=1)
    assert (plan.method, plan.url) == ("POST", f"{server.base_url}/flux-pro-1.1")
    assert plan.body == {"prompt": PROMPT, "width": 1024, "height": 768}
    assert (plan.renamed, plan.dropped) == ({"size": "width, height"}, ("n",))
    assert KEY not in json.dumps(dict(plan.headers)) and plan.headers["x-key"].endswith(KEY[-4:])
    assert server.requests == []


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"temperature": 1}, "'temperature'"),
        ({"n": 2}, "'n'"),
        ({"tools": []}, "'tools'"),
        ({"quality": "high"}, "'quality'"),
        ({"size": "large"}, "size is 'large'.*1024x768"),
    ],
    ids=str,
)
async def test_what_has_no_word_here_is_refused(llm: QueryLLM, server: ScriptedServer, options: dict[str, Any], names: str) -> None:
    with pytest.raises(InvalidRequestError, match=names):
        await llm.query("flux-2-pro", prompt=PROMPT, **options)
    assert server.requests == []


@pytest.mark.parametrize(
    ("model", "content", "options", "names"),
    [
        ("flux-2-pro", [image("https://example.com/a.png")] * 9, {}, "takes 8 image"),
        ("flux-pro-1.1", [image("https://example.com/a.png")] * 2, {}, "takes 1 image"),
        ("flux-2-pro", [image("https://example.com/a.png")], {"input_image": "x"}, "input_image.*give it once"),
        ("flux-9", [{"type": "input_audio", "input_audio": {"format": "wav", "data": "UklGRgAAAABXQVZF"}}], {}, "'input_audio'"),
        ("flux-2-pro", "", {}, "has no text"),
    ],
)
async def test_bad_input(llm: QueryLLM, server: ScriptedServer, model: str, content: Any, options: Any, names: str) -> None:
    with pytest.raises(InvalidRequestError, match=names):
        await llm.query(model, [{"role": "user", "content": content}], **options)
    assert server.requests == []
