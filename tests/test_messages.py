"""Images, audio and files going in: every spelling, real files of every bad kind, and that nothing is changed or guessed."""

from __future__ import annotations

import asyncio
import base64
import copy
import io
import os
import socket
import threading
import wave
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from servers.scripted import ScriptedServer

from llm_master import Audio, Image, InvalidRequestError, ProviderConnectionError
from llm_master.messages import (
    MediaPolicy,
    Pending,
    checked_conversation,
    has_media,
    kinds,
    loaded,
    loaded_now,
    normalized,
    with_attachments,
)
from llm_master.messages.content import audio_format, media_type_by_name, media_type_of
from llm_master.messages.loading import AT_ONCE

PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
JPEG = b"\xff\xd8\xff\xe0\0\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0\xff\xd9"
GIF = b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff!\xf9\x04\x01\0\0\0\0,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;"
WEBP = b"RIFF\x1a\0\0\0WEBPVP8L\r\0\0\0/\0\0\0\x10\x07\x10\x11\x11\x88\x88\xfe\x07\0"
MP3 = b"ID3\x04\0\0\0\0\0\0\xff\xfb\x90\x64" + bytes(60)
PDF = b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<<>>\nendobj\ntrailer\n<<>>\n%%EOF\n"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"/>'
MP4 = b"\0\0\0\x18ftypisom\0\0\x02\0isomiso2"


def wav() -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(160))
    return buffer.getvalue()


WAV = wav()
MIB = 2**20
POLICY = MediaPolicy()
FETCHES = MediaPolicy(takes_urls=frozenset(), allow_private_urls=True)
READS = MediaPolicy(reads_text_files=True)
URL = "https://example.com/a/cat.png?sig=SECRET"


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def uri(data: bytes, media_type: str = "image/png") -> str:
    return f"data:{media_type};base64,{b64(data)}"


def picture(data: bytes = PNG, media_type: str = "image/png", **fields: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": uri(data, media_type), **fields}}


def link(url: str = URL, **fields: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **fields}}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def sound(data: bytes = WAV, word: str = "wav") -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": b64(data), "format": word}}


def file(data: bytes, media_type: str, name: str) -> dict[str, Any]:
    return {"type": "file", "file": {"filename": name, "file_data": uri(data, media_type)}}


def user(content: Any = None, **keys: Any) -> list[dict[str, Any]]:
    return [{"role": "user", **({} if content is None else {"content": content}), **keys}]


async def parts_of(messages: Any, policy: MediaPolicy = POLICY) -> Any:
    """The last message's content, after everything; by both ways, which must agree."""
    before = copy.deepcopy(messages)
    ready = normalized(messages, policy)
    assert normalized(ready, policy) == ready
    done = await loaded(ready, policy)
    assert messages == before
    assert waiting(done) == []
    if not any(pending.is_url for pending in waiting(ready)):
        assert loaded_now(ready, policy) == done
    assert normalized(done, policy) == done
    assert done[-1].keys() <= {"role", "content", "name", "cache_control"}
    return done[-1]["content"]


def waiting(messages: Any) -> list[Pending]:
    contents = [message["content"] for message in messages if isinstance(message["content"], list)]
    return [held for content in contents for part in content for held in part.values() if isinstance(held, Pending)]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    contents = {
        "a.png": PNG,
        "b.jpg": JPEG,
        "c.gif": GIF,
        "d.webp": WEBP,
        "s.wav": WAV,
        "s.mp3": MP3,
        "r.pdf": PDF,
        "n.txt": b"Gr\xc3\xbc\xc3\x9fe",
    }
    for name, data in {**contents, "v.mp4": MP4, "p.svg": SVG, "x.bin": b"\0\x01\x02", "empty.png": b""}.items():
        (folder / name).write_bytes(data)
    return folder


# The hot path


PLAIN: list[Any] = [
    user("hi"),
    [{"role": "system", "content": "s"}, *user("hi"), {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}],
    [{"role": "tool", "tool_call_id": "1", "content": "18 °C"}],
    user("hi", name="Ada"),
    user("hi", cache_control={"type": "ephemeral"}),
    user([text("hi"), text("there")]),
    user(({"type": "text", "text": "hi", "cache_control": {}},)),
    user([]),
]


@pytest.mark.parametrize("messages", PLAIN)
def test_plain_text_is_no_media(messages: Any) -> None:
    assert has_media(messages) is False
    assert [dict(message) for message in normalized(messages, POLICY)] == [
        {**message, "content": list(message["content"])} if isinstance(message["content"], tuple) else message for message in messages
    ]
    assert kinds(messages) == set()


@pytest.mark.parametrize("key", ["image_paths", "images", "image_details", "parts", "text"])
def test_each_spelling_is_media(key: str) -> None:
    assert has_media([*PLAIN[1], {"role": "user", "content": "hi", key: []}]) is True


@pytest.mark.parametrize(
    "part", [link(), "a text", {"type": "input_text", "text": "a"}, {"inlineData": {}}, {"type": "document"}, PNG, None]
)
def test_a_part_that_is_no_text_part_is_media(part: Any) -> None:
    assert has_media(user([text("a"), part])) is True


def test_a_text_message_is_not_even_copied() -> None:
    messages = [*PLAIN[1], {"role": "user", "content": "look", "images": [URL]}]
    assert [a is b for a, b in zip(messages, normalized(messages, POLICY), strict=True)] == [True, True, True, False]


def test_the_conversation_of_a_prompt_is_as_it_was() -> None:
    assert checked_conversation(None, "hi") == user("hi")
    messages = user("hi")
    assert checked_conversation(messages, None) is messages


# Spellings


