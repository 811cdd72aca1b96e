"""A conversation in our messages, as GigaChat's: the first version of its chat API and the second.

Sources: https://developers.sber.ru/docs/ru/gigachat/api/reference/rest/post-chat,
https://github.com/ai-forever/gigachat/blob/main/MIGRATION_GUIDE.md (the second version)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from llm_master.errors import InvalidRequestError
from llm_master.providers.gigachat_files import FILE, shown
from llm_master.providers.turns import refuse_no_turns, tool_calls
from llm_master.types import Message

FORMAT = "gigachat"
"""Under this name an answer keeps the state of its functions for the next turn."""

Call = tuple[str, str | None, dict[str, Any]]
"""A tool call: id, name, arguments."""


def conversation(messages: Sequence[Message], *, second: bool) -> list[dict[str, Any]]:
    """The messages of a request.

    The API takes one system message, the first; what other system messages say joins it. In the first version a turn has one
    function call at most: of calls that another provider's model made in parallel, each is followed by its own result.

    Args:
        messages: The conversation.
        second: Whether they go to the second version of the API.

    Raises:
        InvalidRequestError: A tool result without its call, a call without its result, or content that the API does not take.
    """
    system: list[str] = []
    turns: list[dict[str, Any]] = []
    documents = position = 0
    while position < len(messages):
        message, where = messages[position], f"messages[{position}]"
        role = message["role"]
        position += 1
        text, files = _content(message.get("content"), where)
        documents += len([kind for _, kind in files if kind == "file"])
        if documents > 1 and not second:
            # Of several it reads the first, and does not say so.
            raise InvalidRequestError(f"{where}: this API reads one text file a request: join the files, or send their text")
        if role in ("system", "developer"):
            if files:
                raise InvalidRequestError(f"{where}: a system message takes text only: put images and files into a user message")
            system.append(text)
        elif role == "assistant":
            if files:
                raise InvalidRequestError(f"{where}: an assistant message takes text only: put images and files into a user message")
            calls = [(str(call.get("id")), name, arguments) for call, name, arguments in tool_calls(message, where)]
            results = _results(messages, position, calls)
            position += len(results)
            turns += (_second_turn if second else _first_turns)(text, calls, results, _state(message), where)
        elif role in ("tool", "function"):
            raise InvalidRequestError(
                f"{where} is the result of tool call {message.get('tool_call_id')!r}, and the assistant's message before it makes no "
                "such call: put the message with its tool_calls right before the results"
            )
        else:
            turns.append(_user(text, files, where, second=second))
    refuse_no_turns(turns)
    if system:
        said = "\n\n".join(system)
        turns.insert(0, {"role": "system", "content": [{"text": said}] if second else said})
    return turns


def _user(text: str, files: list[Any], where: str, *, second: bool) -> dict[str, Any]:
    # https://developers.sber.ru/docs/ru/gigachat/api/reference/rest/post-chat: one image a message
    if len([kind for _, kind in files if kind == "image"]) > 1:
        raise InvalidRequestError(f"{where}: this API takes one image a message: put each image into a user message of its own")
    if second:
        parts: list[dict[str, Any]] = [{"text": text}] if text or not files else []
        if files:
            parts.append({"files": [{"id": name} for name, _ in files]})
        return {"role": "user", "content": parts}
    turn: dict[str, Any] = {"role": "user", "content": text}
    if files:
        turn["attachments"] = [name for name, _ in files]
    return turn


def _results(messages: Sequence[Message], position: int, calls: list[Call]) -> dict[str, Any]:
    """The results that follow a turn, by the id of their call."""
    known = {call for call, _, _ in calls}
    found: dict[str, Any] = {}
    while position < len(messages) and messages[position]["role"] in ("tool", "function"):
        call = str(messages[position].get("tool_call_id"))
        if call not in known or call in found:
            break
        text, files = _content(messages[position].get("content"), f"messages[{position}]")
        if files:
            raise InvalidRequestError(
                f"messages[{position}]: the result of a tool takes text only: put images and files into a user message"
            )
        found[call] = text
        position += 1
    return found


def _first_turns(text: str, calls: list[Call], results: Mapping[str, str], state: str | None, where: str) -> list[dict[str, Any]]:
    turns: list[dict[str, Any]] = []
    if not calls:
        turns.append({"role": "assistant", "content": text})
    for number, (call, name, arguments) in enumerate(calls):
        turns.append({"role": "assistant", "content": "" if number else text, "function_call": {"name": name, "arguments": arguments}})
        if call in results:
            content = msgspec.json.encode(_object(results[call])).decode()
            turns.append({"role": "function", "name": name, "content": content})
        elif len(calls) > 1:
            raise InvalidRequestError(
                f"{where} has {len(calls)} tool_calls, and this API takes one at a time: put the result of {call!r} after it, or leave it out"
            )
    if state is not None:
        for turn in turns:
            if turn["role"] == "assistant":
                turn["functions_state_id"] = state
    return turns


def _second_turn(text: str, calls: list[Call], results: Mapping[str, str], state: str | None, where: str) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = [{"text": text}] if text or not calls else []
    parts += [{"function_call": {"name": name, "arguments": arguments}} for _, name, arguments in calls]
    turns: list[dict[str, Any]] = [{"role": "assistant", "content": parts}]
    answered = [{"function_result": {"name": name, "result": _object(results[call])}} for call, name, _ in calls if call in results]
    if answered and len(answered) < len(calls):
        missing = next(call for call, _, _ in calls if call not in results)
        raise InvalidRequestError(f"{where}: the result of tool call {missing!r} is missing: put it with the others after this message")
    if answered:
        turns.append({"role": "tool", "content": answered})
    if state is not None:
        for turn in turns:
            turn["tools_state_id"] = state
    return turns


def _state(message: Message) -> str | None:
    """The state of the functions, if an answer of this API kept it."""
    native = message.get("_native")
    if not isinstance(native, Mapping) or native.get("format") != FORMAT:
        return None
    state = native.get("state")
    return state if isinstance(state, str) else None


def _object(text: str) -> Any:
    """The API wants an object as a function's result; anything else becomes its ``result``."""
    if not text:
        return {}
    try:
        decoded = msgspec.json.decode(text)
    except msgspec.DecodeError:
        decoded = text
    return decoded if isinstance(decoded, dict) else {"result": decoded}


def _content(content: Any, where: str) -> tuple[str, list[tuple[str, str]]]:
    """Text, and of each file its id and kind."""
    if content is None or isinstance(content, str):
        return content or "", []
    if not isinstance(content, Sequence):
        raise InvalidRequestError(f"{where}: content is a {type(content).__name__}: give a text or a list of parts")
    texts: list[str] = []
    files: list[tuple[str, str]] = []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
            continue
        if not isinstance(part, Mapping):
            raise InvalidRequestError(f"{where}: a part of its content is a {type(part).__name__}: give a dict with a type")
        kind = part.get("type")
        if kind in ("text", "input_text"):
            texts.append(str(part.get("text") or ""))
        elif kind == "refusal":
            texts.append(str(part.get("refusal") or ""))
        elif kind == FILE:
            files.append((part["id"], part["kind"]))
        elif kind == "file" and isinstance(part.get("file"), Mapping) and part["file"].get("file_id"):
            files.append((str(part["file"]["file_id"]), "file"))
        elif (planned := shown(part, where)) is not None:
            files.append(planned)
        else:
            raise InvalidRequestError(f"{where}: this API takes text, images, audio and files, not a part of type {kind!r}")
    return "\n".join(texts), files
