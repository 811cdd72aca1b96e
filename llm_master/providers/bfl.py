"""Black Forest Labs' FLUX: a task is submitted, and asked about until it is done.

Sources: https://docs.bfl.ai/quick_start/generating_images, https://docs.bfl.ai/api_integration/integration_guidelines,
https://docs.bfl.ai/api_integration/errors, https://api.bfl.ai/openapi.json
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import attrs
import msgspec

from llm_master.errors import (
    AuthenticationError,
    ContentPolicyError,
    InvalidRequestError,
    ProviderConnectionError,
    ProviderError,
    ServerError,
)
from llm_master.media import Image, from_data_uri
from llm_master.providers.base import BaseLLMProvider, Translation, extract_prompt
from llm_master.providers.bodies import encoded, unreadable
from llm_master.providers.failures import BAD_JSON, failure_of, request_id
from llm_master.providers.http import HTTPProvider
from llm_master.providers.stream_reader import StreamReader
from llm_master.transport import Answer, Endpoint
from llm_master.types import LLMResponse, Message, Usage, WireAnswer

CREDIT = Decimal("0.01")
"""US dollars of one credit: https://docs.bfl.ai/quick_start/pricing"""

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 2.0
"""Seconds between two questions: at first, and at most."""

FAULTS = 10
"""Questions in a row that may come to nothing, by the network or by the server, before the attempt fails."""

RESUME = 60.0
"""Seconds within which an attempt goes on with the task of the one before it."""

UNKNOWN = 5
"""Times in a row that a task may be unknown: where it was submitted and where it is asked about need not be one machine."""

_FAMILY = "bfl.ai"
"""The API answers under api.bfl.ai, api.eu.bfl.ai, api.us1.bfl.ai, ...; any of them may be where a task is asked about."""

_REFUSED = frozenset(
    "audio background best_of frequency_penalty function_call functions logit_bias logprobs max_completion_tokens max_tokens metadata "
    "modalities moderation parallel_tool_calls prediction presence_penalty quality reasoning_effort response_format service_tier stop store "
    "stream_options style temperature tool_choice tools top_k top_logprobs top_p user verbosity voice web_search_options".split()
)
"""What OpenAI's API has and this one has no word for."""


@attrs.frozen
class Task:
    """A task that was submitted.

    Attributes:
        id: By which the API knows it.
        endpoint: Where it is asked about, with the key that submitted it.
        cost: What it costs, in credits, where the API said so.
        request_id: The API's id of the submission.
    """

    id: str
    endpoint: Endpoint
    cost: Any
    request_id: str | None


_unfinished: ContextVar[tuple[bytes, float, Task] | None] = ContextVar("_unfinished", default=None)
"""The task of an attempt that ended before the task did: what was asked for, and when (on the loop's time) it was left. It is paid
for, so the next attempt of the same query goes on with it instead of submitting it again. It lives in the context of whoever
asks, not on the provider."""


