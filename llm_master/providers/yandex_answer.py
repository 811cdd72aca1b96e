"""YandexGPT's answers, whole and streamed.

Source: https://yandex.cloud/en/docs/ai-studio/text-generation/api-ref/TextGeneration/completion
"""

from __future__ import annotations

import contextlib
import re
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from llm_master.errors import ProviderError, ServerError
from llm_master.providers.bodies import unreadable
from llm_master.providers.counts import count
from llm_master.providers.failures import BAD_JSON, error_of, failure_of
from llm_master.providers.stream_reader import StreamReader
from llm_master.types import LLMResponse, StreamEnd, StreamEvent, ToolCall, ToolCallDelta, Usage, WireAnswer

_STATUS = "ALTERNATIVE_STATUS_"

FINISH_REASONS = {
    "FINAL": "stop",
    "TRUNCATED_FINAL": "length",
    "CONTENT_FILTER": "content_filter",
    "TOOL_CALLS": "tool_calls",
}
"""Final statuses in the field's words."""

PARTIAL = f"{_STATUS}PARTIAL"

UNFINISHED = ("PARTIAL", "UNSPECIFIED", "")

GRPC = {2: 500, 3: 400, 4: 504, 5: 404, 7: 403, 8: 429, 9: 400, 11: 400, 12: 501, 13: 500, 14: 503, 16: 401}
"""Codes of gRPC as statuses of HTTP: https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto"""


class WireMessage(msgspec.Struct, rename="camel"):
    """``message``: text, or calls."""

    text: Any = None
    tool_call_list: Any = None


class WireAlternative(msgspec.Struct):
    """``alternatives[]``."""

    message: WireMessage | None = None
    status: Any = None


class CompletionDetails(msgspec.Struct, rename="camel"):
    """``usage.completionTokensDetails``."""

    reasoning_tokens: Any = None


class WireUsage(msgspec.Struct, rename="camel"):
    """``usage``. Its numbers come as strings."""

    input_text_tokens: Any = None
    completion_tokens: Any = None
    completion_tokens_details: CompletionDetails | None = None


class WireResult(msgspec.Struct):
    """``result``. Its usage is read once, although each line of a stream has one."""

    alternatives: list[WireAlternative] | None = None
    usage: msgspec.Raw = msgspec.Raw()


class WireAnswerBody(msgspec.Struct):
    """A whole answer, or a line of a stream. The result may stand without the object around it."""

    result: WireResult | None = None
    alternatives: list[WireAlternative] | None = None
    usage: msgspec.Raw = msgspec.Raw()
    error: Any = None
    message: Any = None


_decode = msgspec.json.Decoder(WireAnswerBody).decode

_decode_usage = msgspec.json.Decoder(WireUsage | None).decode

_STRING = re.compile(rb'(?:[^"\\]+|\\.)*', re.DOTALL)
"""What stands between the quotes of a JSON string."""

_TEXT = re.compile(rb'"text":\s*"(%s)"' % _STRING.pattern, re.DOTALL)


def read_answer(body: bytes, *, status: int, request_id: str | None, model: str) -> LLMResponse:
    """Make an answer of the body of a 2xx.

    Raises:
        ProviderError: The body holds an error, cannot be read, or has no answer in it.
    """
    try:
        answer = _decode(body)
    except BAD_JSON as exc:
        raise unreadable(body, exc, status, request_id, model) from exc
    alternative, usage = _first(answer)
    if answer.error or (alternative is None and answer.message):
        raise in_body(msgspec.json.decode(body), model, status=status, request_id=request_id)
    if alternative is None or alternative.message is None:
        raise ServerError(f"answered {status} without any alternative: {body[:120]!r}", status=status, model=model, request_id=request_id)
    text = alternative.message.text
    return LLMResponse(
        text if text.__class__ is str else "",
        model,
        read_usage(usage),
        finish_reason=_finish(alternative.status),
        tool_calls=[ToolCall.from_text(call.id or "", call.name or "", call.arguments) for call in _calls(alternative.message)],
        wire=WireAnswer(status, request_id, body),
    )


def read_usage(raw: bytes) -> Usage:
    """Bring it to our convention; completion tokens hold the reasoning already. One that cannot be read is unknown."""
    wire = None
    if raw:
        with contextlib.suppress(*BAD_JSON):
            wire = _decode_usage(raw)
    if wire is None:
        return Usage()
    details = wire.completion_tokens_details
    return Usage(
        count(wire.input_text_tokens),
        count(wire.completion_tokens),
        reasoning_tokens=count(details.reasoning_tokens) if details is not None else None,
    )


def in_body(content: Any, model: str, *, status: int | None, request_id: str | None) -> ProviderError:
    """The error for an error object that came under 200: its own code says which."""
    inner = content.get("error") if isinstance(content.get("error"), dict) else content
    code = inner.get("httpCode")
    if not isinstance(code, int):
        code = GRPC.get(inner.get("grpcCode", inner.get("code")))
    error = error_of(code, {}, failure_of(content), model=model)
    error.status, error.request_id = error.status or status, request_id
    return error


