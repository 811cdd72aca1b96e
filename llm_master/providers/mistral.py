"""Mistral's chat completions, where they are not OpenAI's (https://docs.mistral.ai/api/#tag/chat).

A content may be a list of chunks in answers, too: the model's thoughts, its text, references to what it was given.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llm_master.errors import InvalidRequestError
from llm_master.providers import chat_format as fmt
from llm_master.providers.chat_extras import native_of
from llm_master.providers.chat_stream import ChunkReader
from llm_master.providers.unified import UnifiedProvider
from llm_master.types import Message, StreamEvent

_ID = re.compile("[a-zA-Z0-9]{9}")


class MistralProvider(UnifiedProvider):
    """``mistral-*`` and its kin: OpenAI's form goes out in the words that this API knows.

    Ids of tool calls must be nine letters or digits. Those of another provider's answers are made such, the same id always in
    the same way, so that call and result still meet. Files become ``document_url``, a ``developer`` becomes ``system``.
    """

    takes_urls = frozenset({"image", "audio", "file"})

    def prepare(self, messages: Sequence[Message], model: str, options: Mapping[str, Any], *, stream: bool) -> tuple[str, dict[str, Any]]:
        """Path and body of a request."""
        path, body = super().prepare(messages, model, options, stream=stream)
        body["messages"] = [_message(message, f"messages[{position}]") for position, message in enumerate(body["messages"])]
        return path, body

    def reader(self, model: str, status: int | None, request_id: str | None) -> ChunkReader:
        """What makes events of a stream's pieces."""
        return MistralReader(model, status, request_id, self._returns)


class MistralReader(ChunkReader):
    """A stream whose contents may be lists: put together again, they are what the next turn needs."""

    def __init__(self, model: str, status: int | None, request_id: str | None, returns: Sequence[str]) -> None:
        # The content is put together here: of its texts the short way keeps nothing.
        super().__init__(model, status, request_id)
        self._keeps_content = "content" in returns
        self._parts: list[dict[str, Any]] = []
        self._listed = False

    def read(self, pieces: Sequence[bytes]) -> list[str | StreamEvent]:
        """As the base's, noting what comes in which order."""
        if not self._keeps_content:
            return super().read(pieces)
        events: list[str | StreamEvent] = []
        for data in pieces:
            self._listed = False
            found = super().read((data,))
            if not self._listed:
                for event in found:
                    if isinstance(event, str):
                        self._add({"type": "text", "text": event})
            events += found
            if self.done or self.failure is not None:
                break
        return events

    def _delta(self, delta: fmt.WireMessage) -> Iterator[str | StreamEvent]:
        if delta.content.__class__ is list:
            self._listed = True
            for part in delta.content:
                if isinstance(part, dict):
                    self._add(part)
        return super()._delta(delta)

    def _add(self, part: dict[str, Any]) -> None:
        last = self._parts[-1] if self._parts else {}
        kind = part.get("type")
        if kind not in ("text", "thinking") or last.get("type") != kind or last.get("signature"):
            self._parts.append(dict(part))
        elif kind == "text":
            last["text"] = f"{last.get('text') or ''}{part.get('text') or ''}"
        else:
            last |= {key: value for key, value in part.items() if value is not None} | {
                "thinking": _joined(last.get("thinking"), part.get("thinking"))
            }

    def _native(self) -> dict[str, Any] | None:
        return native_of({"content": self._parts})


def _joined(before: Any, more: Any) -> list[Any]:
    """Pieces of a thought, its texts in one."""
    inner = [*(before if isinstance(before, list) else ())]
    for part in more if isinstance(more, list) else ():
        last = inner[-1] if inner else None
        texts = isinstance(last, dict) and isinstance(part, dict) and last.get("type") == part.get("type") == "text"
        if texts and last is not None:
            inner[-1] = {**last, "text": f"{last.get('text') or ''}{part.get('text') or ''}"}
        else:
            inner.append(part)
    return inner


def _message(message: Message, where: str) -> Message:
    said: dict[str, Any] = {}
    if message.get("role") == "developer":
        said["role"] = "system"
    if "tool_call_id" in message:
        said["tool_call_id"] = call_id(message["tool_call_id"])
    calls = message.get("tool_calls")
    if isinstance(calls, (list, tuple)):
        said["tool_calls"] = [{**call, "id": call_id(call.get("id"))} if isinstance(call, Mapping) else call for call in calls]
    content = message.get("content")
    if isinstance(content, (list, tuple)):
        said["content"] = [_part(part, where) for part in content]
    return {**message, **said} if said else message


def call_id(given: Any) -> Any:
    """An id that this API takes: the given one, if it does, else one made of it."""
    if not isinstance(given, str) or _ID.fullmatch(given):
        return given
    return hashlib.sha256(given.encode()).hexdigest()[:9]


def _part(part: Any, where: str) -> Any:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "input_audio" and isinstance(audio := part["input_audio"], Mapping):
        return {**part, "input_audio": audio.get("data")}
    file = part.get("file") if kind == "file" else None
    if not isinstance(file, Mapping):
        return part
    rest = {key: value for key, value in part.items() if key not in ("type", "file")}
    if file.get("file_id"):
        return {"type": "file", "file_id": file["file_id"], **rest}
    if not (address := file.get("file_data") or file.get("file_url")):
        raise InvalidRequestError(f"{where}: a file has no content: give it file_data, file_id or file_url")
    named = {"document_name": file["filename"]} if file.get("filename") else {}
    return {"type": "document_url", "document_url": address, **named, **rest}
