"""What bytes are, by what is in them and not by their name; and the part of a message that holds them.

The parts are those of OpenAI's chat completions, which every provider's translation reads:
https://platform.openai.com/docs/api-reference/chat/create#chat-create-messages
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias
from urllib.parse import unquote

import attrs

from llm_master.errors import InvalidRequestError

Kind: TypeAlias = Literal["image", "audio", "file"]

Part: TypeAlias = dict[str, Any]

KEYS: dict[Kind, str] = {"image": "image_url", "audio": "input_audio", "file": "file"}
"""Under which key a part holds its content; it is the part's type, too."""

MIB = 2**20

_STARTS = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
    (b"ID3", "audio/mpeg"),
    (b"fLaC", "audio/flac"),
    (b"OggS", "audio/ogg"),
)
_RIFF = {b"WEBP": "image/webp", b"WAVE": "audio/wav", b"AVI ": "video/x-msvideo"}
_BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"), "image/heic"),
    **dict.fromkeys((b"avif", b"avis"), "image/avif"),
    **dict.fromkeys((b"M4A ", b"M4B "), "audio/mp4"),
    b"qt  ": "video/quicktime",
}
# A text has none of these; tab, line feed, form feed, carriage return and escape it may have.
_NO_TEXT = bytes(set(range(32)) - {8, 9, 10, 11, 12, 13, 27})

_FORMATS = {
    "audio/mpeg": "mp3",
    "audio/mp4": "m4a",
    "audio/x-wav": "wav",
    "audio/wave": "wav",
    "audio/vnd.wave": "wav",
    "audio/x-m4a": "m4a",
}
_BY_ENDING = {
    **{ending: f"image/{ending}" for ending in ("png", "jpeg", "gif", "webp", "bmp", "tiff", "heic", "avif")},
    **{ending: f"audio/{ending}" for ending in ("wav", "flac", "ogg", "aac", "opus", "aiff")},
    **{ending: f"video/{ending}" for ending in ("mp4", "mpeg", "webm")},
    **dict.fromkeys(("txt", "md", "csv", "json", "html", "xml", "yaml", "toml", "py", "log"), "text/plain"),
    "jpg": "image/jpeg",
    "tif": "image/tiff",
    "heif": "image/heic",
    "mp3": "audio/mpeg",
    "m4a": "audio/mp4",
    "mov": "video/quicktime",
    "avi": "video/x-msvideo",
    "mkv": "video/x-matroska",
    "pdf": "application/pdf",
    "zip": "application/zip",
    "doc": "application/msword",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
}
# Not the ending that comes first in the table above.
_ENDINGS = {"text/plain": "txt", "image/jpeg": "jpg", "audio/mpeg": "mp3", "audio/mp4": "m4a"}


@attrs.frozen(kw_only=True)
class MediaPolicy:
    """What a provider takes, and what this side may do for it.

    Attributes:
        takes_urls: Kinds of which the provider itself fetches an http(s) URL: of ``image``, ``audio``, ``file``.
        urls_need_a_type: Whether it fetches a URL only where it is told the media type, which the URL's ending must then say.
        reads_text_files: Whether it takes a text file as a file; else its text goes into the message.
        max_bytes: Bytes that one image, recording or file may have.
        allow_private_urls: Whether a URL may be fetched from an address that is not public.
    """

    takes_urls: frozenset[str] = frozenset({"image"})
    urls_need_a_type: bool = False
    reads_text_files: bool = False
    max_bytes: int = 20 * MIB
    allow_private_urls: bool = False


@attrs.frozen(kw_only=True)
class Item:
    """One image, recording or file on its way into a part.

    Attributes:
        kind: What it was given as.
        where: Where it stands, as ``messages[0].images[1]``.
        name: What an error calls it: its path, its URL without the query, or ``a data URI``.
        fields: What stands beside the content in the part: ``detail``, ``format``, ``filename``.
    """

    kind: Kind
    where: str
    name: str
    fields: Mapping[str, Any] = attrs.field(factory=dict)

    def refused(self, why: str) -> InvalidRequestError:
        """The error to raise."""
        return InvalidRequestError(f"{self.where}: {self.name} {why}")


