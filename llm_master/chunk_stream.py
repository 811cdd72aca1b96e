"""An answer in chunks, which may be awaited before it is iterated, or not: both are written."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionChunk


class ChunkStream:
    """The chunks of one answer: an asynchronous iterator, which awaiting it returns once the answer has begun.

    ``async for chunk in stream`` and ``async for chunk in await stream`` do the same. Dropped, it gives its connection free;
    ``async with`` does so at once.
    """

    __slots__ = ("_chunks", "_opening")

    def __init__(self, opening: Callable[[], Awaitable[AsyncIterator[ChatCompletionChunk]]]) -> None:
        self._opening: Callable[[], Awaitable[AsyncIterator[ChatCompletionChunk]]] | None = opening
        self._chunks: AsyncIterator[ChatCompletionChunk] | None = None

    def __await__(self) -> Generator[Any, None, ChunkStream]:
        return self._opened().__await__()

    def __aiter__(self) -> ChunkStream:
        return self

    async def __anext__(self) -> ChatCompletionChunk:
        if self._opening is not None:
            await self._opened()
        if self._chunks is None:
            raise StopAsyncIteration
        return await self._chunks.__anext__()

    async def __aenter__(self) -> ChunkStream:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the stream and close its connection; after its end this does nothing."""
        chunks, self._chunks, self._opening = self._chunks, None, None
        close = getattr(chunks, "aclose", None)
        if close is not None:
            await close()

    async def _opened(self) -> ChunkStream:
        opening, self._opening = self._opening, None
        if opening is not None:
            self._chunks = await opening()
        return self