async def test_every_source_of_the_guides_images(files: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(files)
    monkeypatch.setenv("HOME", str(tmp_path))
    for source in (
        "a.png",
        "./a.png",
        "~/files/a.png",
        str(files / "a.png"),
        files / "a.png",
        f"file://{files}/a.png",
        f"file://localhost{files}/a.png",
        uri(PNG),
        f" {uri(PNG)}\n",
        f"data:;base64,{b64(PNG)}",
        f"data:image/png;charset=utf-8;base64,{b64(PNG)}",
        f"DATA:image/PNG;BASE64,{b64(PNG)}",
        f"data:image/png;base64,{base64.encodebytes(PNG).decode()}",
        PNG,
        bytearray(PNG),
        Image(PNG),
        Image(PNG, url="https://gone.invalid/"),
        Image(url=uri(PNG)),
        b64(PNG),
        base64.encodebytes(PNG).decode(),
    ):
        assert await parts_of(user("Look", images=[source])) == [text("Look"), picture()], source
        assert await parts_of(user("Look", images=source)) == [text("Look"), picture()], source
        assert await parts_of(user(parts=["Look", {"type": "image", "image": source}])) == [text("Look"), picture()], source
        if isinstance(source, str) and "." in source or not isinstance(source, str):
            assert await parts_of(user("Look", image_paths=[source])) == [text("Look"), picture()], source
    assert normalized(user(images=memoryview(PNG)), POLICY) == user([picture()])  # it cannot be copied, as the check above does
    assert await parts_of(user("Look", images=[URL, Image(url=URL)])) == [text("Look"), link(), link()]


@pytest.mark.parametrize(("data", "kind"), [(JPEG, "image/jpeg"), (GIF, "image/gif"), (WEBP, "image/webp")])
async def test_bare_base64_of_other_images(data: bytes, kind: str) -> None:
    # A JPEG's begins as a path does: /9j/.
    assert await parts_of(user(images=b64(data))) == [picture(data, kind)]


async def test_text_then_paths_then_images(files: Path) -> None:
    got = await parts_of(user("Which?", images=[URL, JPEG], image_paths=[str(files / "a.png")], image_details=["low", "auto", None]))
    assert got == [text("Which?"), picture(PNG, "image/png", detail="low"), link(), picture(JPEG, "image/jpeg")]


async def test_one_detail_for_all() -> None:
    assert await parts_of(user("a", images=[PNG, URL], image_details="high")) == [text("a"), picture(detail="high"), link(detail="high")]
    assert await parts_of(user("a", images=[PNG, URL], image_details="auto")) == [text("a"), picture(), link()]
    assert await parts_of(user("a", images=[], image_details="high")) == "a"


async def test_text_is_the_content_where_there_is_none() -> None:
    assert await parts_of(user(text="Look", images=[PNG])) == [text("Look"), picture()]
    assert await parts_of([{"role": "user", "content": None, "text": "Look"}]) == "Look"
    assert await parts_of(user("", text="Look", name="Ada")) == "Look"
    assert await parts_of(user("", images=[PNG])) == [picture()]


async def test_images_join_a_list_of_parts() -> None:
    assert await parts_of(user([text("a"), link()], images=[PNG])) == [text("a"), link(), picture()]


async def test_parts_in_their_order(files: Path) -> None:
    got = await parts_of(
        user(
            parts=[
                "First",
                {"type": "image", "path": str(files / "a.png"), "detail": "low"},
                {"type": "text", "text": "then"},
                {"type": "image", "url": URL, "detail": "auto"},
                {"type": "input_text", "text": "and"},
                {"type": "output_text", "text": "so", "annotations": [], "logprobs": []},
                {"type": "image", "source": str(files / "b.jpg")},
                Image(PNG),
                Audio(WAV, "audio/wav"),
            ]
        )
    )
    assert got == [
        text("First"),
        picture(detail="low"),
        text("then"),
        link(),
        text("and"),
        text("so"),
        picture(JPEG, "image/jpeg"),
        picture(),
        sound(),
    ]


@pytest.mark.parametrize(
    ("part", "becomes"),
    [
        (link(detail="auto"), link(detail="auto")),
        ({"type": "image_url", "image_url": URL, "detail": "low"}, link(detail="low")),
        ({"type": "image_url", "image_url": {"url": uri(PNG), "detail": "high"}}, picture(detail="high")),
        ({"type": "input_image", "image_url": URL}, link()),
        ({"type": "input_image", "image_url": {"url": URL}, "detail": "low"}, link(detail="low")),
        ({"type": "input_image", "image_url": uri(PNG), "detail": "auto"}, picture()),
        ({"type": "input_image", "file_id": "file-abc123"}, {"type": "input_image", "file_id": "file-abc123"}),
        (sound(), sound()),
        ({"type": "input_audio", "input_audio": {"data": b64(MP3)}}, sound(MP3, "mp3")),
        ({"type": "input_audio", "input_audio": {"data": b64(MP3), "format": "wav"}}, sound(MP3, "mp3")),
        ({"type": "input_audio", "input_audio": {"data": uri(WAV, "audio/wav"), "format": "wav"}}, sound()),
        ({"type": "input_audio", "input_audio": {"data": WAV}}, sound()),
        ({"type": "input_audio", "input_audio": b64(WAV)}, sound()),
        ({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "pcm16"}}, sound(bytes(3), "pcm16")),
        ({"type": "audio", "audio": uri(MP3, "audio/mpeg")}, sound(MP3, "mp3")),
        ({"type": "audio", "audio": Audio(b"\0\0\0", "audio/aac")}, sound(bytes(3), "aac")),
        (file(PDF, "application/pdf", "r.pdf"), file(PDF, "application/pdf", "r.pdf")),
        (
            {"type": "file", "file": {"file_data": uri(PDF, "application/pdf")}},
            {"type": "file", "file": {"file_data": uri(PDF, "application/pdf")}},
        ),
        ({"type": "file", "file": {"file_id": "file-abc", "x": 1}}, {"type": "file", "file": {"file_id": "file-abc", "x": 1}}),
        ({"type": "file", "file": "file-6F2ksmvXxt4VdoqmHRw6kL"}, {"type": "file", "file": {"file_id": "file-6F2ksmvXxt4VdoqmHRw6kL"}}),
        ({"type": "file", "file": "files/abc-123"}, {"type": "file", "file": {"file_id": "files/abc-123"}}),
        ({"type": "file", "file": PDF, "filename": "r.pdf"}, file(PDF, "application/pdf", "r.pdf")),
        (
            {"type": "input_file", "file_id": "file_011CNha8iCJcU1wXNR6q4V8w"},
            {"type": "file", "file": {"file_id": "file_011CNha8iCJcU1wXNR6q4V8w"}},
        ),
        ({"type": "input_file", "file_data": b64(PDF), "filename": "r.pdf"}, file(PDF, "application/pdf", "r.pdf")),
        ({"type": "input_file", "file_data": uri(PDF, "application/pdf"), "filename": "r.pdf"}, file(PDF, "application/pdf", "r.pdf")),
        ({"type": "file", "file": {"file_data": uri(b"a,b", "text/csv"), "filename": "t.csv"}}, text("t.csv:\na,b")),
        ({"type": "file", "file": uri(PNG)}, picture()),
        ({"type": "file", "file": WAV}, sound()),
        (
            {"type": "file", "file": uri(b"PK\x03\x04\0", "application/zip")},
            {"type": "file", "file": {"file_data": uri(b"PK\x03\x04\0", "application/zip")}},
        ),
        ({"type": "image", "image": "gs://bucket/a.png"}, link("gs://bucket/a.png")),
        ({"type": "audio", "url": "gs://bucket/a.mp3"}, {"type": "file", "file": {"file_id": "gs://bucket/a.mp3"}}),
        ({"type": "file", "url": "gs://bucket/a.pdf"}, {"type": "file", "file": {"file_id": "gs://bucket/a.pdf"}}),
    ],
)
async def test_a_parts_spellings(part: Any, becomes: Any) -> None:
    assert has_media(user([part]))
    assert await parts_of(user([part])) == [becomes]
    assert await parts_of(user(parts=[part])) == [becomes]
    marked = {**part, "cache_control": {"type": "ephemeral"}}
    assert await parts_of(user([marked])) == [{**becomes, "cache_control": {"type": "ephemeral"}}]


