"""Images, audio and files for GigaChat: they are uploaded first, and the message names them by their ids.

Source: https://developers.sber.ru/docs/ru/gigachat/api/reference/rest/post-file
"""

from __future__ import annotations

import base64
import hashlib
import mimetypes
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import attrs

from llm_master.errors import InvalidRequestError
from llm_master.types import Message

FILE = "gigachat_file"
"""Type of the part that stands for what was uploaded."""

_KINDS = ("image_url", "input_audio", "file")


@attrs.frozen
class Upload:
    """A medium as it is uploaded."""

    kind: str
    media_type: str
    data: bytes = attrs.field(repr=False)
    name: str

    @property
    def digest(self) -> bytes:
        """By which the same medium is known again."""
        return hashlib.sha256(self.data + self.media_type.encode()).digest()


def holds_media(messages: Sequence[Message]) -> bool:
    """Whether there is anything to upload; nearly always there is not."""
    return any(
        part.get("type") in _KINDS
        for message in messages
        if message.get("content").__class__ is not str
        for part in message.get("content") or ()
        if isinstance(part, Mapping)
    )


async def uploaded(messages: Sequence[Message], upload: Callable[[Upload], Awaitable[str]]) -> list[Message]:
    """The messages with each medium replaced by what it was uploaded as; what was given is not changed.

    Raises:
        InvalidRequestError: A medium is no data in base64.
        ProviderError: It could not be uploaded.
    """
    result: list[Message] = []
    for position, message in enumerate(messages):
        content = message.get("content")
        if content is None or isinstance(content, str) or not isinstance(content, Sequence):
            result.append(message)
            continue
        parts = []
        for part in content:
            medium = _medium(part, f"messages[{position}]") if isinstance(part, Mapping) else None
            parts.append(part if medium is None else {"type": FILE, "id": await upload(medium), "kind": medium.kind})
        result.append({**message, "content": parts})
    return result


def shown(part: Mapping[str, Any], where: str) -> tuple[str, str] | None:
    """How a medium that is not uploaded yet stands in a plan; ``None`` for what is none."""
    medium = _medium(part, where)
    return None if medium is None else (f"({medium.name}, {len(medium.data)} bytes: uploaded when it is sent)", medium.kind)


def form(upload: Upload) -> tuple[dict[str, str], bytes]:
    """Headers and body of the request that uploads: ``multipart/form-data`` (RFC 7578)."""
    boundary = uuid.uuid4().hex
    name = "".join(letter if letter.isascii() and letter.isprintable() and letter not in '"\\' else "_" for letter in upload.name)
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\ngeneral\r\n'
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\nContent-Type: {upload.media_type}\r\n\r\n'
    )
    body = head.encode() + upload.data + f"\r\n--{boundary}--\r\n".encode()
    return {"Content-Type": f"multipart/form-data; boundary={boundary}"}, body


def _medium(part: Mapping[str, Any], where: str) -> Upload | None:
    kind = part.get("type")
    if kind == "image_url":
        link = part.get("image_url")
        return _of_uri("image", link.get("url") if isinstance(link, Mapping) else link, where)
    if kind == "input_audio":
        audio = part.get("input_audio") or {}
        suffix = str(audio.get("format") or "wav")
        media_type = mimetypes.guess_type(f"audio.{suffix}")[0] or f"audio/{suffix}"
        return Upload("audio", media_type, _decoded(audio.get("data"), where), f"audio.{suffix}")
    if kind == "file":
        file = part.get("file") or {}
        return None if file.get("file_id") else _of_uri("file", file.get("file_data"), where, file.get("filename"))
    return None


def _of_uri(kind: str, uri: Any, where: str, name: str | None = None) -> Upload:
    if not isinstance(uri, str) or not uri.startswith("data:"):
        raise InvalidRequestError(f"{where}: an image or file must be data here: give a data URI, data:TYPE;base64,DATA")
    head, comma, data = uri.partition(",")
    media_type, _, encoding = head.removeprefix("data:").partition(";")
    if not comma or not encoding.endswith("base64"):
        raise InvalidRequestError(f"{where}: a data URI must be data:TYPE;base64,DATA")
    media_type = media_type.lower()
    return Upload(kind, media_type, _decoded(data, where), name or f"{kind}{mimetypes.guess_extension(media_type) or ''}")


def _decoded(data: Any, where: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except (TypeError, ValueError) as exc:
        raise InvalidRequestError(f"{where}: the data of an image, audio or file is no base64: {exc}") from exc
