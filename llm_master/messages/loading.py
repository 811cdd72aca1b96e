"""Reading the files and fetching the URLs that a normalized conversation waits for."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Iterator, Sequence

import attrs

from llm_master.errors import ProviderError
from llm_master.messages.content import KEYS, MediaPolicy, Part, Pending, checked_size, file_name, made, too_big
from llm_master.messages.parts import beside, pending_in
from llm_master.messages.sources import passed
from llm_master.types import Message

AT_ONCE = 8
"""How many items are read or fetched at a time: each is held in memory whole, and once more as base64."""

_NO_FILES = (
    (stat.S_ISFIFO, "is a pipe: read it, and give the bytes"),
    (stat.S_ISSOCK, "is a socket: give a file"),
    (stat.S_ISCHR, "is a device: give a file"),
    (stat.S_ISBLK, "is a device: give a file"),
)


async def loaded(messages: Sequence[Message], policy: MediaPolicy) -> list[Message]:
    """A normalized conversation with all its files read and its URLs fetched, several at a time, off the event loop.

    Raises:
        InvalidRequestError: A file that is missing, empty, too big or something else than it was given as; a URL that is
            not there or leads to an address that is not public. The message says where it stands.
        ProviderConnectionError: A URL's server was not reached, or failed.
        RequestTimeoutError: It took too long.
    """
    waiting = _pending(messages)
    if not waiting:
        return list(messages)
    at_once = asyncio.Semaphore(AT_ONCE)

    async def one(pending: Pending) -> Part:
        async with at_once:
            return await _fetched(pending, policy) if pending.is_url else await asyncio.to_thread(_read, pending, policy)

    tasks = [asyncio.ensure_future(one(pending)) for pending in waiting]
    try:
        return _filled(messages, iter(await asyncio.gather(*tasks)))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


def loaded_now(messages: Sequence[Message], policy: MediaPolicy) -> list[Message]:
    """What ``loaded`` makes, for a plan, which fetches nothing: files are read, and a URL stays what it is.

    Raises:
        InvalidRequestError: As ``loaded`` does, of files.
    """
    parts = (passed(pending.item, pending.source) if pending.is_url else _read(pending, policy) for pending in _pending(messages))
    return _filled(messages, parts)


def _pending(messages: Sequence[Message]) -> list[Pending]:
    return [
        pending
        for message in messages
        if isinstance(message.get("content"), (list, tuple))
        for part in message["content"]
        if (pending := pending_in(part)) is not None
    ]


def _filled(messages: Sequence[Message], parts: Iterator[Part]) -> list[Message]:
    filled: list[Message] = []
    for message in messages:
        content = message.get("content")
        if isinstance(content, (list, tuple)) and any(map(pending_in, content)):
            content = [{**next(parts), **beside(part, *KEYS.values())} if pending_in(part) else part for part in content]
            filled.append({**message, "content": content})
        else:
            filled.append(message)
    return filled


async def _fetched(pending: Pending, policy: MediaPolicy) -> Part:
    from llm_master.transport.fetch import fetch  # with what it needs; most queries fetch nothing

    try:
        found = await fetch(pending.source, max_bytes=policy.max_bytes, allow_private=policy.allow_private_urls)
    except ProviderError as exc:
        raise type(exc)(f"{pending.item.where}: {exc}") from exc
    # What a server says of a file's type is a hint; what the file holds counts.
    return await asyncio.to_thread(_made, pending, found.data, policy, found.media_type)


def _read(pending: Pending, policy: MediaPolicy) -> Part:
    """Read a local file. It blocks."""
    item = pending.item
    path = os.path.expanduser(pending.source)
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            status = os.fstat(file.fileno())
            for is_kind, remedy in _NO_FILES:
                if is_kind(status.st_mode):
                    raise item.refused(remedy)
            if status.st_size > policy.max_bytes:
                raise too_big(item, status.st_size, policy)
            # It may have grown since.
            data = file.read(policy.max_bytes + 1)
    except FileNotFoundError:
        raise item.refused(f"does not exist: {_where_looked(path)}") from None
    except (IsADirectoryError, PermissionError) as exc:
        if os.path.isdir(path):  # on Windows, a folder is a PermissionError
            raise item.refused("is a folder: give the files in it one by one") from None
        raise item.refused("may not be read by this user: change its permissions") from exc
    except (OSError, ValueError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else exc
        raise item.refused(f"cannot be read ({why}): give the path of a file; base64 text goes into images, or into a data URI") from exc
    checked_size(item, data, policy)
    return _made(pending, data, policy, None)


def _without_waiting(path: str, flags: int) -> int:
    # To open a pipe that nobody writes to would else wait forever.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _where_looked(path: str) -> str:
    return "check the path" if os.path.isabs(path) else f"the path is relative to {os.getcwd()}"


def _made(pending: Pending, data: bytes, policy: MediaPolicy, declared: str | None) -> Part:
    item = pending.item
    if item.kind == "file" and not item.fields.get("filename"):
        item = attrs.evolve(item, fields={**item.fields, "filename": file_name(pending.source)})
    return made(item, data, policy, declared=declared)
