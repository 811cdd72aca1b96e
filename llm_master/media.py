"""What an answer holds beside its text: images, audio, and the sources it names."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

_ENDINGS = {
    "image/png": ".png",
    "image/jpeg": ".jpg",
    "image/webp": ".webp",
    "image/gif": ".gif",
    "image/svg+xml": ".svg",
    "audio/mpeg": ".mp3",
    "audio/wav": ".wav",
    "audio/flac": ".flac",
    "audio/ogg": ".ogg",
    "audio/aac": ".aac",
    "audio/opus": ".opus",
    "audio/pcm": ".pcm",
}


@attrs.define
class Image:
    """One image of an answer, or one to send. It has ``data``, or a ``url`` from which it can be had, or both.

    Attributes:
        data: The file's bytes.
        url: Where the provider keeps it; most providers for some minutes or hours only.
        media_type: As ``image/png``; ``None`` if the provider did not say.
        revised_prompt: The prompt as the provider rewrote it, where it did.
    """

    data: bytes | None = attrs.field(default=None, repr=False)
    url: str | None = None
    media_type: str | None = None
    revised_prompt: str | None = attrs.field(default=None, kw_only=True)

    @classmethod
    def from_url(cls, url: str) -> Image:
        """Of a link, or of a ``data:`` URI, which is decoded."""
        found = from_data_uri(url)
        return cls(found[1], None, found[0]) if found is not None else cls(url=url)

    @property
    def ending(self) -> str:
        """The usual ending of its file's name."""
        return _ENDINGS.get(self.media_type or "", ".png")

    def save(self, path: str | Path) -> Path:
        """Write the bytes to ``path``.

        Raises:
            ValueError: Only the ``url`` is known: ``await llm_master.download(image)`` gets the bytes.
        """
        if self.data is None:
            raise ValueError(f"the image is only known by its URL, {self.url}: get its bytes by `await llm_master.download(image)`")
        return _write(path, self.data)


@attrs.define
class Audio:
    """Audio of an answer.

    Attributes:
        data: The file's bytes, or bare samples where ``media_type`` is ``audio/pcm``.
        media_type: As ``audio/wav``.
        transcript: What is said in it, where the provider tells.
        id: By which the provider knows it in the next turn.
        sample_rate: Samples per second of ``audio/pcm``, which are 16 bit, little-endian, one channel.
    """

    data: bytes = attrs.field(repr=False)
    media_type: str = "audio/mpeg"
    transcript: str | None = attrs.field(default=None, kw_only=True)
    id: str | None = attrs.field(default=None, kw_only=True)
    sample_rate: int = attrs.field(default=24_000, kw_only=True)

    @property
    def ending(self) -> str:
        """The usual ending of its file's name; bare samples are saved as WAV."""
        return ".wav" if self.media_type == "audio/pcm" else _ENDINGS.get(self.media_type, ".mp3")

    def save(self, path: str | Path) -> Path:
        """Write the audio to ``path``. Bare samples get a WAV header where the name ends in ``.wav``."""
        path = Path(path)
        if self.media_type != "audio/pcm" or path.suffix.lower() != ".wav":
            return _write(path, self.data)
        import wave

        path.parent.mkdir(parents=True, exist_ok=True)
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(self.sample_rate)
            file.writeframes(self.data)
        return path


@attrs.define
class Citation:
    """One source that an answer names. ``str(citation)`` is its address.

    Attributes:
        url: Where it is.
        title: What it is called.
        text: The passage that is cited, or the search result's snippet.
        start: Where in ``answer.content`` the sentence begins that it supports, in characters; ``None`` if not said.
        end: Where that sentence ends.
        raw: The whole as the provider gave it.
    """

    url: str | None = None
    title: str | None = None
    text: str | None = attrs.field(default=None, kw_only=True)
    start: int | None = attrs.field(default=None, kw_only=True)
    end: int | None = attrs.field(default=None, kw_only=True)
    raw: Mapping[str, Any] | None = attrs.field(default=None, kw_only=True, repr=False, eq=False)

    def __str__(self) -> str:
        return self.url or self.title or ""


def from_data_uri(uri: str) -> tuple[str, bytes] | None:
    """Media type and bytes of ``data:TYPE;base64,DATA``; ``None`` for anything else."""
    if not uri.startswith("data:"):
        return None
    head, comma, data = uri[5:].partition(",")
    media_type, _, encoding = head.partition(";")
    if not comma or not encoding.endswith("base64"):
        return None
    try:
        return media_type.lower(), base64.b64decode(data, validate=True)
    except ValueError:
        return None


def to_data_uri(media_type: str, data: bytes) -> str:
    """``data:TYPE;base64,DATA``."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def _write(path: str | Path, data: bytes) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