@attrs.frozen(kw_only=True)
class Pending:
    """Stands in a part where its content must still be read or fetched.

    Attributes:
        item: What it is.
        source: Path or URL. It is not shown: a URL may carry a signature.
        is_url: Whether ``source`` is an http(s) URL.
    """

    item: Item
    source: str = attrs.field(repr=False)
    is_url: bool


def media_type_of(data: bytes) -> str | None:
    """The media type by the bytes themselves: ``text/plain`` for any UTF-8 text, SVG too; ``None`` if not known."""
    for start, media_type in _STARTS:
        if data.startswith(start):
            return media_type
    if data.startswith(b"RIFF"):
        return _RIFF.get(data[8:12])
    if data[4:8] == b"ftyp":
        return _BRANDS.get(data[8:12], "video/mp4")
    if data.startswith(b"FORM") and data[8:12] in (b"AIFF", b"AIFC"):
        return "audio/aiff"
    if data.startswith(b"\x1a\x45\xdf\xa3"):
        return "video/webm" if b"webm" in data[:64] else "video/x-matroska"
    if data.startswith(b"BM") and data[6:10] == bytes(4):  # two letters alone could begin a text
        return "image/bmp"
    if data[:1] == b"\xff" and len(data) > 1:
        # No tag, but frames at once: eleven bits of sync, then version and layer.
        if data[1] & 0xE6 == 0xE2:
            return "audio/mpeg"
        if data[1] & 0xF6 == 0xF0:
            return "audio/aac"
    if data[:1024].removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"%PDF-"):
        return "application/pdf"
    return "text/plain" if text_of(data) is not None else None


def text_of(data: bytes) -> str | None:
    """The text, without its byte order mark; ``None`` if it is no UTF-8 text."""
    if len(data.translate(None, _NO_TEXT)) != len(data):
        return None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None


def media_type_by_name(name: str) -> str | None:
    """The media type by the ending of a path or URL, whose query does not count; ``None`` if not known."""
    return _BY_ENDING.get(os.path.splitext(name.partition("?")[0].partition("#")[0])[1][1:].lower())


def file_name(source: str) -> str:
    """The last step of a path or URL; ``file`` where there is none."""
    path = unquote(source.partition("?")[0].partition("#")[0].partition("://")[2].partition("/")[2]) if "://" in source else source
    return os.path.basename(path.rstrip("/")) or "file"


def audio_format(media_type: str) -> str:
    """The word for ``format``: ``wav`` and ``mp3`` are OpenAI's, the others the usual ones."""
    return _FORMATS.get(media_type) or media_type.rpartition("/")[2]


def family(media_type: str | None) -> str | None:
    """``image``, ``audio``, ``video``, ``pdf`` or ``text``; ``None`` for whatever else."""
    if not media_type:
        return None
    head, _, tail = media_type.partition("/")
    if tail.endswith(("+xml", "+json")) or tail in ("json", "xml", "javascript", "yaml"):
        return "text"
    if tail == "pdf":
        return "pdf"
    return head if head in ("image", "audio", "video", "text") else None


_URL_SAFE = str.maketrans("-_", "+/")


