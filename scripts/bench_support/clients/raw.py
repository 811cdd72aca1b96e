"""aiohttp without any library above it: what a careful author writes by hand for one API and one task."""

from __future__ import annotations

import base64
from array import array

import aiohttp
import msgspec
import orjson
from multidict import CIMultiDict
from yarl import URL

from bench_support.inputs import BATCH
from bench_support.wire import KEY, MESSAGES, MODEL


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta


class _Chunk(msgspec.Struct):
    choices: list[_Choice]


class _Message(msgspec.Struct):
    content: str


class _WholeChoice(msgspec.Struct):
    message: _Message


class _Completion(msgspec.Struct):
    choices: list[_WholeChoice]


_read_chunk = msgspec.json.Decoder(_Chunk).decode
_read_completion = msgspec.json.Decoder(_Completion).decode


class Raw:
    """The reference: aiohttp as its documentation shows it, orjson for an answer, msgspec for the chunks of a stream."""

    def __init__(self, base_url: str, *, many: int | None = None) -> None:
        del many  # there is no bound
        self._url = f"{base_url}/chat/completions"
        self._embeddings = f"{base_url}/embeddings"
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    async def call(self) -> int:
        body = orjson.dumps({"model": MODEL, "messages": MESSAGES, "temperature": 0.5})
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        async with self._session.post(self._url, data=body, headers=headers) as response:
            answer = orjson.loads(await response.read())
        return len(answer["choices"][0]["message"]["content"])

    async def embed(self, texts: list[str]) -> int:
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        vectors: list[array[float]] = []
        for start in range(0, len(texts), BATCH):
            body = orjson.dumps({"model": MODEL, "input": texts[start : start + BATCH], "encoding_format": "base64"})
            async with self._session.post(self._embeddings, data=body, headers=headers) as response:
                answer = orjson.loads(await response.read())
            vectors += [array("f", base64.b64decode(item["embedding"])) for item in answer["data"]]
        return len(vectors)

    async def stream(self) -> int:
        body = orjson.dumps(
            {"model": MODEL, "messages": MESSAGES, "temperature": 0.5, "stream": True, "stream_options": {"include_usage": True}}
        )
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        texts: list[str] = []
        rest = b""
        async with self._session.post(self._url, data=body, headers=headers) as response:
            async for data in response.content.iter_any():
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    if line.startswith(b"data: ") and line != b"data: [DONE]":
                        chunk = _read_chunk(line[6:])
                        if chunk.choices and (text := chunk.choices[0].delta.content):
                            texts.append(text)
        return len(texts)


class Tuned:
    """As cheap as aiohttp gets: URL and headers made once, no cookies, no timer, no redirects, typed decoding.

    No limit refers to it. It says what the price of everything that is above the transport is.
    """

    def __init__(self, base_url: str, *, many: int | None = None) -> None:
        del many
        self._url = URL(f"{base_url}/chat/completions")
        self._headers = CIMultiDict(
            {
                "Authorization": f"Bearer {KEY}",
                "Content-Type": "application/json",
                "Accept": "*/*",
                "Accept-Encoding": "gzip, deflate",
                "User-Agent": "bench",
            }
        )
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar(), timeout=aiohttp.ClientTimeout(total=None)
        )

    async def call(self) -> int:
        body = msgspec.json.encode({"model": MODEL, "messages": MESSAGES, "temperature": 0.5})
        response = await self._session.request("POST", self._url, data=body, headers=self._headers, allow_redirects=False)
        return len(_read_completion(await response.read()).choices[0].message.content)

    async def stream(self) -> int:
        raise NotImplementedError

    async def embed(self, texts: list[str]) -> int:
        raise NotImplementedError