async def test_what_a_files_api_holds_is_never_fetched() -> None:
    stored = "https://generativelanguage.googleapis.com/v1beta/files/abc-123"
    assert normalized(user(images=[stored]), FETCHES)[0]["content"] == [link(stored)]
    assert normalized(user([{"type": "file", "url": stored}]), FETCHES)[0]["content"] == [{"type": "file", "file": {"file_id": stored}}]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
        {"type": "image", "source": {"type": "file", "file_id": "file_1"}, "cache_control": {}},
        {"type": "tool_result", "tool_use_id": "1", "content": [{"type": "image", "path": "x.png"}]},
        {"type": "video_url", "video_url": {"url": "https://example.com/a.mp4"}},
        {"type": "refusal", "refusal": "no"},
        {"inlineData": {"mimeType": "image/png", "data": "AAAA"}},
        {"text": "a"},
        {"type": ["no", "word"]},
        {},
    ],
)
async def test_a_providers_own_parts_are_left_alone(part: Any) -> None:
    assert await parts_of(user([part])) == [part]


async def test_a_messages_other_keys_are_kept() -> None:
    (message,) = normalized(user("a", images=[PNG], name="Ada", cache_control={"x": 1}, tool_call_id="1"), POLICY)
    assert message == {"role": "user", "content": [text("a"), picture()], "name": "Ada", "cache_control": {"x": 1}, "tool_call_id": "1"}


async def test_a_tool_result_may_hold_an_image(files: Path) -> None:
    messages = [{"role": "tool", "tool_call_id": "1", "content": [{"type": "image", "path": str(files / "a.png")}]}]
    assert (await loaded(normalized(messages, POLICY), POLICY))[0] == {"role": "tool", "tool_call_id": "1", "content": [picture()]}


def test_a_message_that_only_calls_tools_keeps_its_content() -> None:
    messages = [{"role": "assistant", "content": None, "tool_calls": [{"id": "1"}], "images": []}]
    assert normalized(messages, POLICY) == [{"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}]


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ({"content": "a", "parts": ["b"]}, r"messages\[1\] has parts along with content"),
        ({"images": [PNG], "parts": ["b"]}, "has parts along with images"),
        ({"text": "a", "parts": ["b"]}, "has parts along with content"),
        ({"text": "a", "content": "b"}, "has both text and content"),
        ({"text": 5}, "text is a int"),
        ({"parts": "a.png"}, r"messages\[1\]\.parts is a str: give a list"),
        ({"parts": {"type": "text"}}, "parts is a dict"),
        ({"parts": []}, "has no text and no images"),
        ({"images": []}, "has no text and no images"),
        ({"content": 5, "images": [PNG]}, "content is a int"),
        ({"content": "a", "images": [PNG], "image_details": ["low", "high"]}, "image_details has 2 words for 1 images"),
        ({"content": "a", "image_details": ["low"]}, "image_details has 1 words for 0 images"),
        ({"content": "a", "images": [PNG], "image_details": 5}, "image_details is a int"),
        (
            {"content": "a", "images": [PNG], "image_details": "hihg"},
            r"images\[0\]: the detail 'hihg' is none: give one of auto, low, high",
        ),
        ({"content": "a", "images": [PNG, None]}, r"messages\[1\]\.images\[1\]: the image is missing \(it is None\)"),
        ({"content": "a", "images": [""]}, r"images\[0\]: the image is missing \(it is ''\)"),
        ({"content": "a", "images": [5]}, r"images\[0\]: the image is a int: give a path"),
        ({"content": "a", "images": [{"url": URL}]}, "the image is a dict"),
        ({"content": "a", "images": [Image()]}, "the image is missing"),
        ({"content": "a", "images": [b""]}, "the given bytes is empty"),
        ({"content": "a", "images": [b"some text"]}, "the given bytes holds text, not an image"),
        ({"content": "a", "images": [PDF]}, "holds application/pdf, not an image"),
        ({"content": "a", "images": [b"\0\x01"]}, "holds nothing that is known here, not an image"),
        ({"content": "a", "images": ["ftp://h/a.png"]}, "ftp://h/a.png is no URL that can be fetched"),
        ({"content": "a", "images": ["s3://b/a.png?sig=1"]}, "s3://b/a.png is no URL"),
        ({"content": "a", "images": ["file://server/share/a.png"]}, "names another machine"),
        ({"content": [PNG]}, r"messages\[1\]\.content\[0\] is a bytes: give a text, or a dict"),
        ({"content": [None]}, "is a NoneType"),
        ({"content": [{"type": "text"}]}, r"content\[0\]: a text part has a NoneType"),
        ({"content": [{"type": "image", "path": None}]}, "the image is missing"),
        ({"content": [{"type": "image", "path": "a", "url": "b"}]}, "has both path and url"),
        ({"content": [{"type": "image_url"}]}, "the image is missing"),
        ({"content": [{"type": "image_url", "image_url": {}}]}, "the image is missing"),
        ({"content": [{"type": "input_audio"}]}, "the audio is missing"),
        ({"content": [{"type": "input_audio", "input_audio": {"data": "a.wav"}}]}, "input_audio.data holds no base64"),
        ({"content": [{"type": "input_audio", "input_audio": {"data": b64(PNG), "format": "wav"}}]}, "holds image/png, not audio"),
        ({"content": [{"type": "input_audio", "input_audio": {"data": "AAAA"}}]}, "not audio"),
        ({"content": [{"type": "audio", "audio": b"text"}]}, "holds text, not audio"),
        ({"content": [{"type": "file"}]}, "a part of type 'file' has no file: give path, url, file_data or file_id"),
        ({"content": [{"type": "file", "file": {"filename": "a.pdf"}}]}, "has no file"),
        ({"content": [{"type": "file", "file": {"file_id": "a", "file_data": "b"}}]}, "has both file_id and file_data"),
        ({"content": [{"type": "input_file", "file_data": "no base64!"}]}, "file_data holds no base64"),
        ({"content": [{"type": "input_file", "file_data": ""}]}, "the file is missing"),
    ],
)
def test_what_cannot_be_meant_is_named(message: Any, says: str) -> None:
    with pytest.raises(InvalidRequestError, match=says):
        normalized([{"role": "system", "content": "s"}, {"role": "user", **message}], POLICY)