class BFLProvider(HTTPProvider):
    """``flux-*``. Options are the API's own (``width``, ``height``, ``aspect_ratio``, ``seed``, ``output_format``, ...).

    Images in the last user message go along as input. ``content`` is the image's address, which holds for ten minutes;
    ``usage.cost`` is what the API says that it charges.
    """

    # One image, which comes at once: there is nothing to stream.
    stream = BaseLLMProvider.stream

    def headers(self, options: Mapping[str, Any]) -> dict[str, str]:
        """Headers of a request."""
        return {"x-key": self.api_key} if self.api_key else {}

    def translate(self, model: str, options: Mapping[str, Any]) -> Translation:
        """OpenAI's options in the API's words: ``size`` is ``width`` and ``height``, and there is always one image.

        Raises:
            InvalidRequestError: A size that is none.
        """
        result = Translation()
        for name, value in options.items():
            if name == "size":
                found = re.fullmatch(r"(\d+)x(\d+)", str(value))
                if not found:
                    raise InvalidRequestError(f'size is {value!r}: give "1024x768", or aspect_ratio="4:3"')
                result.options |= {"width": int(found[1]), "height": int(found[2])}
                result.renamed[name] = "width, height"
            elif name == "n" and value == 1:
                result.dropped.append(name)
            elif name == "n" or name in _REFUSED:
                result.unsupported.append(name)
            else:
                result.options[name] = value
        return result

    def prepare(self, messages: Sequence[Message], model: str, options: Mapping[str, Any], *, stream: bool) -> tuple[str, dict[str, Any]]:
        """Path and body of a submission."""
        prompt = extract_prompt(messages)
        body: dict[str, Any] = {"prompt": prompt} if prompt.strip() else {}
        for name, image in zip(_image_fields(model), images := _images(messages), strict=False):
            body[name] = image
        if len(images) > len(_image_fields(model)):
            raise InvalidRequestError(f"{model} takes {len(_image_fields(model))} image(s), and the message holds {len(images)}")
        if twice := body.keys() & options.keys():
            raise InvalidRequestError(f"{', '.join(sorted(twice))}: given as an option and in the message; give it once")
        if not body and not options.get("prompt"):
            raise InvalidRequestError("the last user message has no text: say what the image should show")
        return f"/{model}", {**body, **options}

    async def generate(self, messages: Sequence[Message], model: str, **options: Any) -> LLMResponse:
        """Submit a task and wait until it is done.

        A question about the task that is lost on the way is asked again; the task itself is never submitted twice for it.

        Raises:
            ContentPolicyError: The request or the image was moderated.
            ServerError: The task failed.
            ProviderError: The task is not known any more or has no image, or the API names a place to ask that is not its own.
        """
        path, body = self.prepare(messages, model, options, stream=False)
        endpoint = await self.endpoint(path, options)
        asked = endpoint.url.encode() + b" " + encoded(body)
        now = asyncio.get_running_loop().time
        left = _unfinished.get()
        _unfinished.set(None)
        if left is not None and left[0] == asked and now() - left[1] < RESUME:
            task = left[2]
        else:
            task = self._task(await endpoint.post(encoded(body)), model, endpoint)
        try:
            return await self._result(task, model, str(body.get("prompt", "")))
        except (asyncio.CancelledError, _Lost) as exc:
            _unfinished.set((asked, now(), task))
            if isinstance(exc, _Lost):
                raise exc.error from exc
            raise

    def read_answer(self, body: bytes, *, status: int, request_id: str | None, model: str) -> LLMResponse:
        """Make an answer of a task that is done.

        Raises:
            ProviderError: It has no image.
        """
        content = _decoded(body) or {}
        result = content.get("result")
        url = result.get("sample") if isinstance(result, Mapping) else None
        if not isinstance(url, str) or not url:
            # Not a ServerError: it was made, and so paid for, and is not submitted again unasked.
            raise ProviderError(
                "the task is done and has no image: ask again for a new one", status=status, model=model, request_id=request_id
            )
        image = Image.from_url(url)
        image.revised_prompt = result.get("prompt") if isinstance(result, Mapping) else None
        usage = Usage(images=1, cost=_dollars(content.get("cost")))
        wire = WireAnswer(status, request_id, body)
        return LLMResponse(image.url or "", model, usage, images=[image], finish_reason="stop", wire=wire)

    def reader(self, model: str, status: int, request_id: str | None) -> StreamReader:
        """There is no stream."""
        raise NotImplementedError

    def _task(self, answer: Answer, model: str, endpoint: Endpoint) -> Task:
        """The task that a submission made."""
        if not 200 <= answer.status < 300:
            raise self.refused(answer, model, endpoint)
        submitted = request_id(answer.headers)
        content = _decoded(answer.body)
        if content is None or not isinstance(content.get("id"), str):
            raise unreadable(answer.body, ValueError("no id of a task"), answer.status, submitted, model)
        place = content.get("polling_url") or f"{(self.config.base_url or '').rstrip('/')}/get_result?id={content['id']}"
        if not self._is_own(str(place)):
            # It cannot be asked about without the key. Sending it again would end here again.
            raise ProviderError(
                f"the API names {str(place).partition('?')[0]!r} as the place to ask about task {content['id']}, which is not its own: "
                "the key is not sent there. Set base_url to the API itself",
                status=answer.status,
                model=model,
                request_id=submitted,
            )
        return Task(content["id"], self.new_endpoint("", self.headers({}), str(place)), content.get("cost"), submitted)

    def _is_own(self, url: str) -> bool:
        """Whether the key may be sent to ``url``: it is on the row's own host, or both are BFL's."""
        try:
            place, base = urlsplit(url), urlsplit(self.config.base_url or "")
            if place.username is not None or place.scheme != base.scheme:
                return False
            if (place.hostname, place.port) == (base.hostname, base.port):
                return True
            hosts = (place.hostname or "", base.hostname or "")
            return place.port in (None, 443) and all(host == _FAMILY or host.endswith(f".{_FAMILY}") for host in hosts)
        except ValueError:
            return False

    async def _result(self, task: Task, model: str, prompt: str) -> LLMResponse:
        """Ask about a task until it is done; whoever cancels this ends the questions. What never ends, the attempt's time limit does."""
        pause, faults, unknown = FIRST_PAUSE, 0, 0
        while True:
            await self._pause(pause)
            pause = min(pause * 1.25, LONGEST_PAUSE)
            try:
                answer = await task.endpoint.get()
            except ProviderConnectionError as exc:
                faults = _one_more(faults, exc)
                continue
            content = _decoded(answer.body)
            status = content.get("status") if content is not None else None
            if not isinstance(status, str):
                faults = _one_more(faults, self._fault(answer, model, task))
                continue
            faults = 0
            if status == "Ready":
                response = self.read_answer(answer.body, status=answer.status, request_id=task.request_id, model=model)
                if response.usage.cost is None:
                    response.usage.cost = _dollars(task.cost)
                if response.images[0].revised_prompt == prompt:
                    response.images[0].revised_prompt = None  # it was not rewritten
                return response
            unknown = unknown + 1 if status == "Task not found" else 0
            if unknown > UNKNOWN or status in _ENDS:
                raise _ended(status, content or {}, task, answer.status, model)

    def _fault(self, answer: Answer, model: str, task: Task) -> ProviderError:
        """The error for an answer about a task that says nothing about it. Raised at once where asking again would not help."""
        if 200 <= answer.status < 300:
            return unreadable(answer.body, ValueError("no status of a task"), answer.status, task.request_id, model)
        error = self.refused(answer, model, task.endpoint)
        if answer.status < 500 and answer.status not in (404, 408, 409, 425, 429):
            raise error
        return error

    def refused(self, answer: Answer, model: str, endpoint: Endpoint) -> ProviderError:
        """The error for an answer that is no 2xx. A wrong key is answered by a 403 that says "Not authenticated"."""
        error = super().refused(answer, model, endpoint)
        if answer.status == 403 and "not authenticated" in str(error).lower():
            return AuthenticationError(str(error), status=403, model=model, request_id=error.request_id)
        return error

    async def _pause(self, seconds: float) -> None:
        """Wait between two questions. A class of its own may wait otherwise, as tests do."""
        await asyncio.sleep(seconds)