def _first(answer: WireAnswerBody) -> tuple[WireAlternative | None, msgspec.Raw]:
    alternatives, usage = answer.alternatives, answer.usage
    if answer.result is not None:
        alternatives, usage = answer.result.alternatives, answer.result.usage
    return (alternatives[0] if alternatives else None), usage


def _finish(status: Any) -> str | None:
    """Why it ended; ``None`` where it has not."""
    if not isinstance(status, str):
        return None
    word = status.removeprefix(_STATUS)
    return None if word in UNFINISHED else FINISH_REASONS.get(word, word.lower())


def _calls(message: WireMessage) -> Iterator[ToolCallDelta]:
    """The calls of a message, which all come whole. The API does not name them, and a result must name one."""
    listed = message.tool_call_list.get("toolCalls") if isinstance(message.tool_call_list, dict) else None
    for number, item in enumerate(listed if isinstance(listed, list) else ()):
        call = item.get("functionCall") if isinstance(item, dict) else None
        if isinstance(call, dict):
            arguments = call.get("arguments")
            if not isinstance(arguments, str):
                arguments = msgspec.json.encode(arguments or {}).decode()
            yield ToolCallDelta(number, f"call_{uuid.uuid4().hex[:24]}", str(call.get("name") or ""), arguments)


class LineReader(StreamReader):
    """Events of one stream, of which each line holds all of the answer so far.

    What a line adds is handed out. The API says that what it wrote may change until the end, and what was handed out cannot be
    taken back: while a line does not go on from there, nothing is, and the last line decides.

    A line that begins with the same bytes as the last one is read without what it repeats, so that a long answer costs what it
    is long, and not the square of that.
    """

    def __init__(self, model: str, status: int | None, request_id: str | None) -> None:
        super().__init__(model, status, request_id)
        self._said: list[str] = []
        self._finish_reason: str | None = None
        self._usage = msgspec.Raw()
        # A line up to where its text begins, and up to where the text that was handed out ends.
        self._head = b""
        self._before = b""

    def read(self, pieces: Sequence[bytes]) -> list[str | StreamEvent]:
        """As the base's, with a short way for the lines that go on from the last one and do not end: nearly all."""
        events: list[str | StreamEvent] = []
        for data in pieces:
            text = self._added(data)
            if text is None:
                events += super().read((data,))
                if self.failure is not None or self.done:
                    break
            elif text:
                events.append(text)
        self.began = self.began or bool(events)
        return events

    def _added(self, data: bytes) -> str | None:
        """What a line adds to the last one, whose beginning it repeats; ``None`` where it must be read as a whole."""
        before = self._before
        if not before or not data.startswith(before):
            return None
        rest = data[len(before) :]
        try:
            line = _decode(self._head + rest)
        except BAD_JSON:
            return None
        result = line.result or line
        alternatives = result.alternatives
        if not alternatives or alternatives[0].status != PARTIAL or (message := alternatives[0].message) is None or line.error:
            return None
        text = message.text
        if text.__class__ is not str or message.tool_call_list is not None:
            return None
        self._usage = result.usage or self._usage
        if text:
            end = rest.find(b'"')
            if b"\\" in rest[:end]:
                end = _STRING.match(rest).end()  # type: ignore[union-attr]  # it matches nothing, too
            self._before = data[: len(before) + end]
            self._said.append(text)
        return str(text)

    def events_of(self, data: bytes) -> Iterator[str | StreamEvent]:
        """Events of one line."""
        line = _decode(data)
        alternative, usage = _first(line)
        if line.error or (alternative is None and line.message):
            raise in_body(msgspec.json.decode(data), self.model, status=self.wire.status, request_id=self.wire.request_id)
        self._usage = usage or self._usage
        if alternative is None:
            return
        message, reason = alternative.message, _finish(alternative.status)
        text: Any = message.text if message is not None else None
        changed = False
        if text.__class__ is str and text:
            said = "".join(self._said)
            changed = not text.startswith(said) and text.rstrip() != said.rstrip()
            if len(text) > len(said) and text.startswith(said):
                self._remember(data)
                self._said = [text]
                yield text[len(said) :]
        if reason is None:
            return
        self._finish_reason, self.done = reason, True
        if message is not None:
            yield from _calls(message)
        if changed and reason in ("stop", "length"):
            raise self.broken(f"the provider changed what it had said before: it ends as {text[-80:]!r}")

    def _remember(self, data: bytes) -> None:
        """Where the text stands in a line; nothing where it is not found at once."""
        self._head = self._before = b""
        if (found := _TEXT.search(data)) is None:
            return
        head = data[: found.start(1)]
        with contextlib.suppress(*BAD_JSON):
            # It is that text, and no other that is called so, if without it the answer has none.
            alternative, _ = _first(_decode(head + data[found.end(1) :]))
            if alternative is not None and alternative.message is not None and alternative.message.text == "":
                self._head, self._before = head, data[: found.end(1)]

    def usage_so_far(self) -> Usage | None:
        """Usage, if it has come."""
        return read_usage(self._usage) if self._usage else None

    def end(self) -> StreamEnd:
        """The last event.

        Raises:
            ServerError: The stream ended before the answer did.
        """
        if self._finish_reason is None:
            raise self.broken("the stream ended without a final status")
        return StreamEnd(finish_reason=self._finish_reason, usage=self.usage_so_far(), wire=self.wire)