# Data URIs


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("data:image/png,AAAA", "must be data:TYPE;base64,DATA"),
        ("data:image/png;base64", "must be data:TYPE;base64,DATA"),
        ("data:", "must be data:TYPE;base64,DATA"),
        ("data:image/png;base64,", "is empty"),
        ("data:image/png;base64,abc", "holds no base64"),
        ("data:image/png;base64,%%%%", "holds no base64"),
        (uri(b"/home/me/cat.png"), "is declared as image/png and holds text"),
        (uri(b64(PNG).encode()), "is declared as image/png and holds text"),  # encoded twice
        (uri(PDF), "is declared as image/png and holds application/pdf"),
        (uri(PNG, "application/pdf"), "is declared as application/pdf and holds image/png"),
        (uri(b"PK\x03\x04\0", "application/zip"), "is of type application/zip, not an image"),
        (uri(b"\0\0", "application/octet-stream"), "holds nothing that is known here"),
        (uri(SVG, "image/svg+xml"), "holds text, not an image"),
    ],
)
def test_a_data_uri_that_is_none(given: str, says: str) -> None:
    with pytest.raises(InvalidRequestError, match=rf"messages\[0\]\.images\[0\]: the data URI .*{says}"):
        normalized(user("a", images=[given]), POLICY)


async def test_a_wrong_label_of_an_image_is_corrected() -> None:
    assert await parts_of(user([link(uri(PNG, "image/jpeg"))])) == [picture()]
    assert await parts_of(user([link(uri(PNG, "application/octet-stream"))])) == [picture()]
    # What nobody can tell by its bytes is what its user says.
    assert await parts_of(user([link("data:image/png;base64,AAAA")])) == [link("data:image/png;base64,AAAA")]
    assert await parts_of(user([link("data:image/jpg;base64,AAAA")])) == [link("data:image/jpeg;base64,AAAA")]


@pytest.mark.parametrize("size", [1000, 1001])
def test_the_limit_holds_for_what_is_given_directly(size: int) -> None:
    data = PNG + bytes(size - len(PNG))
    policy = MediaPolicy(max_bytes=1000)
    for source in (data, uri(data), b64(data)):
        if size == 1000:
            assert normalized(user("a", images=[source]), policy)[0]["content"][1] == picture(data)
        else:
            with pytest.raises(InvalidRequestError, match=r"has 0\.0 MiB, and at most .* allow more by max_bytes"):
                normalized(user("a", images=[source]), policy)


def test_a_huge_data_uri_is_not_even_decoded() -> None:
    with pytest.raises(InvalidRequestError, match=r"has 22\.5 MiB, and at most 20 MiB"):
        normalized(user("a", images=["data:image/png;base64," + "!" * (30 * MIB + 5)]), POLICY)  # no base64 either


# Reading files


async def test_files_of_every_kind(files: Path) -> None:
    async def sent(kind: str, name: str, policy: MediaPolicy = POLICY) -> Any:
        return (await parts_of(user([{"type": kind, "path": str(files / name)}]), policy))[0]

    for name, media_type in (("a.png", "image/png"), ("b.jpg", "image/jpeg"), ("c.gif", "image/gif"), ("d.webp", "image/webp")):
        assert await sent("image", name) == await sent("file", name) == picture((files / name).read_bytes(), media_type)
    assert await sent("audio", "s.wav") == await sent("file", "s.wav") == sound()
    assert await sent("audio", "s.mp3") == sound(MP3, "mp3")
    assert await sent("file", "r.pdf") == file(PDF, "application/pdf", "r.pdf")
    assert await sent("file", "v.mp4") == file(MP4, "video/mp4", "v.mp4")
    assert await sent("file", "x.bin") == file(b"\0\x01\x02", "application/octet-stream", "x.bin")
    assert await sent("file", "n.txt") == text("n.txt:\nGrüße")
    assert await sent("file", "n.txt", READS) == file("Grüße".encode(), "text/plain", "n.txt")
    assert await sent("file", "p.svg") == text(f"p.svg:\n{SVG.decode()}")


async def test_the_type_is_the_contents_and_not_the_names(files: Path) -> None:
    os.rename(files / "a.png", files / "photo.jpg")
    os.rename(files / "r.pdf", files / "report.txt")
    assert await parts_of(user(images=files / "photo.jpg")) == [picture()]
    assert await parts_of(user([{"type": "file", "path": str(files / "report.txt")}])) == [file(PDF, "application/pdf", "report.txt")]


async def test_a_given_file_name_wins(files: Path) -> None:
    part = {"type": "file", "path": str(files / "r.pdf"), "filename": "Bericht.pdf", "cache_control": {"type": "ephemeral"}}
    got = await parts_of(user([part]))
    assert got == [{**file(PDF, "application/pdf", "Bericht.pdf"), "cache_control": {"type": "ephemeral"}}]


