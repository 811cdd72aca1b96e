"""Images, audio and files of a conversation, in every spelling, as parts of OpenAI's chat completions.

What a message may hold beside ``content``:

===================  ===========================================================================================
``image_paths``      paths, URLs and data URIs, or a lone one
``images``           the same, and bytes, ``pathlib.Path``, ``llm_master.Image``, and bare base64 text
``image_details``    one word for all images (``auto``, ``low``, ``high``), or a list with one for each
``parts``            texts and parts in any order, instead of content and images
``text``             the text of a message without content
===================  ===========================================================================================

A text comes before its images, and ``image_paths`` before ``images``. A part that is of no kind known here is a
provider's own and is left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llm_master.errors import InvalidRequestError
from llm_master.media import Audio, Image
from llm_master.messages.content import (
    Item,
    Kind,
    MediaPolicy,
    Part,
    Pending,
    family,
    made_of_base64,
    media_type_by_name,
)
from llm_master.messages.sources import SCHEME, placed
from llm_master.types import Message

SPELLINGS = frozenset({"image_paths", "images", "image_details", "parts", "text"})
"""Keys of a message that are ours and no API's."""

_SOURCES = ("path", "url", "image", "audio", "source")
_FILE_SOURCES = ("file_id", "file_data", "file_url", "path", "url", "file", "source")
_DETAILS = ("auto", "low", "high", "original")

_CAPABILITIES = {"image": "vision", "audio": "audio_input", "video": "video_input", "pdf": "pdf"}
_CAPABILITY_OF = {
    "image_url": "vision",
    "input_image": "vision",
    "image": "vision",
    "input_audio": "audio_input",
    "audio_url": "audio_input",
    "audio": "audio_input",
    "video_url": "video_input",
    "input_video": "video_input",
    "video": "video_input",
}


def normalized(messages: Sequence[Message], policy: MediaPolicy) -> list[Message]:
    """The conversation with every spelling written as OpenAI's chat parts. Nothing is read or fetched.

    Where a file must be read or a URL fetched, the part holds a ``Pending``; ``loaded`` puts the content there. To
    normalize twice changes nothing more, and ``messages`` is never changed.

    Raises:
        InvalidRequestError: Content that cannot be sent; the message says where it stands and what to do.
    """
    return [_message(message, f"messages[{position}]", policy) for position, message in enumerate(messages)]


def kinds(messages: Sequence[Message]) -> set[str]:
    """What a normalized conversation asks of the model: of ``vision``, ``audio_input``, ``pdf``, ``video_input``.

    A file that is still to be read is judged by its name; after ``loaded``, by its content.
    """
    found: set[str] = set()
    for message in messages:
        content = message.get("content")
        for part in content if isinstance(content, (list, tuple)) else ():
            if isinstance(part, Mapping) and (wanted := _capability(part)):
                found.add(wanted)
    return found


def with_attachments(
    messages: Sequence[Message],
    *,
    images: Any = (),
    image_paths: Any = (),
    image_details: Any = None,
    audio: Any = (),
    files: Any = (),
    parts: Sequence[Any] | None = None,
) -> list[Message]:
    """The conversation with these added to its last user message, after what that holds already.

    Args:
        messages: The conversation; it is not changed.
        images: As a message's ``images``.
        image_paths: As a message's ``image_paths``; they come first.
        image_details: As a message's ``image_details``, of these images only.
        audio: Paths, URLs, data URIs, bytes or ``llm_master.Audio``, or a lone one.
        files: Paths, URLs, data URIs, bytes or ids of a files API, or a lone one. A path that reads as an id does, as
            ``files/notes``, is taken as a path where it is written ``./files/notes`` or given as ``pathlib.Path``.
        parts: Texts and parts in any order, instead of the others.

    Raises:
        InvalidRequestError: There is no user message, or ``parts`` are given with others.
    """
    pictures = _images({"images": images, "image_paths": image_paths, "image_details": image_details}, "")
    extra: list[Any] = [part for part, _ in pictures]
    extra += [{"type": "audio", "audio": source} for source in _listed(audio)]
    extra += [{"type": "file", "file": source} for source in _listed(files)]
    if parts is not None:
        if extra:
            raise InvalidRequestError("parts are given along with images, audio or files: put them among the parts")
        extra = [part for part, _ in _sequence(parts, "parts")]
    if not extra:
        return list(messages)
    position = next((n for n in reversed(range(len(messages))) if messages[n].get("role") == "user"), None)
    if position is None:
        raise InvalidRequestError("images, audio or files are given, and no user message to add them to: give a prompt, or a user message")
    message = messages[position]
    before = _unspelled(message, f"messages[{position}]", may_be_empty=True)
    if isinstance(before, str):
        held: list[Any] = [{"type": "text", "text": before}] if before else []
    else:
        held = [part for part, _ in before]
    added = {**_without_spellings(message), "content": [*held, *extra]}
    return [*messages[:position], added, *messages[position + 1 :]]


