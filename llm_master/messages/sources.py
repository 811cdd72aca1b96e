"""Where an image, a recording or a file is: in bytes, behind a path, a URL or an id; and the part that says so."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from llm_master.errors import InvalidRequestError
from llm_master.media import Audio, Image
from llm_master.messages.content import (
    KEYS,
    Item,
    Kind,
    MediaPolicy,
    Part,
    Pending,
    audio_format,
    family,
    file_name,
    made,
    made_of_base64,
    media_type_by_name,
    media_type_of,
)

# "file-" and "file_" begin the ids of two files APIs, "files/" those of a third, whose URIs the last one is.
_FILE_ID = re.compile(r"file[-_][A-Za-z0-9]{6,}|files/[a-z0-9-]+")
_STORED = re.compile(
    r"gs://|https://generativelanguage\.googleapis\.com/[^?#]*files/|https://(?:www\.)?youtube\.com/|https://youtu\.be/", re.IGNORECASE
)
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://|data:", re.IGNORECASE)


def placed(
    kind: Kind,
    source: Any,
    where: str,
    policy: MediaPolicy,
    fields: Mapping[str, Any],
    *,
    may_be_data: bool = False,
    may_be_id: bool = False,
) -> Part:
    """The part for one source, or one that waits for it."""
    declared = None
    if isinstance(source, (Image, Audio)):
        declared = source.media_type
        source = source.data if source.data is not None else getattr(source, "url", None)
    if isinstance(source, (bytes, bytearray, memoryview)):
        item = Item(kind=kind, where=where, name="the given bytes", fields=fields)
        return made(item, bytes(source), policy, declared=declared)
    if isinstance(source, os.PathLike):
        source = os.fspath(source)
        return _waiting(kind, os.fsdecode(source), where, fields, is_url=False)
    if source is None or source == "":
        raise InvalidRequestError(f"{where}: the {kind} is missing (it is {source!r}): give a path, a URL, a data URI or bytes")
    if not isinstance(source, str):
        raise InvalidRequestError(f"{where}: the {kind} is a {type(source).__name__}: give a path, a URL, a data URI or bytes")
    text = source.strip()
    if match := SCHEME.match(text):
        return _of_uri(kind, text, (match[1] or "data").lower(), where, policy, fields)
    if may_be_id and _FILE_ID.fullmatch(text):
        return {"type": "file", "file": {"file_id": text}}
    if may_be_data and _is_encoded_image(text):
        item = Item(kind=kind, where=where, name="the base64 text", fields=fields)
        return made_of_base64(item, text, policy)
    return _waiting(kind, source, where, fields, is_url=False)


def passed(item: Item, url: str) -> Part:
    """The part that hands a URL to the provider, which fetches it."""
    if item.kind == "image":
        return {"type": "image_url", "image_url": {"url": url, **item.fields}}
    if item.kind == "audio":
        said = item.fields.get("format") or audio_format(media_type_by_name(url) or "audio/mpeg")
        return {"type": "input_audio", "input_audio": {"data": url, "format": said}}
    return {"type": "file", "file": {"filename": file_name(url), **item.fields, "file_data": url}}


def _of_uri(kind: Kind, uri: str, scheme: str, where: str, policy: MediaPolicy, fields: Mapping[str, Any]) -> Part:
    if scheme == "data":
        return _of_data_uri(kind, uri, where, policy, fields)
    if _STORED.match(uri):
        stored = Item(kind=kind, where=where, name=uri, fields=fields)
        return passed(stored, uri) if kind == "image" else {"type": "file", "file": {"file_id": uri}}
    if scheme == "file":
        split = urlsplit(uri)
        if split.netloc not in ("", "localhost"):
            raise InvalidRequestError(f"{where}: {uri} names another machine: give file:///path, or a path")
        path = unquote(split.path)
        # file:///C:/a.png is C:/a.png.
        return _waiting(kind, path[1:] if re.match(r"/[A-Za-z]:", path) and os.name == "nt" else path, where, fields, is_url=False)
    if scheme not in ("http", "https"):
        raise InvalidRequestError(f"{where}: {uri.partition('?')[0]} is no URL that can be fetched: give an http or https URL, or a path")
    if kind == "file" and (is_ := family(media_type_by_name(uri))) in ("image", "audio"):
        # An API that fetches files by itself means documents.
        kind = "image" if is_ == "image" else "audio"
        fields = {}
    if kind in policy.takes_urls and not (policy.urls_need_a_type and media_type_by_name(uri) is None):
        return passed(Item(kind=kind, where=where, name=uri, fields=fields), uri)
    return _waiting(kind, uri, where, fields, is_url=True)


def _of_data_uri(kind: Kind, uri: str, where: str, policy: MediaPolicy, fields: Mapping[str, Any]) -> Part:
    head, comma, data = uri.partition(",")
    declared, *parameters = (word.strip().lower() for word in head[5:].split(";"))
    item = Item(kind=kind, where=where, name="the data URI", fields=fields)
    if not comma or "base64" not in parameters:
        raise item.refused(f"begins with {uri[:40]!r}, and must be data:TYPE;base64,DATA")
    return made_of_base64(item, data, policy, declared=declared.replace("image/jpg", "image/jpeg") or None, strict=True)


def _waiting(kind: Kind, source: str, where: str, fields: Mapping[str, Any], *, is_url: bool) -> Part:
    name = re.sub("//[^/]*@", "//", source.partition("?")[0]) if is_url else source
    item = Item(kind=kind, where=where, name=name if len(name) <= 300 else f"{name[:200]}…", fields=fields)
    return {"type": KEYS[kind], KEYS[kind]: Pending(item=item, source=source, is_url=is_url)}


def _is_encoded_image(text: str) -> bool:
    """Whether a text is base64 of an image, by its first bytes. ``/9j/``, as a JPEG begins, could also begin a path."""
    start = "".join(text[:80].split())[:64]
    try:
        data = base64.b64decode(start[: len(start) // 4 * 4], validate=True)
    except ValueError:
        return False
    return family(media_type_of(data)) == "image"