async def test_a_document_of_no_known_content_is_named_by_its_ending(tmp_path: Path) -> None:
    (tmp_path / "a.docx").write_bytes(b"PK\x03\x04\0\0")
    ((part),) = await parts_of(user([{"type": "file", "path": "a.docx"}]))
    assert part["file"]["file_data"].startswith("data:application/vnd.openxmlformats-officedocument.wordprocessingml.document;base64,")


def bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    """Name -> path, and what the error says of it."""
    (folder / "text.png").write_text("This is no image.")
    (folder / "r.pdf.png").write_bytes(PDF)
    os.symlink(folder / "gone.png", folder / "dangling.png")
    os.symlink(folder / "loop.png", folder / "loop.png")
    os.symlink(folder, folder / "folder.png")
    with open(folder / "huge.png", "wb") as huge:
        huge.write(PNG)
        huge.truncate(500 * MIB)  # sparse: it takes no room
    os.mkfifo(folder / "pipe.png")
    return {
        "missing": (folder / "nowhere.png", "does not exist: check the path"),
        "missing folder": (folder / "no" / "where.png", "does not exist"),
        "below a file": (folder / "a.png" / "b.png", "cannot be read"),
        "folder": (folder, "is a folder: give the files in it one by one"),
        "link to a folder": (folder / "folder.png", "is a folder"),
        "dangling link": (folder / "dangling.png", "does not exist"),
        "link to itself": (folder / "loop.png", "cannot be read"),
        "empty": (folder / "empty.png", "is empty"),
        "500 MB": (folder / "huge.png", r"has 500\.0 MiB, and at most 20 MiB may be sent: give a smaller one"),
        "pipe": (folder / "pipe.png", "is a pipe"),
        "text": (folder / "text.png", "holds text, not an image"),
        "pdf": (folder / "r.pdf.png", "holds application/pdf, not an image"),
        "audio": (folder / "s.wav", "holds audio/wav, not an image"),
        "svg": (folder / "p.svg", "holds text, not an image: give a PNG, JPEG"),
        "unknown": (folder / "x.bin", "holds nothing that is known here, not an image"),
        "device": (Path("/dev/null"), "is a device"),
        "too long": (folder / ("a" * 300), "cannot be read .*File name too long"),
        "a NUL": (folder / "a\0.png", "cannot be read .*null byte"),
    }


BAD = [
    "missing", "missing folder", "below a file", "folder", "link to a folder", "dangling link", "link to itself", "empty", "500 MB",
    "pipe", "text", "pdf", "audio", "svg", "unknown", "device", "too long", "a NUL",
]  # fmt: skip


@pytest.mark.parametrize("which", BAD)
async def test_a_bad_image_is_named_with_its_place(files: Path, which: str) -> None:
    path, says = bad_files(files)[which]
    shown = "aaaa" if which == "too long" else str(path).split("\0")[0]
    for source in (path, str(path)):
        ready = normalized([{"role": "system", "content": "s"}, *user("Look", images=[PNG, source])], POLICY)
        for load in (loaded, lambda messages, policy: asyncio.to_thread(loaded_now, messages, policy)):
            with pytest.raises(InvalidRequestError, match=rf"messages\[1\]\.images\[1\]: .*{says}") as caught:
                await load(ready, POLICY)
            assert shown in str(caught.value)
            assert len(str(caught.value)) < 700


def test_every_bad_file_is_tried(files: Path) -> None:
    assert set(BAD) == set(bad_files(files))


