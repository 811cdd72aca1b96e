"""The openai SDK, as it comes."""

from __future__ import annotations

from typing import Any

import openai

from bench_support.inputs import BATCH
from bench_support.wire import KEY, MESSAGES, MODEL


class SDK:
    """One ``AsyncOpenAI`` is kept for all calls."""

    def __init__(self, base_url: str, *, many: int | None = None) -> None:
        options: dict[str, Any] = {}
        if many is not None:
            # Its own default is 1,000 connections. Its HTTP library has had two names, so the class is taken from what it uses.
            limits = type(openai.DEFAULT_CONNECTION_LIMITS)(max_connections=None, max_keepalive_connections=None)
            options["http_client"] = openai.DefaultAsyncHttpxClient(limits=limits)
        self._client = openai.AsyncOpenAI(api_key=KEY, base_url=base_url, max_retries=0, **options)

    async def call(self) -> int:
        answer = await self._client.chat.completions.create(model=MODEL, messages=MESSAGES, temperature=0.5)
        return len(answer.choices[0].message.content or "")

    async def embed(self, texts: list[str]) -> int:
        vectors: list[list[float]] = []
        for start in range(0, len(texts), BATCH):
            answer = await self._client.embeddings.create(model=MODEL, input=texts[start : start + BATCH])
            vectors += [item.embedding for item in answer.data]
        return len(vectors)

    async def stream(self) -> int:
        texts: list[str] = []
        stream = await self._client.chat.completions.create(
            model=MODEL, messages=MESSAGES, temperature=0.5, stream=True, stream_options={"include_usage": True}
        )
        async for chunk in stream:
            if chunk.choices and (text := chunk.choices[0].delta.content):
                texts.append(text)  # noqa: PERF401
        return len(texts)