def made_of_base64(item: Item, text: str, policy: MediaPolicy, *, declared: str | None = None, strict: bool = False) -> Part:
    """What ``made`` makes, of base64 text, which may be broken into lines.

    Raises:
        InvalidRequestError: It is no base64, or ``made`` refuses what it holds.
    """
    if len(text) > policy.max_bytes * 1.5 + 4:  # leaves room for line breaks
        raise too_big(item, len(text) * 3 // 4, policy)
    try:
        try:
            data = base64.b64decode(text, validate=True)
        except ValueError:
            # Broken into lines, or in the letters that URLs allow, as one API answers.
            text = "".join(text.split()).translate(_URL_SAFE)
            data = base64.b64decode(text, validate=True)
    except ValueError as exc:
        raise item.refused(f"holds no base64 ({exc}): encode the bytes with base64.b64encode") from exc
    return made(item, data, policy, declared=declared, strict=strict, encoded=text)


def checked_size(item: Item, data: bytes, policy: MediaPolicy) -> None:
    """Refuse what is empty or too big."""
    if not data:
        raise item.refused("is empty: give one that holds something")
    if len(data) > policy.max_bytes:
        raise too_big(item, len(data), policy)


def too_big(item: Item, size: int, policy: MediaPolicy) -> InvalidRequestError:
    """The error for an item of ``size`` bytes."""
    return item.refused(
        f"has {size / MIB:.1f} MiB, and at most {policy.max_bytes / MIB:g} MiB may be sent: give a smaller one, or allow more by max_bytes"
    )


def made(
    item: Item, data: bytes, policy: MediaPolicy, *, declared: str | None = None, strict: bool = False, encoded: str | None = None
) -> Part:
    """The part that holds ``data``.

    What the bytes are decides; what was declared stands in only where they do not tell. An image of another image type
    than declared is simply sent as what it is, since APIs refuse a wrong label.

    Args:
        item: What it is.
        data: The bytes.
        policy: What the provider takes.
        declared: The media type that somebody said it has.
        strict: Whether a declared type that the bytes clearly contradict is an error: it is, where the user said it.
        encoded: The bytes in base64, where that is at hand: a screenshot's takes milliseconds.

    Raises:
        InvalidRequestError: It is empty, too big, or something else than it was given as.
    """
    checked_size(item, data, policy)
    found = media_type_of(data)
    if strict and _contradict(declared, found):
        raise item.refused(f"is declared as {declared} and holds {_word(found)}: correct the one or the other")
    if declared == "application/octet-stream":
        declared = None
    if item.kind == "image":
        return _image(item, encoded or _base64(data), found, declared)
    if item.kind == "audio":
        return _audio(item, encoded or _base64(data), found, declared)
    # An image given as a file is an image for every API, and only as such it is one for most.
    if family(found) == "image":
        return _image(item, encoded or _base64(data), found, declared)
    if family(found) == "audio":
        return _audio(item, encoded or _base64(data), found, declared)
    return _file(item, data, encoded, found, declared, policy)


def _image(item: Item, encoded: str, found: str | None, declared: str | None) -> Part:
    media_type = found or declared
    if family(media_type) != "image":
        raise item.refused(f"{_holds(found, declared)}, not an image: give a PNG, JPEG, GIF or WebP image, or send it as a file")
    fields = {name: value for name, value in item.fields.items() if name not in ("filename", "format")}
    return {"type": "image_url", "image_url": {"url": f"data:{media_type};base64,{encoded}", **fields}}


def _audio(item: Item, encoded: str, found: str | None, declared: str | None) -> Part:
    said = item.fields.get("format")
    if found is None and declared is None and isinstance(said, str) and said:
        declared = f"audio/{said}"
    media_type = found or declared
    # MP4 and WebM hold recordings as well as films.
    if family(media_type) != "audio" and media_type not in ("video/mp4", "video/webm"):
        raise item.refused(f"{_holds(found, declared)}, not audio: give a WAV or MP3 recording, or send it as a file")
    assert media_type is not None
    word = said if found is None and said else audio_format(media_type)
    return {"type": "input_audio", "input_audio": {"data": encoded, "format": word}}


def _file(item: Item, data: bytes, encoded: str | None, found: str | None, declared: str | None, policy: MediaPolicy) -> Part:
    name = item.fields.get("filename")
    media_type = found or declared or media_type_by_name(str(name or "")) or "application/octet-stream"
    if found == "text/plain" and not policy.reads_text_files:
        return {"type": "text", "text": f"{name}:\n{text_of(data)}" if name else text_of(data)}
    uri = f"data:{media_type};base64,{encoded or _base64(data)}"
    return {"type": "file", "file": {**item.fields, "file_data": uri}}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _contradict(declared: str | None, found: str | None) -> bool:
    said, is_ = family(declared), family(found)
    return said is not None and is_ is not None and said != is_ and {said, is_} != {"audio", "video"}


def _word(media_type: str | None) -> str:
    return "text" if media_type == "text/plain" else str(media_type)


def _holds(found: str | None, declared: str | None) -> str:
    if found is not None:
        return f"holds {_word(found)}"
    return f"is of type {declared}" if declared else "holds nothing that is known here"