async def test_a_file_without_permission(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = files / "a.png"
    path.chmod(0)
    if os.access(path, os.R_OK):  # root reads everything
        look = os.open

        def refusing(name: Any, *rest: Any, **more: Any) -> int:
            if name == str(path):
                raise PermissionError(13, "Permission denied", name)
            return look(name, *rest, **more)

        monkeypatch.setattr(os, "open", refusing)
    with pytest.raises(InvalidRequestError, match=r"a\.png may not be read by this user: change its permissions"):
        await loaded(normalized(user(images=path), POLICY), POLICY)


async def test_a_relative_path_that_is_missing_says_of_which_folder(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match=rf"cat\.png does not exist: the path is relative to {tmp_path}"):
        await loaded(normalized(user(image_paths="cat.png"), POLICY), POLICY)


async def test_base64_that_is_taken_for_a_path_does_not_fill_the_screen() -> None:
    with pytest.raises(InvalidRequestError, match="base64 text goes into images") as caught:
        await loaded(normalized(user(image_paths=[b64(PNG * 1000)]), POLICY), POLICY)
    assert len(str(caught.value)) < 600


async def test_links_to_files_are_followed(files: Path) -> None:
    os.symlink(files / "a.png", files / "link")
    assert await parts_of(user(images=files / "link")) == [picture()]


async def test_a_folder_that_is_not_an_image_is_audio_and_file_neither(files: Path) -> None:
    for kind in ("audio", "file"):
        with pytest.raises(InvalidRequestError, match=r"messages\[0\]\.content\[0\]: .* is a folder"):
            await loaded(normalized(user([{"type": kind, "path": str(files)}]), POLICY), POLICY)
    with pytest.raises(InvalidRequestError, match="holds text, not audio: give a WAV or MP3"):
        await loaded(normalized(user([{"type": "audio", "path": str(files / "n.txt")}]), POLICY), POLICY)


async def test_files_are_read_off_the_loop(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = set()
    look = os.open

    def watched(name: Any, *rest: Any, **more: Any) -> int:
        threads.add(threading.current_thread())
        return look(name, *rest, **more)

    ready = normalized(user(images=[files / "a.png"] * 3), POLICY)
    monkeypatch.setattr(os, "open", watched)
    assert (await loaded(ready, POLICY))[0]["content"] == [picture()] * 3
    assert threads
    assert threading.main_thread() not in threads


async def test_to_normalize_reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: Any, **__: Any) -> Any:
        raise AssertionError("I/O")

    for module, name in ((os, "open"), (os, "stat"), (socket, "getaddrinfo"), (socket, "socket")):
        monkeypatch.setattr(module, name, forbidden)
    ready = normalized(user("a", images=["a.png", Path("b.png"), "http://h.invalid/c.png"], image_paths="~/d.png"), FETCHES)
    monkeypatch.undo()
    assert [pending.source for pending in waiting(ready)] == ["~/d.png", "a.png", "b.png", "http://h.invalid/c.png"]


# URLs


async def test_a_url_goes_through_where_the_provider_takes_it() -> None:
    policy = MediaPolicy(takes_urls=frozenset({"image", "audio", "file"}))
    got = await parts_of(
        user(
            "a",
            images=[URL, "HTTP://example.com/x"],
            parts=None,
        )
        + user(
            [
                {"type": "audio", "url": "https://h/a.wav"},
                {"type": "file", "url": "https://h/a%20b.pdf?x"},
                {"type": "file", "url": "https://h/c.jpg"},
            ]
        ),
        policy,
    )
    assert got == [
        {"type": "input_audio", "input_audio": {"data": "https://h/a.wav", "format": "wav"}},
        {"type": "file", "file": {"filename": "a b.pdf", "file_data": "https://h/a%20b.pdf?x"}},
        link("https://h/c.jpg"),
    ]


async def test_a_url_is_fetched_where_the_provider_does_not_take_it(server: ScriptedServer) -> None:
    server.answer(PNG, headers={"content-type": "text/plain"})  # servers err: what the bytes are counts
    assert await parts_of(user("a", images=[f"{server.url}/x?y"], image_details="low"), FETCHES) == [text("a"), picture(detail="low")]
    server.answer(WAV)
    assert await parts_of(user([{"type": "audio", "url": f"{server.url}/x"}]), FETCHES) == [sound()]
    server.answer(PDF)
    assert await parts_of(user([{"type": "input_file", "file_url": f"{server.url}/d/r%20s.pdf?y"}]), FETCHES) == [
        file(PDF, "application/pdf", "r s.pdf")
    ]
    server.answer("a,b")
    assert await parts_of(user([{"type": "file", "file": {"file_data": f"{server.url}/t.csv"}}]), FETCHES) == [text("t.csv:\na,b")]
    server.answer(b"\0\0\0", headers={"content-type": "image/x-rare"})
    assert await parts_of(user(images=server.url), FETCHES) == [picture(bytes(3), "image/x-rare")]


async def test_what_fetching_finds_wrong_is_named_with_its_place(server: ScriptedServer) -> None:
    async def fails(error: type[Exception], says: str, url: str, policy: MediaPolicy = FETCHES) -> None:
        with pytest.raises(error, match=rf"messages\[0\]\.images\[1\]: .*{says}") as caught:
            await loaded(normalized(user("a", images=[PNG, url]), policy), policy)
        assert "SECRET" not in str(caught.value)

    server.answer("<html>Please log in</html>", headers={"content-type": "text/html"})
    await fails(InvalidRequestError, r"/x\.png holds text, not an image", f"{server.url}/x.png?sig=SECRET")
    server.answer("no", status=404)
    await fails(InvalidRequestError, "answers 404", f"{server.url}/x.png?sig=SECRET")
    server.answer("")
    await fails(InvalidRequestError, "is empty", f"{server.url}/x.png?sig=SECRET")
    server.answer("no", status=503)
    await fails(ProviderConnectionError, "answers 503", f"{server.url}/x.png?sig=SECRET")
    server.answer(bytes(2000))
    await fails(
        InvalidRequestError, "holds more than", server.url, MediaPolicy(takes_urls=frozenset(), max_bytes=1000, allow_private_urls=True)
    )
    await fails(InvalidRequestError, "is no public address", f"{server.url}/?sig=SECRET", MediaPolicy(takes_urls=frozenset()))
    await fails(InvalidRequestError, "user name or a password", "http://me:SECRET@127.0.0.1/")
    assert len(server.requests) == 5


async def test_one_that_fails_ends_the_others(server: ScriptedServer) -> None:
    server.answer(PNG, delay=float("inf"), times=3)
    ready = normalized(user("a", images=[f"{server.url}/{n}" for n in range(3)] + ["gone.png"]), FETCHES)
    with pytest.raises(InvalidRequestError, match=r"images\[3\]: gone\.png does not exist"):
        await loaded(ready, FETCHES)
    assert await server.until_open(0)
    assert len(asyncio.all_tasks()) == 1


async def test_more_than_can_be_loaded_at_once(server: ScriptedServer, files: Path) -> None:
    count = AT_ONCE * 2 + 1
    server.answer(JPEG, times=None)
    sources = [source for n in range(count) for source in (f"{server.url}/{n}", files / "a.png")]
    assert await parts_of(user(images=sources), FETCHES) == [picture(JPEG, "image/jpeg"), picture()] * count


def test_a_plan_reads_files_and_fetches_nothing(files: Path) -> None:
    ready = normalized(
        user("a", images=[URL, files / "a.png"], image_details="low")
        + user([{"type": "audio", "url": "http://h/a.mp3"}, {"type": "file", "url": "http://h/r.pdf", "cache_control": {}}]),
        FETCHES,
    )
    first, second = loaded_now(ready, FETCHES)
    assert first["content"] == [text("a"), link(detail="low"), picture(detail="low")]
    assert second["content"] == [
        {"type": "input_audio", "input_audio": {"data": "http://h/a.mp3", "format": "mp3"}},
        {"type": "file", "file": {"filename": "r.pdf", "file_data": "http://h/r.pdf"}, "cache_control": {}},
    ]


def test_a_pending_urls_signature_is_not_shown() -> None:
    ready = normalized(user(images=["https://me:SECRET@example.com/a.png?sig=SECRET"]), FETCHES)
    assert waiting(ready)
    assert "SECRET" not in repr(ready)


# What is asked of the model


@pytest.mark.parametrize(
    ("part", "kind"),
    [
        (link(), "vision"),
        (picture(), "vision"),
        ({"type": "image", "path": "a.png"}, "vision"),
        ({"type": "image", "source": {"type": "url", "url": "x"}}, "vision"),
        (sound(), "audio_input"),
        ({"type": "audio", "path": "x"}, "audio_input"),
        ({"type": "file", "path": "r.PDF"}, "pdf"),
        ({"type": "file", "path": "report", "filename": "r.pdf"}, "pdf"),
        ({"type": "file", "url": "https://h/r.pdf?x=1.png"}, "pdf"),
        ({"type": "file", "url": "gs://b/r.pdf"}, "pdf"),
        ({"type": "file", "file": PDF}, "pdf"),
        (file(PDF, "application/pdf", "noname"), "pdf"),
        ({"type": "document", "source": {"type": "base64", "media_type": "application/pdf"}}, "pdf"),
        ({"type": "document", "source": {"type": "url", "url": "https://h/r.pdf"}}, "pdf"),
        ({"type": "file", "path": "a.mp4"}, "video_input"),
        ({"type": "file", "path": "a.mp3"}, "audio_input"),
        ({"type": "file", "path": "a.png"}, "vision"),
        ({"type": "file", "file": MP4}, "video_input"),
        ({"type": "video_url", "video_url": {"url": "x"}}, "video_input"),
        ({"type": "file", "path": "a.txt"}, None),
        ({"type": "file", "path": "noname"}, None),
        ({"type": "file", "file": {"file_id": "file-abc123"}}, None),
        ({"type": "document", "source": {"type": "text", "media_type": "text/plain"}}, None),
        ({"type": "document"}, None),
        ({"type": "thinking"}, None),
        ({"text": "a"}, None),
        (text("a"), None),
    ],
)
def test_what_a_part_asks_of_the_model(part: Any, kind: str | None) -> None:
    assert kinds(normalized(user([part]), POLICY)) == ({kind} if kind else set())


async def test_after_loading_the_content_tells(files: Path) -> None:
    os.rename(files / "r.pdf", files / "report")
    ready = normalized(user([{"type": "file", "path": str(files / "report")}]), POLICY)
    assert kinds(ready) == set()
    assert kinds(await loaded(ready, POLICY)) == {"pdf"}


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (PNG, "image/png"), (JPEG, "image/jpeg"), (GIF, "image/gif"), (b"GIF87a..", "image/gif"), (WEBP, "image/webp"),
        (b"BM\x46\0\0\0\0\0\0\0\x36\0\0\0", "image/bmp"), (b"BMW is a car", "text/plain"), (b"II*\0....", "image/tiff"),
        (b"\0\0\0\x18ftypheic....", "image/heic"), (b"\0\0\0\x18ftypavif....", "image/avif"), (SVG, "text/plain"),
        (WAV, "audio/wav"), (MP3, "audio/mpeg"), (b"\xff\xfb\x90\x64" + bytes(9), "audio/mpeg"), (b"\xff\xf1\x50\x80", "audio/aac"),
        (b"fLaC\0", "audio/flac"), (b"OggS\0", "audio/ogg"), (b"\0\0\0\x18ftypM4A ....", "audio/mp4"), (b"FORM\0\0\0\0AIFF", "audio/aiff"),
        (MP4, "video/mp4"), (b"\x1a\x45\xdf\xa3\x9fB\x86\x81\x01B\x82\x84webm", "video/webm"), (b"\x1a\x45\xdf\xa3matroska", "video/x-matroska"),
        (b"RIFF\0\0\0\0AVI LIST", "video/x-msvideo"), (b"RIFF\0\0\0\0ABCD", None), (PDF, "application/pdf"), (b"\xef\xbb\xbf\n%PDF-1.7", "application/pdf"),
        (b"# About %PDF- files", "text/plain"), ("\ufeffGrüße\r\n\t".encode(), "text/plain"), ("日本".encode(), "text/plain"),
        ("Grüße".encode("latin-1"), None), (b"a\0b", None), (b"\x01\x02", None), (b"PK\x03\x04", None), (b"\xff", None), (b"\xff\xfe\x41\x00", None),
    ],
)  # fmt: skip
def test_types_by_content(data: bytes, kind: str | None) -> None:
    assert media_type_of(data) == kind