def pending_in(part: Any) -> Pending | None:
    """What a part still waits for, if it does."""
    if not isinstance(part, Mapping):
        return None
    kind = part.get("type")
    held = part.get(kind) if isinstance(kind, str) else None
    return held if isinstance(held, Pending) else None


def beside(part: Mapping[str, Any], *taken: str) -> Part:
    """What a part holds beside its type, its content and the keys that were ``taken``: ``cache_control`` and the like."""
    return {key: value for key, value in part.items() if key not in ("type", "detail", "filename", *taken)}


def _message(message: Message, where: str, policy: MediaPolicy) -> Message:
    content = message.get("content")
    if SPELLINGS.isdisjoint(message) and not isinstance(content, (list, tuple)):
        return message
    found = _unspelled(message, where)
    rest = _without_spellings(message)
    if isinstance(found, str):
        # A message that only calls tools keeps its content as it is, be it None.
        return {**rest, "content": found} if found else rest
    return {**rest, "content": [_part(part, place, policy) for part, place in found]}


def _without_spellings(message: Message) -> dict[str, Any]:
    return {key: value for key, value in message.items() if key not in SPELLINGS}


def _unspelled(message: Message, where: str, *, may_be_empty: bool = False) -> str | list[tuple[Any, str]]:
    """A message's text alone, or its parts, each with where it stands."""
    content, text, parts = message.get("content"), message.get("text"), message.get("parts")
    pictures = _images(message, where)
    if text:
        if not isinstance(text, str):
            raise InvalidRequestError(f"{where}.text is a {type(text).__name__}: give a text")
        if content:
            raise InvalidRequestError(f"{where} has both text and content: give one of them")
        content = text
    if parts:
        if content or pictures:
            raise InvalidRequestError(f"{where} has parts along with {'content' if content else 'images'}: put all of it among the parts")
        return _sequence(parts, f"{where}.parts")
    if isinstance(content, (list, tuple)):
        return _sequence(content, f"{where}.content") + pictures
    if content is not None and not isinstance(content, str):
        raise InvalidRequestError(f"{where}: content is a {type(content).__name__}: give a text or a list of parts")
    if pictures:
        return [({"type": "text", "text": content}, f"{where}.content"), *pictures] if content else pictures
    if not content and not may_be_empty and not message.get("tool_calls"):
        raise InvalidRequestError(f"{where} has no text and no images: give it content")
    return content or ""


def _images(message: Mapping[str, Any], where: str) -> list[tuple[Any, str]]:
    dot = f"{where}." if where else ""
    sources = [
        ({"type": "image", key: source}, f"{dot}{name}[{position}]")
        for name, key in (("image_paths", "path"), ("images", "image"))
        for position, source in enumerate(_listed(message.get(name)))
    ]
    details = message.get("image_details")
    if details is None or isinstance(details, str):
        details = [details] * len(sources)
    elif not isinstance(details, (list, tuple)):
        raise InvalidRequestError(f"{dot}image_details is a {type(details).__name__}: give one word for all images, or a list of words")
    if len(details) != len(sources):
        raise InvalidRequestError(
            f"{dot}image_details has {len(details)} words for {len(sources)} images: give one for each, or one word for all"
        )
    for (part, place), detail in zip(sources, details, strict=True):
        part["detail"] = _detail(detail, place)
    return sources


def _detail(detail: Any, where: str) -> str | None:
    """``None`` where it need not be said."""
    if detail is None or detail == "auto":
        return None
    if detail not in _DETAILS:
        raise InvalidRequestError(f"{where}: the detail {detail!r} is none: give one of {', '.join(_DETAILS)}")
    return str(detail)


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    # A lone one cannot be meant otherwise.
    return list(value) if isinstance(value, (list, tuple, set, frozenset)) else [value]


def _sequence(value: Any, where: str) -> list[tuple[Any, str]]:
    if not isinstance(value, (list, tuple)):
        raise InvalidRequestError(f"{where} is a {type(value).__name__}: give a list of texts and parts")
    return [(part, f"{where}[{position}]") for position, part in enumerate(value)]


def _part(part: Any, where: str, policy: MediaPolicy) -> Part:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if isinstance(part, Image):
        part = {"type": "image", "image": part}
    elif isinstance(part, Audio):
        part = {"type": "audio", "audio": part}
    if not isinstance(part, Mapping):
        raise InvalidRequestError(f'{where} is a {type(part).__name__}: give a text, or a dict as {{"type": "image", "path": ...}}')
    kind = part.get("type")
    translate = _TRANSLATIONS.get(kind) if isinstance(kind, str) else None
    return dict(part) if translate is None or pending_in(part) else translate(part, where, policy)


def _text(part: Mapping[str, Any], where: str, policy: MediaPolicy) -> Part:
    if not isinstance(part.get("text"), str):
        raise InvalidRequestError(f"{where}: a text part has a {type(part.get('text')).__name__} as its text: give a text")
    # What else an answer's text holds, no API takes as input.
    dropped = ("annotations", "logprobs") if part["type"] == "output_text" else ()
    return {**{key: value for key, value in part.items() if key not in dropped}, "type": "text"}


