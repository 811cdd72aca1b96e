"""Ollama's own chat, as the scripted server speaks it: a stream is lines of JSON.

Written from https://docs.ollama.com/api/chat, .../api/errors, .../capabilities/tool-calling, .../capabilities/thinking,
and from nothing of the library.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any, ClassVar

from servers.formats import INPUT, OUTPUT, Call, Format, Refusal, Said


class OllamaChat(Format):
    """Its calls need no id, and these have none."""

    key_headers: ClassVar = {"authorization": "Bearer KEY"}
    finish_reasons: ClassVar = {"stop": "stop", "length": "length", "tool_calls": "stop"}
    option_names: ClassVar = {
        "max_tokens": ("options", "num_predict"),
        "temperature": ("options", "temperature"),
        "stop": ("options", "stop"),
    }
    unsupported: ClassVar = "user"
    counts_cached: ClassVar = False
    counts_reasoning: ClassVar = False
    schema_beside_tools: ClassVar = False
    tool_choices: ClassVar = ("auto", "none")
    usage_keys: ClassVar = ("prompt_eval_count", "eval_count")

    counts: ClassVar = {
        "total_duration": 174_560_334,
        "load_duration": 101_397_084,
        "prompt_eval_count": INPUT,
        "prompt_eval_duration": 13_074_791,
        "eval_count": OUTPUT,
        "eval_duration": 52_479_709,
    }

    def _said(self, message: Any, *, done: bool = False, finish: str | None = None) -> dict[str, Any]:
        line = {"model": "served-1", "created_at": "2026-11-01T10:00:00.1Z", "message": {"role": "assistant", "content": "", **message}}
        return {**line, "done": done, **({"done_reason": finish or "stop", **self.counts} if done else {})}

    def _calls(self, calls: Sequence[Call]) -> list[Any]:
        return [{"function": {"index": index, "name": name, "arguments": args}} for index, (_, name, args) in enumerate(calls)]

    def answer(self, text: str = "", calls: Sequence[Call] = (), finish: str | None = None, *, thinking: str = "") -> Any:
        given = {"content": text, "thinking": thinking, "tool_calls": self._calls(calls)}
        return self._said({name: value for name, value in given.items() if value}, done=True, finish=finish)

    def stream(self, *texts: str, calls: Sequence[Call] = (), finish: str | None = None, thinking: str = "") -> list[str]:
        lines = [self._said({"thinking": word}) for word in thinking.split(" ") if word]
        lines += [self._said({"content": text}) for text in texts]
        lines += [self._said({"tool_calls": [call]}) for call in self._calls(calls)]
        lines.append(self._said({}, done=True, finish=finish))
        return [json.dumps(line, ensure_ascii=False) + "\n" for line in lines]

    def error(self, kind: str, *, retry_after: int = 7) -> Refusal:
        status, message = {
            "key": (401, "unauthorized"),
            "rate": (429, "too many requests, please slow down"),
            "server": (500, "model runner has unexpectedly stopped"),
            "model": (404, "model 'nope' not found"),
            "request": (400, "invalid options: num_predict"),
        }[kind]
        return Refusal(status, {"error": message}, {"retry-after": str(retry_after)} if kind == "rate" else {})

    def error_event(self) -> str:
        return json.dumps({"error": "the server is overloaded"}) + "\n"

    def chosen(self, body: Any) -> Any:
        assert "tool_choice" not in body
        return "auto" if "tools" in body else "none"

    def read(self, path: str, body: Any) -> Said:
        assert path.endswith("/api/chat"), path
        own = {"model", "messages", "stream", "tools", "format", "options", "think", "keep_alive", "truncate", "logprobs", "top_logprobs"}
        assert body.keys() <= own | {"anyField"}, "the server passes over what it does not know"
        said = Said(body["model"], body["stream"])
        open_calls: list[str] = []
        for message in body["messages"]:
            role, content = message["role"], message["content"]
            assert isinstance(content, str)
            more = {"assistant": {"tool_calls", "thinking"}, "tool": {"tool_name", "tool_call_id"}}.get(role, set())
            assert message.keys() <= {"role", "content", "images"} | more, message.keys()
            said.images += [(_type_of(data), data) for data in map(base64.b64decode, message.get("images", ()))]
            if role == "tool":
                open_calls.remove(message["tool_name"])
                said.results[message["tool_name"]] = content
            elif role == "system":
                said.system += content
            elif role == "user":
                said.user.append(content)
            else:
                assert role == "assistant", role
                said.assistant.append(content)
                for call in message.get("tool_calls", ()):
                    assert isinstance(call["function"]["arguments"], dict)
                    open_calls.append(call["function"]["name"])
                    said.calls.append((call["function"]["name"], call["function"]["arguments"]))
        assert not open_calls, "a call without its result"
        said.tools = {tool["function"]["name"]: tool["function"].get("parameters") for tool in body.get("tools", ())}
        said.schema = body.get("format") if body.get("format") != "json" else None
        options = body.get("options", {})
        said.max_tokens, said.temperature, said.stop = options.get("num_predict"), options.get("temperature"), options.get("stop")
        return said


def _type_of(data: bytes) -> str:
    return "image/png" if data.startswith(b"\x89PNG") else "image/jpeg"


OLLAMA = OllamaChat()