def test_types_by_name_and_words_for_formats() -> None:
    assert media_type_by_name("/a/B.JPG") == "image/jpeg"
    assert media_type_by_name("https://h/a.pdf?b=c.png#d.gif") == "application/pdf"
    assert media_type_by_name("pdf") is None
    assert [audio_format(kind) for kind in ("audio/wav", "audio/x-wav", "audio/mpeg", "audio/mp4", "audio/ogg", "audio/flac", "video/webm")] == [
        "wav", "wav", "mp3", "m4a", "ogg", "flac", "webm",
    ]  # fmt: skip


# Attachments


async def test_attachments_join_the_last_user_message(files: Path) -> None:
    messages = [{"role": "system", "content": "s"}, *user("first"), {"role": "assistant", "content": "yes"}, *user("Look", name="Ada")]
    before = copy.deepcopy(messages)
    got = with_attachments(
        messages,
        images=[PNG],
        image_paths=str(files / "b.jpg"),
        image_details=["low", "high"],
        audio=files / "s.wav",
        files=[str(files / "r.pdf"), "file-abc123"],
    )
    assert messages == before
    assert got[:3] == messages[:3]
    assert has_media(got)
    done = await loaded(normalized(got, POLICY), POLICY)
    assert done[3] == {
        "role": "user",
        "name": "Ada",
        "content": [
            text("Look"),
            picture(JPEG, "image/jpeg", detail="low"),
            picture(detail="high"),
            sound(),
            file(PDF, "application/pdf", "r.pdf"),
            {"type": "file", "file": {"file_id": "file-abc123"}},
        ],
    }


@pytest.mark.parametrize(
    ("message", "held"),
    [
        (user([text("a"), link()]), [text("a"), link()]),
        (user(parts=["a", {"type": "image", "url": URL}]), [text("a"), link()]),
        (user("a", images=[URL]), [text("a"), link()]),
        (user(text="a"), [text("a")]),
        (user(""), []),
        (user(None), []),
    ],
)
async def test_attachments_come_after_what_a_message_holds(message: Any, held: Any) -> None:
    assert await parts_of(with_attachments(message, images=PNG)) == [*held, picture()]
    assert await parts_of(with_attachments(message, parts=["b", {"type": "image", "image": PNG}])) == [*held, text("b"), picture()]


def test_no_attachments_change_nothing() -> None:
    messages = user("a")
    assert with_attachments(messages) == messages
    assert with_attachments(messages, images=None, files=[], audio=(), image_details="low") == messages
    assert has_media(with_attachments(messages)) is False