def _sourced(part: Mapping[str, Any], where: str, policy: MediaPolicy) -> Part:
    """``{"type": "image", "path": ...}`` and ``{"type": "audio", "url": ...}``."""
    kind: Kind = part["type"]
    given = [name for name in _SOURCES if name in part]
    if not given or isinstance(part.get("source"), Mapping):
        return dict(part)  # an API's own
    _one_of(given, where)
    if kind == "image":
        detail = _detail(part.get("detail"), where)
        fields = {} if detail is None else {"detail": detail}
    else:
        fields = {"format": part["format"]} if part.get("format") else {}
    may_be_data = given[0] in ("image", "source")
    return {**placed(kind, part[given[0]], where, policy, fields, may_be_data=may_be_data), **beside(part, *given, "format")}


def _image_url(part: Mapping[str, Any], where: str, policy: MediaPolicy) -> Part:
    """``image_url`` and ``input_image``, as OpenAI writes them; the URL may be a path, too."""
    link = part.get("image_url")
    if link is None and part.get("file_id"):
        return dict(part)  # an image that the provider keeps: only its own API knows it
    if isinstance(link, Mapping):
        source, fields = link.get("url"), {key: value for key, value in link.items() if key != "url"}
    else:
        source, fields = link, {}
    if part.get("detail") not in (None, "auto"):
        fields.setdefault("detail", part["detail"])
    return {**placed("image", source, where, policy, fields), **beside(part, "image_url", "file_id")}


def _input_audio(part: Mapping[str, Any], where: str, policy: MediaPolicy) -> Part:
    held = part.get("input_audio")
    if not isinstance(held, Mapping):
        held = {"data": held}
    data = held.get("data")
    fields = {"format": held["format"]} if held.get("format") else {}
    if isinstance(data, str) and data.strip() and not SCHEME.match(data.strip()):
        # Base64 it is, by OpenAI's word: a path stands in {"type": "audio", "path": ...}.
        item = Item(kind="audio", where=where, name="input_audio.data", fields=fields)
        audio = made_of_base64(item, data, policy)
    else:
        audio = placed("audio", data, where, policy, fields)
    return {**audio, **beside(part, "input_audio")}


def _file(part: Mapping[str, Any], where: str, policy: MediaPolicy) -> Part:
    """``file`` as OpenAI's chat completions have it, ``input_file`` as its responses do, and ours."""
    if isinstance(part.get("source"), Mapping):
        return dict(part)  # an API's own
    inner = part["file"] if isinstance(part.get("file"), Mapping) else part
    given = [name for name in _FILE_SOURCES if inner.get(name) is not None]
    if not given:
        raise InvalidRequestError(f"{where}: a part of type {part['type']!r} has no file: give path, url, file_data or file_id")
    _one_of(given, where)
    key, source, rest = given[0], inner[given[0]], beside(part, *_FILE_SOURCES)
    if key == "file_id":
        return {"type": "file", "file": dict(inner) if inner is not part else {"file_id": source}, **rest}
    if inner is part:
        fields = {"filename": part["filename"]} if part.get("filename") else {}
    else:
        fields = {name: value for name, value in inner.items() if name not in _FILE_SOURCES}
    if key == "file_data" and isinstance(source, str) and source.strip() and not SCHEME.match(source.strip()):
        item = Item(kind="file", where=where, name="file_data", fields=fields)
        return {**made_of_base64(item, source, policy), **rest}
    return {**placed("file", source, where, policy, fields, may_be_id=key in ("file", "source")), **rest}


_TRANSLATIONS: dict[str, Callable[[Mapping[str, Any], str, MediaPolicy], Part]] = {
    "text": _text,
    "input_text": _text,
    "output_text": _text,
    "image": _sourced,
    "audio": _sourced,
    "image_url": _image_url,
    "input_image": _image_url,
    "input_audio": _input_audio,
    "file": _file,
    "input_file": _file,
}


def _one_of(given: Sequence[str], where: str) -> None:
    if len(given) > 1:
        raise InvalidRequestError(f"{where} has both {given[0]} and {given[1]}: give one of them")


def _capability(part: Mapping[str, Any]) -> str | None:
    kind = part.get("type")
    if kind == "document":
        source = part.get("source")
        return (
            _capability_of(str(source.get("media_type") or media_type_by_name(str(source.get("url")))))
            if isinstance(source, Mapping)
            else None
        )
    if kind != "file":
        return _CAPABILITY_OF.get(kind) if isinstance(kind, str) else None
    file = part.get("file")
    if isinstance(file, Pending):
        return _capability_of(media_type_by_name(str(file.item.fields.get("filename") or "")) or media_type_by_name(file.source))
    if not isinstance(file, Mapping):
        return None
    held = str(file.get("file_data") or file.get("file_id") or "")
    if held.startswith("data:"):
        return _capability_of(held[5:200].partition(",")[0].partition(";")[0])
    return _capability_of(media_type_by_name(str(file.get("filename") or "")) or media_type_by_name(held))


def _capability_of(media_type: str | None) -> str | None:
    return _CAPABILITIES.get(family(media_type) or "")
