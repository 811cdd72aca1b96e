"""Cohere's v2 chat, as the scripted server speaks it.

Written from https://docs.cohere.com/reference/chat, .../chat-stream, .../errors, and from nothing of the library.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, ClassVar

from servers.formats import CACHED, INPUT, OUTPUT, Call, Format, Refusal, Said
from servers.formats import _data_uri as data_uri
from servers.formats import _event as event
from servers.formats import _halves as halves


class CohereChat(Format):
    """Messages are nearly OpenAI's; of the answer only the form of a call is."""

    key_headers: ClassVar = {"authorization": "Bearer KEY"}
    finish_reasons: ClassVar = {"stop": "COMPLETE", "length": "MAX_TOKENS", "tool_calls": "TOOL_CALL"}
    option_names: ClassVar = {"max_tokens": ("max_tokens",), "temperature": ("temperature",), "stop": ("stop_sequences",)}
    unsupported: ClassVar = "user"
    names_model: ClassVar = False
    counts_reasoning: ClassVar = False
    schema_beside_tools: ClassVar = False

    # What is billed is another number: it leaves out what the API itself adds.
    usage: ClassVar = {
        "billed_units": {"input_tokens": 7.0, "output_tokens": 5.0},
        "tokens": {"input_tokens": float(INPUT), "output_tokens": float(OUTPUT)},
        "cached_tokens": CACHED,
    }

    def _calls(self, calls: Sequence[Call]) -> list[Any]:
        return [{"id": id, "type": "function", "function": {"name": name, "arguments": json.dumps(args)}} for id, name, args in calls]

    def answer(
        self,
        text: str = "",
        calls: Sequence[Call] = (),
        finish: str | None = None,
        *,
        thinking: str = "",
        plan: str = "",
        citations: Sequence[Any] = (),
    ) -> Any:
        content = [{"type": "thinking", "thinking": thinking}] if thinking else []
        content += [{"type": "text", "text": text}] if text else []
        message: dict[str, Any] = {"role": "assistant"}
        given = {"content": content, "tool_plan": plan, "tool_calls": self._calls(calls), "citations": list(citations)}
        message |= {name: value for name, value in given.items() if value}
        finish = finish or ("TOOL_CALL" if calls else "COMPLETE")
        return {"id": "c14c80c3", "message": message, "finish_reason": finish, "usage": self.usage}

    def _event(self, kind: str, index: int | None = None, **delta: Any) -> str:
        where = {} if index is None else {"index": index}
        return event({"type": kind, **where, **({"delta": delta} if delta else {})}, kind)

    def preface(self) -> list[str]:
        return [event({"type": "message-start", "id": "c14c80c3", "delta": {"message": {"role": "assistant"}}}, "message-start")]

    def _block(self, index: int, kind: str, texts: Sequence[str]) -> list[str]:
        events = [self._event("content-start", index, message={"content": {"type": kind, kind: ""}})]
        events += [self._event("content-delta", index, message={"content": {kind: text}}) for text in texts]
        return [*events, self._event("content-end", index)]

    def stream(
        self,
        *texts: str,
        calls: Sequence[Call] = (),
        finish: str | None = None,
        thinking: str = "",
        plan: str = "",
        citations: Sequence[Any] = (),
    ) -> list[str]:
        events = self.preface()
        if thinking:
            events += self._block(0, "thinking", halves(thinking))
        if plan:
            events += [self._event("tool-plan-delta", message={"tool_plan": piece}) for piece in halves(plan)]
        if texts:
            events += self._block(1 if thinking else 0, "text", texts)
        for index, citation in enumerate(citations):
            events += [self._event("citation-start", index, message={"citations": citation}), self._event("citation-end", index)]
        for index, call in enumerate(self._calls(calls)):
            begun = {**call, "function": {**call["function"], "arguments": ""}}
            events.append(self._event("tool-call-start", index, message={"tool_calls": begun}))
            events += [
                self._event("tool-call-delta", index, message={"tool_calls": {"function": {"arguments": piece}}})
                for piece in halves(call["function"]["arguments"])
            ]
            events.append(self._event("tool-call-end", index))
        return [*events, self._event("message-end", finish_reason=finish or ("TOOL_CALL" if calls else "COMPLETE"), usage=self.usage)]

    def error(self, kind: str, *, retry_after: int = 7) -> Refusal:
        status, message = {
            "key": (401, "invalid api token"),
            "rate": (429, "Too many requests, please slow down."),
            "server": (500, "internal server error, this has been reported to our developers"),
            "model": (404, "model 'nope' not found, make sure the correct model ID was used and that you have access to the model."),
            "request": (400, "invalid request: messages must not be empty."),
        }[kind]
        return Refusal(status, {"id": "c14c80c3", "message": message}, {"retry-after": str(retry_after)} if kind == "rate" else {})

    def error_event(self) -> str:
        return self._event("message-end", finish_reason="ERROR", error="The model is overloaded.")

    def chosen(self, body: Any) -> Any:
        choice = {"REQUIRED": "required", "NONE": "none", None: "auto"}[body.get("tool_choice")]
        names = [tool["function"]["name"] for tool in body["tools"]]
        return {"type": "function", "function": {"name": names[0]}} if choice == "required" and len(names) == 1 else choice

    def read(self, path: str, body: Any) -> Said:
        assert path.endswith("/v2/chat"), path
        refused = {"max_completion_tokens", "top_p", "top_k", "stop", "n", "user", "stream_options", "reasoning_effort"}
        assert not body.keys() & refused, f"unknown field: {body.keys() & refused}"
        said = Said(body["model"], body["stream"])
        open_calls: list[str] = []
        for message in body["messages"]:
            role, content = message["role"], message.get("content")
            own = {"assistant": {"tool_calls", "tool_plan", "citations"}, "tool": {"tool_call_id"}}
            assert message.keys() <= {"role", "content", *own.get(role, ())}, message.keys()
            parts = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
            text = "".join(part["text"] for part in parts if part["type"] == "text")
            if role == "tool":
                open_calls.remove(message["tool_call_id"])
                said.results[message["tool_call_id"]] = text
                continue
            assert not open_calls, "tool calls must be followed by their results"
            for part in parts:
                if part["type"] == "image_url":
                    assert role == "user"
                    said.images.append(data_uri(part["image_url"]["url"]))
            if role == "system":
                said.system += text
            elif role == "user":
                said.user.append(text)
            else:
                assert role == "assistant" and (parts or message.get("tool_calls")), "content or tool_calls must be given"
                said.assistant.append(text)
                for call in message.get("tool_calls", ()):
                    assert call["type"] == "function"
                    open_calls.append(call["id"])
                    said.calls.append((call["function"]["name"], json.loads(call["function"]["arguments"])))
        assert not open_calls, "tool calls must be followed by their results"
        said.tools = {tool["function"]["name"]: tool["function"]["parameters"] for tool in body.get("tools", ())}
        assert all(tool["function"].keys() <= {"name", "description", "parameters"} for tool in body.get("tools", ()))
        wanted = body.get("response_format", {"type": "text"})
        assert wanted["type"] in ("text", "json_object"), wanted
        assert wanted["type"] == "text" or not body.get("tools"), "response_format is not supported with tools"
        said.schema = wanted.get("json_schema")
        said.max_tokens, said.temperature, said.stop = body.get("max_tokens"), body.get("temperature"), body.get("stop_sequences")
        return said


COHERE = CohereChat()