def test_attachments_need_a_user_message() -> None:
    with pytest.raises(InvalidRequestError, match="no user message to add them to"):
        with_attachments([{"role": "system", "content": "s"}, {"role": "assistant", "content": "a"}], files="a.pdf")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"images": [PNG], "image_details": ["low", "high"]}, "image_details has 2 words for 1 images"),
        ({"parts": ["a"], "images": [PNG]}, "parts are given along with"),
        ({"parts": "a"}, "parts is a str: give a list"),
        ({"images": [PNG], "image_details": "big"}, "the detail 'big' is none"),
    ],
)
def test_attachments_that_cannot_be_meant(given: Any, says: str) -> None:
    with pytest.raises(InvalidRequestError, match=says):
        with_attachments(user("a"), **given)


# Properties


good = st.sampled_from(
    [URL, "a.png", "~/b.jpg", uri(PNG), uri(JPEG, "image/jpeg"), b64(PNG), "gs://b/a.png", "file:///a.png", PNG, Path("a.png"), Image(PNG), Image(url=URL)]
)  # fmt: skip
odd = st.one_of(
    st.sampled_from(["/9j/x.png", "files/ab", "", " ", PDF, WAV, b"text", b"", b"\0", Audio(WAV), None, 5]),
    st.text(max_size=20),
    st.binary(max_size=20),
)
sources = st.one_of(good, good, good, good, good, odd)
details = st.one_of(st.none(), st.sampled_from(["auto", "low", "high"]), st.lists(st.sampled_from(["low", "huge", None]), max_size=2))
right = st.one_of(
    st.text(max_size=5),
    st.builds(lambda key, source, extra: {"type": "image", key: source, **extra}, st.sampled_from(["path", "url", "image"]), good,
        st.sampled_from([{}, {"detail": "low"}, {"cache_control": {"type": "ephemeral"}}])),
    st.builds(lambda source: {"type": "image_url", "image_url": {"url": source, "detail": "auto"}}, good),
    st.sampled_from([sound(), {"type": "audio", "path": "a.wav"}, {"type": "audio", "url": "https://h/a.mp3"}, {"type": "audio", "audio": Audio(WAV)}]),
    st.sampled_from([file(PDF, "application/pdf", "r.pdf"), {"type": "file", "path": "r.pdf", "filename": "s.pdf"}, {"type": "input_file", "file_url": "https://h/r.pdf"},
        {"type": "file", "file": b"some text"}, {"type": "file", "file": "file-abc123"}]),
    st.sampled_from([{"type": "document", "source": {}}, {"text": "a"}, {"type": "tool_result"}]),
)  # fmt: skip
wrong = st.one_of(
    st.builds(lambda kind, key, source, extra: {"type": kind, key: source, **extra},
        st.sampled_from(["image", "audio", "file", "image_url", "input_image", "input_audio", "input_file", "text", "document", "video"]),
        st.sampled_from(["path", "url", "image", "audio", "source", "file", "image_url", "input_audio", "file_data", "file_url", "file_id", "text"]),
        st.one_of(sources, st.builds(lambda source: {"url": source, "detail": "low"}, sources), st.builds(lambda source: {"data": source, "format": "wav"}, sources),
            st.builds(lambda source: {"file_data": source, "filename": "a.pdf"}, sources)),
        st.sampled_from([{}, {"cache_control": {"type": "ephemeral"}}, {"detail": "low"}, {"filename": "x.pdf"}])),
    st.sampled_from([{}, {"text": "a"}, {"type": "tool_result"}, {"type": None}, None, 5]),
)  # fmt: skip
parts = st.one_of(right, right, right, right, wrong)
roles = {"role": st.sampled_from(["user", "assistant", "tool", "system"])}
kept = {"name": st.just("Ada"), "tool_calls": st.just([{"id": "1"}]), "cache_control": st.just({"type": "ephemeral"})}
words = st.text(min_size=1, max_size=5)
pictures = st.one_of(sources, st.lists(sources, max_size=2))
message = st.one_of(
    st.fixed_dictionaries({**roles, "content": st.lists(parts, max_size=3)}, optional=kept),
    st.fixed_dictionaries({**roles, "parts": st.lists(parts, min_size=1, max_size=3)}, optional=kept),
    st.fixed_dictionaries({**roles, "content": words}, optional={**kept, "images": pictures, "image_paths": pictures}),
    st.fixed_dictionaries({**roles, "text": words, "images": pictures}, optional={**kept, "image_details": details}),
    st.fixed_dictionaries(
        roles,
        optional={
            **kept,
            "content": st.one_of(st.none(), words, st.lists(parts, max_size=2)),
            "text": st.text(max_size=5),
            "images": pictures,
            "image_paths": pictures,
            "image_details": details,
            "parts": st.lists(parts, max_size=2),
        },
    ),
)
messages = st.lists(message, max_size=3)
policies = st.builds(
    MediaPolicy,
    takes_urls=st.sets(st.sampled_from(["image", "audio", "file"])),
    reads_text_files=st.booleans(),
    max_bytes=st.sampled_from([10, 1000, 20 * MIB, 20 * MIB]),
)


@settings(max_examples=500, deadline=None)
@given(messages, policies)
def test_normalizing_changes_no_message_and_twice_changes_no_more(conversation: Any, policy: MediaPolicy) -> None:
    before = copy.deepcopy(conversation)
    try:
        ready = normalized(conversation, policy)
    except InvalidRequestError as refused:
        assert str(refused).startswith("messages[")  # it says where
        assert conversation == before
        return
    assert conversation == before
    assert normalized(ready, policy) == ready
    kept = copy.deepcopy(ready)
    assert kinds(ready) <= {"vision", "audio_input", "pdf", "video_input"}
    assert kept == ready
    for message, original in zip(ready, conversation, strict=True):
        assert message.keys().isdisjoint({"image_paths", "images", "image_details", "parts", "text"})
        assert all(message.get(key) == original.get(key) for key in ("role", "tool_calls", "cache_control"))
    if has_media(conversation) is False:
        assert ready == conversation


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_have_one_type_at_most_and_it_is_never_wrong_of_text(data: bytes) -> None:
    found = media_type_of(data)
    assert found is None or "/" in found
    if found == "text/plain":
        data.decode()


@settings(max_examples=300, deadline=None)
@given(messages)
def test_attachments_never_change_the_conversation(conversation: Any) -> None:
    before = copy.deepcopy(conversation)
    try:
        got = with_attachments(conversation, images=[PNG], files="a.pdf")
    except InvalidRequestError:
        got = None
    assert conversation == before
    if got is not None:
        assert [message["role"] for message in got] == [message["role"] for message in before]