class _Lost(Exception):
    """A task could not be asked about for so long that the attempt ends; the task does not."""

    def __init__(self, error: ProviderError) -> None:
        super().__init__(str(error))
        self.error = error


_ENDS = {"Request Moderated", "Content Moderated", "Error", "Failed"}
"""What a task may end as beside ``Ready``. Any other status, known or not, is one on the way."""


def _ended(status: str, content: Mapping[str, Any], task: Task, http_status: int, model: str) -> ProviderError:
    """The error for a task that ended without an image."""
    details = content.get("details") or content.get("error")
    more = f": {failure_of(details).message}" if details else ""
    facts: dict[str, Any] = {"status": http_status, "model": model, "request_id": task.request_id, "code": status}
    if status.endswith("Moderated"):
        what = "the request" if status.startswith("Request") else "the image"
        return ContentPolicyError(f"{what} was refused by moderation{more}", **facts)
    if status == "Task not found":
        # Not a ServerError: it may have been paid for, so it is not submitted again unasked.
        return ProviderError(f"task {task.id} is not known (any more){more}: ask again for a new image", **facts)
    return ServerError(f"task {task.id} failed{more}", **facts)


def _one_more(faults: int, error: ProviderError) -> int:
    if faults + 1 >= FAULTS:
        raise _Lost(error)
    return faults + 1


def _decoded(body: bytes) -> dict[str, Any] | None:
    try:
        content = msgspec.json.decode(body)
    except BAD_JSON:
        return None
    return content if isinstance(content, dict) else None


def _dollars(credits: Any) -> Decimal | None:
    is_number = isinstance(credits, (int, float)) and not isinstance(credits, bool)
    return Decimal(str(credits)) * CREDIT if is_number else None


def _images(messages: Sequence[Message]) -> list[str]:
    """The images of the last user message: base64, or an address, which the API fetches itself."""
    last = next((message for message in reversed(messages) if message.get("role") == "user"), {})
    content = last.get("content")
    found = []
    for part in content if isinstance(content, Sequence) and not isinstance(content, str) else ():
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "image_url":
            link = part["image_url"]
            url = str(link["url"] if isinstance(link, Mapping) else link)
            found.append(url.partition(",")[2] if from_data_uri(url) is not None else url)
        elif kind not in ("text", "input_text"):
            raise InvalidRequestError(f"a part of type {kind!r} is not known to this API: give text and images")
    return found


def _image_fields(model: str) -> list[str]:
    """Under which names a model takes images (https://docs.bfl.ai/api-reference)."""
    if any(word in model for word in ("fill", "expand", "outpainting", "erase", "deblur")):
        return ["image"]
    if model.startswith(("flux-pro", "flux-dev")):
        return ["image_prompt"]
    return ["input_image", *(f"input_image_{number}" for number in range(2, 9))]
