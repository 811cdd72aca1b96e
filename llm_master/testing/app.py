"""What a fault server does with a request: who may ask, what fits the limits, which step of the script answers."""

from __future__ import annotations

import collections
import math
import time
from collections.abc import Collection
from typing import Any, Literal

import attrs
import msgspec
from aiohttp import web

from llm_master.testing import answers, sending
from llm_master.testing.scenario import KeyNames, Scenario
from llm_master.testing.script import Fault
from llm_master.testing.seen import SeenRequest
from llm_master.testing.windows import ADMITTED, Admission, Asked, Verdict

LOG_SIZE = 100_000
"""Requests that are remembered: the latest."""

_JSON = {"content-type": "application/json"}
_STREAM = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}
_TEXT = {"content-type": "text/plain; charset=utf-8"}

_PLAIN = Fault()
_DEFAULT_MODELS = ("fault-model",)

_PARTS = ("script", "limits", "keys", "models")

_Endpoint = Literal["chat", "embeddings", "models"]
_ENDPOINTS: tuple[tuple[str, str, _Endpoint], ...] = (
    ("POST", "/chat/completions", "chat"),
    ("POST", "/embeddings", "embeddings"),
    ("GET", "/models", "models"),
)


class _RefusedError(Exception):
    """The request is answered with an error, whatever the script says."""

    def __init__(self, status: int, message: str, *, code: str | None = None, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = answers.error(status, message, code=code)
        self.headers = headers or {}


class _Step:
    """A step of the script, and how often it has been taken."""

    __slots__ = ("came", "fault", "left", "number")

    def __init__(self, number: int, fault: Fault) -> None:
        self.number = number
        self.fault = fault
        self.left = math.inf if fault.times is None else fault.times
        self.came = 0

    def fits(self, seen: SeenRequest, key: str | None, *, posted: bool) -> bool:
        fault = self.fault
        return (
            (posted if fault.path is None else seen.path.endswith(fault.path))
            and fault.model in (None, seen.model)
            and fault.stream in (None, seen.stream)
            and (fault.key is None or fault.key in (key, seen.key))
        )


@attrs.define
class _Due:
    """The answer that is due: whose shape it has, and what stands in it."""

    endpoint: _Endpoint | None
    body: dict[str, Any]
    texts: list[str] = attrs.field(factory=list)
    answer: str = ""
    usage: Any = None
    input_tokens: int = 0
    output_tokens: int = 0


class FaultApp:
    """What answers requests. All of it runs on one event loop.

    Args:
        scenario: What it starts with, and comes back to at :meth:`reset`.
    """

    def __init__(self, scenario: Scenario) -> None:
        self._initial = scenario
        self._running: dict[SeenRequest, web.BaseRequest] = {}
        self.reset()

    def reset(self) -> None:
        """Be as at the start. Whoever still waits for an answer has its connection closed."""
        for request in self._running.values():
            if request.transport is not None:
                request.transport.abort()
        self._running.clear()
        self.log: collections.deque[SeenRequest] = collections.deque(maxlen=LOG_SIZE)
        self._arrived = 0
        self.play(self._initial)

    def play(self, scenario: Scenario, *, parts: Collection[str] = _PARTS) -> None:
        """Go by another scenario from now on. Of the parts that are named, what had been counted is forgotten; the log stays.

        Args:
            scenario: The whole of it.
            parts: Which of ``script``, ``limits``, ``keys`` and ``models`` are new.
        """
        self.scenario = scenario
        if "keys" in parts:
            self.names = KeyNames(scenario.keys)
            self._keys = None if scenario.keys is None else frozenset(scenario.keys.values())
        if "limits" in parts:
            self._admission = Admission(scenario.limits)
        if "script" in parts:
            self._steps = [_Step(number, fault) for number, fault in enumerate(scenario.script)]

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        raw = await request.read()
        self._arrived += 1
        # Until it is let through or not, nothing is awaited: moments come in their order, as the windows want them.
        seen = SeenRequest(number=self._arrived, at=time.monotonic(), method=request.method, path=request.path)
        self.log.append(seen)
        self._running[seen] = request
        seen.in_flight = len(self._running)
        verdict = ADMITTED
        headers = {"x-request-id": f"req-{seen.number}"}
        try:
            try:
                key, body = self._introduced(request, seen, raw)
                due = self._due(request.method, seen, body)
                steps = self._coming(seen, key, due, posted=request.method == "POST")
                if request.method == "POST":
                    verdict = self._admitted(seen, key, due)
            except _RefusedError as exc:
                return await sending.whole(request, seen, exc.status, {**_JSON, **headers, **exc.headers}, exc.body)
            seen.allowed = True
            headers.update(verdict.headers)
            return await self._answer(request, seen, self._taken(seen, steps), due, headers)
        finally:
            self._running.pop(seen, None)
            for count in verdict.counts:
                count.release()

    def _introduced(self, request: web.BaseRequest, seen: SeenRequest, raw: bytes) -> tuple[str | None, dict[str, Any]]:
        """Who asks, and what is asked."""
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        key = key.strip() if scheme.lower() == "bearer" else ""
        seen.key = self.names(key or None)
        body: Any = {}
        if raw:
            try:
                body = msgspec.json.decode(raw)
            except msgspec.DecodeError:
                body = None
            else:
                seen.body = msgspec.Raw(raw)
        if isinstance(body, dict):
            model = body.get("model")
            seen.model = model if isinstance(model, str) else None
            seen.stream = body.get("stream") is True
        if self._keys is not None and key not in self._keys:
            known = ", ".join(self.scenario.keys or ()) or "none"
            said = f"{seen.key} is none of this server's" if key else "there is none: send 'Authorization: Bearer KEY'"
            raise _RefusedError(401, f"Incorrect API key provided: {said}. Its keys are: {known}.")
        if not isinstance(body, dict):
            # Any form will do where only the script knows what is asked.
            if _endpoint(request.method, seen.path) is not None:
                raise _RefusedError(400, "The body is no JSON object.")
            body = {}
        return key or None, body

    def _due(self, method: str, seen: SeenRequest, body: dict[str, Any]) -> _Due:
        """What the server itself would answer."""
        due = _Due(_endpoint(method, seen.path), body)
        if due.endpoint not in ("chat", "embeddings"):
            return due
        if not seen.model:
            raise _RefusedError(400, "'model' must be a non-empty string.")
        if self.scenario.models is not None and seen.model not in self.scenario.models:
            raise _RefusedError(404, f"The model '{seen.model}' does not exist: there are {', '.join(self.scenario.models)}.")
        wanted = "messages" if due.endpoint == "chat" else "input"
        try:
            due.texts = answers.texts_of(body, wanted)
        except ValueError as exc:
            raise _RefusedError(400, f"{exc}.") from exc
        due.input_tokens = sum(map(answers.tokens_of, due.texts))
        if due.endpoint == "chat":
            due.answer = f"echo {seen.number}: {answers.last_question(body)}"
        return due

    def _coming(self, seen: SeenRequest, key: str | None, due: _Due, *, posted: bool) -> list[_Step]:
        """The steps that the request comes to, the last of which answers it, if it is its turn; nothing is used up yet."""
        came = []
        for step in self._steps:
            if step.fits(seen, key, posted=posted):
                came.append(step)
                if (step.came + 1) % step.fault.every == 0:
                    fault = step.fault
                    due.answer = "" if fault.status >= 400 else due.answer if fault.answer is None else fault.answer
                    due.usage = fault.usage
                    break
        if due.endpoint == "chat":
            due.output_tokens = answers.tokens_of(due.answer)
        for field, name in (("input_tokens", "prompt_tokens"), ("output_tokens", "completion_tokens")):
            if due.usage and isinstance(due.usage.get(name), int):
                setattr(due, field, due.usage[name])
        return came

    def _admitted(self, seen: SeenRequest, key: str | None, due: _Due) -> Verdict:
        seen.input_tokens, seen.output_tokens = due.input_tokens, due.output_tokens
        verdict = self._admission.admit(Asked(key, seen.key, seen.model, due.input_tokens, due.output_tokens), seen.at)
        limit = verdict.refused_by
        if limit is None:
            return verdict
        what = limit.what.replace("_", " ") if limit.what != "concurrency" else "requests in flight"
        span = "" if limit.what == "concurrency" else f" in {limit.window:g} s"
        when = f" Please try again in {math.ceil(verdict.wait * 1000)}ms." if verdict.wait < math.inf else ""
        if not when and limit.what != "concurrency":
            when = f" This one takes {Asked(None, None, None, due.input_tokens, due.output_tokens).amount(limit.what)}, and never fits."
        said = f"Rate limit reached for {seen.model or 'this server'}: {limit.limit} {what}{span}.{when}"
        raise _RefusedError(429, said, headers=verdict.headers)

    def _taken(self, seen: SeenRequest, came: list[_Step]) -> Fault:
        """Use up the step that answers."""
        for step in came:
            step.came += 1
        if not came or came[-1].came % came[-1].fault.every:
            return _PLAIN
        step = came[-1]
        seen.step = step.number
        step.left -= 1
        if not step.left:
            self._steps.remove(step)
        return step.fault

    async def _answer(
        self, request: web.BaseRequest, seen: SeenRequest, fault: Fault, due: _Due, headers: dict[str, str]
    ) -> web.StreamResponse:
        if fault.delay:
            await sending.pause(fault.delay)
        if 0 in (fault.reset_after, fault.close_after):
            return await sending.cut_off(request, reset=fault.reset_after == 0)
        if fault.garbage == "http":
            return await sending.raw(request, answers.GARBAGE_HTTP)
        status, kind, pieces = self._content(seen, fault, due)
        headers = {**kind, **headers, **{name.lower(): text for name, text in fault.headers.items()}}
        stream = kind is _STREAM
        if stream or fault.stall or fault.reset_after is not None or fault.close_after is not None:
            return await sending.in_pieces(request, seen, status, fault, headers, pieces, stream=stream)
        return await sending.whole(request, seen, status, headers, pieces[0])

    def _content(self, seen: SeenRequest, fault: Fault, due: _Due) -> tuple[int, dict[str, str], list[bytes]]:
        """Status, headers, and the events of a stream or one body."""
        status = fault.status
        if fault.body is not None:
            return status, *((_TEXT, [fault.body.encode()]) if isinstance(fault.body, str) else (_JSON, [msgspec.json.encode(fault.body)]))
        if status >= 400:
            return status, _JSON, [answers.error(status)]
        if fault.garbage == "json":
            return status, *((_STREAM, [b"data: %b\n\n" % answers.GARBAGE_JSON]) if seen.stream else (_JSON, [answers.GARBAGE_JSON]))
        model = seen.model or ""
        used = answers.usage(due.input_tokens, due.output_tokens) if due.usage is None else due.usage
        if due.endpoint == "chat":
            if not seen.stream:
                return status, _JSON, [answers.chat(seen.number, model, due.answer, used)]
            options = due.body.get("stream_options")
            wanted = isinstance(options, dict) and options.get("include_usage") is True and used
            return status, _STREAM, list(answers.chat_events(seen.number, model, due.answer, used if wanted else None))
        if due.endpoint == "embeddings":
            return status, _JSON, [answers.embeddings(model, due.texts, due.body, used)]
        if due.endpoint == "models":
            return status, _JSON, [answers.models(self.scenario.models or _DEFAULT_MODELS)]
        said = (
            f"There is nothing at {seen.path}: ask .../chat/completions, .../embeddings or .../models, or script a step with path and body."
        )
        return 404, _JSON, [answers.error(404, said, code="not_found")]


def _endpoint(method: str, path: str) -> _Endpoint | None:
    return next((endpoint for verb, end, endpoint in _ENDPOINTS if method == verb and path.endswith(end)), None)
