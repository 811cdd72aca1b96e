"""What a scripted server says in each wire format, and what it was asked in it.

Written from the public references, and from nothing of the library:

* https://platform.openai.com/docs/api-reference/chat, .../responses, .../responses-streaming
* https://docs.anthropic.com/en/api/messages, .../build-with-claude/streaming, https://docs.anthropic.com/en/api/errors
* https://ai.google.dev/api/generate-content, https://cloud.google.com/apis/design/errors
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

Call = tuple[str, str, dict[str, Any]]
"""A tool call: id, name, arguments."""

INPUT, CACHED, OUTPUT, REASONING = 100, 30, 50, 20
"""Tokens of every answer, in the library's convention: input with the cached, output with the reasoning."""


@dataclass
class Said:
    """A request, whatever its format. Results stand by the id of their call where the format has ids, else by its name."""

    model: str
    streams: bool
    system: str = ""
    user: list[str] = field(default_factory=list)
    assistant: list[str] = field(default_factory=list)
    images: list[tuple[str, bytes]] = field(default_factory=list)
    tools: dict[str, Any] = field(default_factory=dict)
    calls: list[tuple[str, Any]] = field(default_factory=list)
    results: dict[str, str] = field(default_factory=dict)
    schema: Any = None
    max_tokens: int | None = None
    temperature: float | None = None
    stop: list[str] | None = None


@dataclass
class Refusal:
    """An answer that is an error."""

    status: int
    body: Any
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def message(self) -> str:
        holder, name = self._place
        return str(holder[name])

    def say_also(self, text: str) -> None:
        holder, name = self._place
        holder[name] += text

    @property
    def _place(self) -> tuple[Any, str]:
        """Where the message is: in an object, as the error itself, or without one."""
        error = self.body.get("error")
        return (error, "message") if isinstance(error, dict) else (self.body, "message" if error is None else "error")


class Format:
    """One wire format. Streams are lists of events, each a text that can be sent apart.

    Attributes:
        key_headers: In which header the key ``KEY`` stands, and how.
        finish_reasons: Their words for the four reasons, by the field's.
        option_names: Where ``max_tokens``, ``temperature`` and ``stop`` stand in a body.
        unsupported: An option that changes the meaning and has no word here; ``None`` where all go through.
        names_model: Whether an answer says which model made it.
        counts_cached: Whether the usage says what the cache served.
        counts_reasoning: Whether the usage says what went into thoughts.
        schema_beside_tools: Whether a schema can be given together with tools.
        tool_choices: Which choices of a tool can be said.
        usage_keys: Where the usage stands in an answer.
        stream_type: The media type of a stream.
        parallel_calls: Whether one turn may hold several tool calls.
        path: Where the API is, below the server's address.
        text_beside_calls: Whether one turn may hold text and calls.
        environment: Variables that the row needs beside its key and its address.
        key_variable: The variable of the key, where it is not the row's first.
    """

    key_headers: ClassVar[dict[str, str]]
    finish_reasons: ClassVar[dict[str, str]]
    option_names: ClassVar[dict[str, tuple[str, ...]]]
    unsupported: ClassVar[str | None] = None
    names_model: ClassVar[bool] = True
    counts_cached: ClassVar[bool] = True
    counts_reasoning: ClassVar[bool] = True
    schema_beside_tools: ClassVar[bool] = True
    tool_choices: ClassVar[tuple[str, ...]] = ("auto", "required", "none", "function")
    usage_keys: ClassVar[tuple[str, ...]] = ("usage", "usageMetadata")
    stream_type: ClassVar[str] = "text/event-stream"
    parallel_calls: ClassVar[bool] = True
    text_beside_calls: ClassVar[bool] = True
    environment: ClassVar[dict[str, str]] = {}
    path: ClassVar[str] = "/v1"
    key_variable: ClassVar[str | None] = None

    def chosen(self, body: Any) -> Any:
        """The choice of a tool in OpenAI's words, for a format that says it otherwise than the contract's test knows; else ``None``."""
        return None

    def wire(self, *events: str) -> bytes:
        """The bytes of events."""
        return "".join(events).encode()

    def without_usage(self, content: Any) -> Any:
        """An answer less its usage."""
        return {name: value for name, value in content.items() if name not in self.usage_keys}

    def answer(self, text: str = "", calls: Sequence[Call] = (), finish: str | None = None) -> Any:
        """A whole answer."""
        raise NotImplementedError

    def stream(self, *texts: str, calls: Sequence[Call] = (), finish: str | None = None) -> list[str]:
        """The events of the same answer; a stream that is cut off is a part of them."""
        raise NotImplementedError

    def preface(self) -> list[str]:
        """Events that come before the first delta and hold none."""
        return []

    def error(self, kind: str, *, retry_after: int = 7) -> Refusal:
        """An error: ``key``, ``rate``, ``server``, ``model`` or ``request``."""
        raise NotImplementedError

    def error_event(self) -> str:
        """An error in mid-stream that may pass."""
        raise NotImplementedError

    def read(self, path: str, body: Any) -> Said:
        """What a request says. Raises ``AssertionError`` where the API would refuse it."""
        raise NotImplementedError


def _event(content: Any, name: str | None = None) -> str:
    return (f"event: {name}\n" if name else "") + f"data: {json.dumps(content, ensure_ascii=False)}\n\n"


def _halves(text: str) -> tuple[str, str]:
    return text[: len(text) // 2], text[len(text) // 2 :]


def _data_uri(uri: str) -> tuple[str, bytes]:
    head, data = uri.split(";base64,")
    return head.removeprefix("data:"), base64.b64decode(data)


class ChatCompletions(Format):
    """OpenAI's chat completions."""

    key_headers: ClassVar = {"authorization": "Bearer KEY"}
    finish_reasons: ClassVar = {"stop": "stop", "length": "length", "tool_calls": "tool_calls", "content_filter": "content_filter"}
    option_names: ClassVar = {"max_tokens": ("max_tokens",), "temperature": ("temperature",), "stop": ("stop",)}

    usage: ClassVar = {
        "prompt_tokens": INPUT,
        "completion_tokens": OUTPUT,
        "total_tokens": INPUT + OUTPUT,
        "prompt_tokens_details": {"cached_tokens": CACHED},
        "completion_tokens_details": {"reasoning_tokens": REASONING},
    }

    def answer(self, text: str = "", calls: Sequence[Call] = (), finish: str | None = None) -> Any:
        message: dict[str, Any] = {"role": "assistant", "content": text or None}
        if calls:
            message["tool_calls"] = [
                {"id": id, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
                for id, name, arguments in calls
            ]
        finish = finish or ("tool_calls" if calls else "stop")
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1_800_000_000,
            "model": "served-1",
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
            "usage": self.usage,
        }

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> str:
        return _event(
            {
                "id": "chatcmpl-1",
                "object": "chat.completion.chunk",
                "model": "served-1",
                "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
            }
        )

    def preface(self) -> list[str]:
        return [self._chunk({"role": "assistant", "content": ""})]

    def stream(self, *texts: str, calls: Sequence[Call] = (), finish: str | None = None) -> list[str]:
        events = [*self.preface(), *(self._chunk({"content": text}) for text in texts)]
        for index, (id, name, arguments) in enumerate(calls):
            events.append(
                self._chunk({"tool_calls": [{"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": ""}}]})
            )
            events += [
                self._chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
                for piece in _halves(json.dumps(arguments))
            ]
        events.append(self._chunk({}, finish or ("tool_calls" if calls else "stop")))
        events.append(_event({"id": "chatcmpl-1", "model": "served-1", "choices": [], "usage": self.usage}))
        return [*events, "data: [DONE]\n\n"]

    def error(self, kind: str, *, retry_after: int = 7) -> Refusal:
        status, type_, code, message = {
            "key": (401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
            "rate": (429, "requests", "rate_limit_exceeded", "Rate limit reached for requests."),
            "server": (500, "server_error", None, "The server had an error while processing your request."),
            "model": (404, "invalid_request_error", "model_not_found", "The model `nope` does not exist."),
            "request": (400, "invalid_request_error", None, "Invalid value: 'narrator'."),
        }[kind]
        headers = {"retry-after": str(retry_after)} if kind == "rate" else {}
        return Refusal(status, {"error": {"message": message, "type": type_, "param": None, "code": code}}, headers)

    def error_event(self) -> str:
        return _event({"error": {"message": "The engine is overloaded.", "type": "server_error", "code": None}})

    def read(self, path: str, body: Any) -> Said:
        assert path.endswith("/chat/completions"), path
        said = Said(body["model"], body.get("stream", False))
        open_calls: list[str] = []
        for message in body["messages"]:
            assert message.keys() <= {"role", "content", "name", "tool_calls", "tool_call_id"}, message.keys()
            role, content = message["role"], message.get("content")
            if role == "tool":
                open_calls.remove(message["tool_call_id"])
                said.results[message["tool_call_id"]] = content
                continue
            assert not open_calls, "an assistant message with tool_calls must be followed by their results"
            parts = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
            for part in parts:
                if part["type"] == "image_url":
                    said.images.append(_data_uri(part["image_url"]["url"]))
            text = "".join(part["text"] for part in parts if part["type"] == "text")
            if role == "system":
                said.system += text
            elif role == "user":
                said.user.append(text)
            else:
                assert role == "assistant", role
                assert content is not None or message.get("tool_calls"), "content is required unless there are tool_calls"
                said.assistant.append(text)
                for call in message.get("tool_calls", ()):
                    open_calls.append(call["id"])
                    said.calls.append((call["function"]["name"], json.loads(call["function"]["arguments"])))
        assert not open_calls, "an assistant message with tool_calls must be followed by their results"
        said.tools = {tool["function"]["name"]: tool["function"].get("parameters") for tool in body.get("tools", ())}
        wanted = body.get("response_format", {})
        said.schema = wanted["json_schema"]["schema"] if wanted.get("type") == "json_schema" else None
        said.max_tokens, said.temperature = body.get("max_tokens", body.get("max_completion_tokens")), body.get("temperature")
        said.stop = body.get("stop")
        return said


class AzureChat(ChatCompletions):
    """The same with Azure's header, as its v1 API has it: https://learn.microsoft.com/en-us/azure/ai-foundry/openai/latest."""

    key_headers: ClassVar = {"api-key": "KEY"}


class Messages(Format):
    """Anthropic's Messages API."""

    key_headers: ClassVar = {"x-api-key": "KEY"}
    finish_reasons: ClassVar = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
    option_names: ClassVar = {"max_tokens": ("max_tokens",), "temperature": ("temperature",), "stop": ("stop_sequences",)}
    unsupported: ClassVar = "seed"

    # Theirs is the input that no cache served.
    usage: ClassVar = {
        "input_tokens": INPUT - CACHED,
        "cache_read_input_tokens": CACHED,
        "cache_creation_input_tokens": 0,
        "output_tokens": OUTPUT,
        "output_tokens_details": {"thinking_tokens": REASONING},
    }

    def answer(
        self, text: str = "", calls: Sequence[Call] = (), finish: str | None = None, *, thinking: tuple[str, str] | None = None
    ) -> Any:
        content: list[Any] = [{"type": "thinking", "thinking": thinking[0], "signature": thinking[1]}] if thinking else []
        content += [{"type": "text", "text": text}] if text else []
        content += [{"type": "tool_use", "id": id, "name": name, "input": arguments} for id, name, arguments in calls]
        return {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "served-1",
            "content": content,
            "stop_reason": finish or ("tool_use" if calls else "end_turn"),
            "stop_sequence": None,
            "usage": self.usage,
        }

    def preface(self) -> list[str]:
        message = {**self.answer(), "content": [], "stop_reason": None, "usage": {**self.usage, "output_tokens": 1}}
        return [_event({"type": "message_start", "message": message}, "message_start"), _event({"type": "ping"}, "ping")]

    def _block(self, index: int, block: Any, deltas: Sequence[Any]) -> Iterator[str]:
        yield _event({"type": "content_block_start", "index": index, "content_block": block}, "content_block_start")
        for delta in deltas:
            yield _event({"type": "content_block_delta", "index": index, "delta": delta}, "content_block_delta")
        yield _event({"type": "content_block_stop", "index": index}, "content_block_stop")

    def stream(
        self, *texts: str, calls: Sequence[Call] = (), finish: str | None = None, thinking: tuple[str, str] | None = None
    ) -> list[str]:
        blocks: list[tuple[Any, list[Any]]] = []
        if thinking:
            deltas = [{"type": "thinking_delta", "thinking": thinking[0]}, {"type": "signature_delta", "signature": thinking[1]}]
            blocks.append(({"type": "thinking", "thinking": "", "signature": ""}, deltas))
        if texts:
            blocks.append(({"type": "text", "text": ""}, [{"type": "text_delta", "text": text} for text in texts]))
        for id, name, arguments in calls:
            deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in ("", *_halves(json.dumps(arguments)))]
            blocks.append(({"type": "tool_use", "id": id, "name": name, "input": {}}, deltas))
        events = self.preface()
        for index, (block, deltas) in enumerate(blocks):
            events += self._block(index, block, deltas)
        delta = {"stop_reason": finish or ("tool_use" if calls else "end_turn"), "stop_sequence": None}
        usage = {"output_tokens": OUTPUT}
        events.append(_event({"type": "message_delta", "delta": delta, "usage": usage}, "message_delta"))
        return [*events, _event({"type": "message_stop"}, "message_stop")]

    def error(self, kind: str, *, retry_after: int = 7) -> Refusal:
        status, type_, message = {
            "key": (401, "authentication_error", "invalid x-api-key"),
            "rate": (429, "rate_limit_error", "This request would exceed your organization's rate limit."),
            "server": (500, "api_error", "Internal server error"),
            "model": (404, "not_found_error", "model: nope"),
            "request": (400, "invalid_request_error", "messages.0.role: Input should be 'user' or 'assistant'"),
        }[kind]
        headers = {"request-id": "req_1"} | ({"retry-after": str(retry_after)} if kind == "rate" else {})
        return Refusal(status, {"type": "error", "error": {"type": type_, "message": message}, "request_id": "req_1"}, headers)

    def error_event(self) -> str:
        return _event({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, "error")

    def read(self, path: str, body: Any) -> Said:
        assert path.endswith("/messages"), path
        assert isinstance(body["max_tokens"], int), "max_tokens: Field required"
        said = Said(body["model"], body.get("stream", False))
        system = body.get("system", "")
        said.system = system if isinstance(system, str) else "".join(block["text"] for block in system)
        open_calls: list[str] = []
        for message in body["messages"]:
            assert message.keys() <= {"role", "content"}, message.keys()
            role, content = message["role"], message["content"]
            assert role in ("user", "assistant"), role
            assert content, "messages must have non-empty content"
            blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
            for block in blocks:
                if block["type"] == "tool_result":
                    open_calls.remove(block["tool_use_id"])
                    inner = block["content"]
                    said.results[block["tool_use_id"]] = inner if isinstance(inner, str) else "".join(part["text"] for part in inner)
                elif block["type"] == "tool_use":
                    assert re.fullmatch("[a-zA-Z0-9_-]+", block["id"]), "tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'"
                    open_calls.append(block["id"])
                    said.calls.append((block["name"], block["input"]))
                elif block["type"] == "image":
                    assert block["source"]["type"] == "base64"
                    said.images.append((block["source"]["media_type"], base64.b64decode(block["source"]["data"])))
                else:
                    assert block["type"] in ("text", "thinking"), f"{block['type']}: Input tag is no known one"
                    assert block["type"] != "thinking" or block["signature"], "thinking.signature: Field required"
            assert role == "assistant" or not open_calls, "tool_use ids without tool_result blocks immediately after"
            texts = [block["text"] for block in blocks if block["type"] == "text"]
            assert all(texts), "text content blocks must be non-empty"
            if role == "assistant":
                said.assistant.append("".join(texts))
            elif texts:
                said.user.append("".join(texts))
        assert not open_calls, "tool_use ids without tool_result blocks immediately after"
        said.tools = {tool["name"]: tool["input_schema"] for tool in body.get("tools", ())}
        wanted = body.get("output_config", {}).get("format", {})
        said.schema = wanted.get("schema")
        said.max_tokens, said.temperature, said.stop = body["max_tokens"], body.get("temperature"), body.get("stop_sequences")
        return said


class GenerateContent(Format):
    """Gemini's generateContent. Its calls need no id, and these have none."""

    key_headers: ClassVar = {"x-goog-api-key": "KEY"}
    finish_reasons: ClassVar = {"stop": "STOP", "length": "MAX_TOKENS", "tool_calls": "STOP"}
    option_names: ClassVar = {
        "max_tokens": ("generationConfig", "maxOutputTokens"),
        "temperature": ("generationConfig", "temperature"),
        "stop": ("generationConfig", "stopSequences"),
    }
    unsupported: ClassVar = "user"

    # Theirs is the output without the thoughts.
    usage: ClassVar = {
        "promptTokenCount": INPUT,
        "cachedContentTokenCount": CACHED,
        "candidatesTokenCount": OUTPUT - REASONING,
        "thoughtsTokenCount": REASONING,
        "totalTokenCount": INPUT + OUTPUT,
    }

    def _parts(self, text: str, calls: Sequence[Call], signature: str | None) -> list[Any]:
        parts: list[Any] = [{"text": text}] if text else []
        parts += [{"functionCall": {"name": name, "args": arguments}} for _, name, arguments in calls]
        if signature:
            parts[0]["thoughtSignature"] = signature
        return parts

    def _answer(self, parts: list[Any], finish: str | None, usage: Any) -> Any:
        candidate = {"content": {"role": "model", "parts": parts}, "index": 0} | ({"finishReason": finish} if finish else {})
        return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "served-1", "responseId": "r1"}

    def answer(self, text: str = "", calls: Sequence[Call] = (), finish: str | None = None, *, signature: str | None = None) -> Any:
        return self._answer(self._parts(text, calls, signature), finish or "STOP", self.usage)

    def stream(self, *texts: str, calls: Sequence[Call] = (), finish: str | None = None, signature: str | None = None) -> list[str]:
        parts = [*({"text": text} for text in texts), *self._parts("", calls, signature)] or [{"text": ""}]
        early = {"promptTokenCount": INPUT, "totalTokenCount": INPUT}
        events = [_event(self._answer([part], None, early)) for part in parts[:-1]]
        return [*events, _event(self._answer(parts[-1:], finish or "STOP", self.usage))]

    def error(self, kind: str, *, retry_after: int = 7) -> Refusal:
        status, name, message = {
            "key": (400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key."),
            "rate": (429, "RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota)."),
            "server": (500, "INTERNAL", "An internal error has occurred."),
            "model": (404, "NOT_FOUND", "models/nope is not found for API version v1beta."),
            "request": (400, "INVALID_ARGUMENT", "Please use a valid role: user, model."),
        }[kind]
        types = "type.googleapis.com/google.rpc."
        details: list[Any] = []
        if kind == "rate":
            details = [{"@type": f"{types}RetryInfo", "retryDelay": f"{retry_after}s"}]
        elif kind == "key":
            details = [{"@type": f"{types}ErrorInfo", "reason": "API_KEY_INVALID", "domain": "googleapis.com"}]
        return Refusal(status, {"error": {"code": status, "message": message, "status": name, "details": details}})

    def error_event(self) -> str:
        return _event({"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}})

    def read(self, path: str, body: Any) -> Said:
        where = urlsplit(path)
        model, _, method = where.path.rpartition("/models/")[2].partition(":")
        said = Said(model, method == "streamGenerateContent")
        assert method in ("generateContent", "streamGenerateContent"), path
        assert not said.streams or parse_qs(where.query) == {"alt": ["sse"]}, "without alt=sse the stream is one JSON array"
        known = {"contents", "systemInstruction", "generationConfig", "tools", "toolConfig", "safetySettings"}
        assert body.keys() <= known, f"Unknown name: {body.keys() - known}"
        said.system = "".join(part["text"] for part in body.get("systemInstruction", {"parts": []})["parts"])
        open_calls: list[str] = []
        for content in body["contents"]:
            role, parts = content["role"], content["parts"]
            assert role in ("user", "model"), "Please use a valid role: user, model."
            assert parts, "contents.parts must not be empty."
            results = [part["functionResponse"] for part in parts if "functionResponse" in part]
            if open_calls:
                # https://ai.google.dev/gemini-api/docs/function-calling
                assert [result["name"] for result in results] == open_calls, "as many function responses as function calls"
            open_calls = []
            for result in results:
                assert isinstance(result["response"], dict), "response is a Struct"
                (said.results[result.get("id") or result["name"]],) = result["response"].values()
            for part in parts:
                assert part.keys() & {"text", "inlineData", "functionCall", "functionResponse"}, f"a part without data: {part}"
                if "inlineData" in part:
                    said.images.append((part["inlineData"]["mimeType"], base64.b64decode(part["inlineData"]["data"])))
                elif "functionCall" in part:
                    open_calls.append(part["functionCall"]["name"])
                    said.calls.append((part["functionCall"]["name"], part["functionCall"]["args"]))
            texts = [part["text"] for part in parts if "text" in part]
            if role == "model":
                said.assistant.append("".join(texts))
            elif texts:
                said.user.append("".join(texts))
        assert not open_calls, "as many function responses as function calls"
        for tool in body.get("tools", ()):
            for declared in tool["functionDeclarations"]:
                said.tools[declared["name"]] = declared.get("parametersJsonSchema", declared.get("parameters"))
        config = body.get("generationConfig", {})
        said.schema = config.get("responseJsonSchema", config.get("responseSchema"))
        assert said.schema is None or config["responseMimeType"] == "application/json", "a schema needs application/json"
        said.max_tokens, said.temperature = config.get("maxOutputTokens"), config.get("temperature")
        said.stop = config.get("stopSequences")
        return said


class Responses(Format):
    """OpenAI's Responses API."""

    key_headers: ClassVar = {"authorization": "Bearer KEY"}
    finish_reasons: ClassVar = {
        "stop": "completed",
        "length": "max_output_tokens",
        "tool_calls": "completed",
        "content_filter": "content_filter",
    }
    option_names: ClassVar = {"max_tokens": ("max_output_tokens",), "temperature": ("temperature",)}
    unsupported: ClassVar = "seed"

    usage: ClassVar = {
        "input_tokens": INPUT,
        "input_tokens_details": {"cached_tokens": CACHED},
        "output_tokens": OUTPUT,
        "output_tokens_details": {"reasoning_tokens": REASONING},
        "total_tokens": INPUT + OUTPUT,
    }

    def answer(
        self, text: str = "", calls: Sequence[Call] = (), finish: str | None = None, *, thinking: tuple[str, str] | None = None
    ) -> Any:
        output: list[Any] = []
        if thinking:
            summary = [{"type": "summary_text", "text": thinking[0]}]
            output.append({"id": "rs_1", "type": "reasoning", "summary": summary, "encrypted_content": thinking[1]})
        if text:
            part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
            output.append({"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": [part]})
        output += [
            {
                "id": f"fc_{number}",
                "type": "function_call",
                "status": "completed",
                "call_id": id,
                "name": name,
                "arguments": json.dumps(arguments),
            }
            for number, (id, name, arguments) in enumerate(calls)
        ]
        incomplete = finish not in (None, "completed")
        return {
            "id": "resp_1",
            "object": "response",
            "created_at": 1_800_000_000,
            "status": "incomplete" if incomplete else "completed",
            "error": None,
            "incomplete_details": {"reason": finish} if incomplete else None,
            "model": "served-1",
            "output": output,
            "usage": self.usage,
        }

    def _event(self, kind: str, **fields: Any) -> str:
        return _event({"type": f"response.{kind}", "sequence_number": 0, **fields}, f"response.{kind}")

    def preface(self) -> list[str]:
        begun = {**self.answer(), "status": "in_progress", "usage": None}
        return [self._event("created", response=begun), self._event("in_progress", response=begun)]

    def stream(
        self, *texts: str, calls: Sequence[Call] = (), finish: str | None = None, thinking: tuple[str, str] | None = None
    ) -> list[str]:
        whole = self.answer("".join(texts), calls, finish, thinking=thinking)
        events = self.preface()
        for index, item in enumerate(whole["output"]):
            where = {"item_id": item["id"], "output_index": index}
            begun = {**item, **{key: type(item[key])() for key in ("content", "summary", "arguments") if key in item}}
            events.append(self._event("output_item.added", output_index=index, item={**begun, "status": "in_progress"}))
            if item["type"] == "message":
                events.append(self._event("content_part.added", **where, content_index=0, part={"type": "output_text", "text": ""}))
                events += [self._event("output_text.delta", **where, content_index=0, delta=text, logprobs=[]) for text in texts]
                events.append(self._event("output_text.done", **where, content_index=0, text="".join(texts)))
            elif item["type"] == "reasoning":
                for piece in _halves(item["summary"][0]["text"]):
                    events.append(self._event("reasoning_summary_text.delta", **where, summary_index=0, delta=piece))
            else:
                events += [self._event("function_call_arguments.delta", **where, delta=piece) for piece in _halves(item["arguments"])]
                events.append(self._event("function_call_arguments.done", **where, arguments=item["arguments"]))
            events.append(self._event("output_item.done", output_index=index, item=item))
        return [*events, self._event(whole["status"], response=whole)]

    def error(self, kind: str, *, retry_after: int = 7) -> Refusal:
        return CHAT.error(kind, retry_after=retry_after)

    def error_event(self) -> str:
        return _event({"type": "error", "code": "server_error", "message": "The engine is overloaded.", "param": None}, "error")

    def read(self, path: str, body: Any) -> Said:
        assert path.endswith("/responses"), path
        refused = {"messages", "max_tokens", "max_completion_tokens", "response_format", "stop", "seed", "n", "reasoning_effort"}
        assert not body.keys() & refused, f"Unsupported parameter: {body.keys() & refused}"
        said = Said(body["model"], body.get("stream", False), system=body.get("instructions", ""))
        open_calls: list[str] = []
        speaker = ""
        for item in body["input"]:
            kind = item.get("type", "message")
            before, speaker = speaker, item.get("role") or ("tool" if kind.endswith("_output") else "assistant")
            if speaker == "assistant" != before:
                said.assistant.append("")  # its items up to the next that is another's are one turn
            if kind == "message":
                self._message(said, item)
            elif kind == "function_call":
                assert item.keys() <= {"type", "id", "status", "call_id", "name", "arguments"}, item.keys()
                open_calls.append(item["call_id"])
                said.calls.append((item["name"], json.loads(item["arguments"])))
            elif kind == "function_call_output":
                assert item.keys() == {"type", "call_id", "output"}, item.keys()
                assert item["call_id"] in open_calls, f"No tool call found for function call output with call_id {item['call_id']}."
                open_calls.remove(item["call_id"])
                said.results[item["call_id"]] = item["output"]
            else:
                assert kind == "reasoning" and isinstance(item["summary"], list), kind
        assert not open_calls, f"No tool output found for function call {open_calls}."
        for tool in body.get("tools", ()):
            assert tool["type"] == "function" and tool["strict"] is False, "in this API a function is strict unless it says not to be"
            said.tools[tool["name"]] = tool["parameters"]
        form = body.get("text", {}).get("format", {"type": "text"})
        if form["type"] == "json_schema":
            assert re.fullmatch("[a-zA-Z0-9_-]{1,64}", form["name"]), form["name"]
            said.schema = form["schema"]
        said.max_tokens, said.temperature = body.get("max_output_tokens"), body.get("temperature")
        return said

    def _message(self, said: Said, item: Any) -> None:
        assert item.keys() <= {"type", "id", "status", "role", "content", "phase"}, item.keys()
        role, content = item["role"], item["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        text = ""
        for part in parts:
            if part["type"] == "input_image":
                assert part["detail"] in ("auto", "low", "high"), "Missing required parameter: detail"
                said.images.append(_data_uri(part["image_url"]))
            else:
                assert part["type"] in ("text", "output_text" if role == "assistant" else "input_text"), f"Invalid value: {part['type']}"
                text += part["text"]
        if role in ("system", "developer"):
            said.system += text
        elif role == "user":
            said.user.append(text)
        else:
            assert role == "assistant", f"Invalid value: {role}"
            said.assistant[-1] += text


CHAT, ANTHROPIC, GEMINI, RESPONSES, AZURE = ChatCompletions(), Messages(), GenerateContent(), Responses(), AzureChat()


def format_of(row: str) -> Format:
    """The format that a row speaks."""
    from servers.format_bedrock import CONVERSE  # these stand on this module
    from servers.format_chat_kin import MISTRAL, THINKING
    from servers.format_cohere import COHERE
    from servers.format_gigachat import GIGACHAT, GIGACHAT2
    from servers.format_ollama import OLLAMA
    from servers.format_yandex import YANDEX

    own: dict[str, Format] = {
        "azure": AZURE,
        "anthropic": ANTHROPIC,
        "gemini": GEMINI,
        "vertex": GEMINI,
        "bedrock": CONVERSE,
        "cohere": COHERE,
        "gigachat": GIGACHAT,
        "acme_gigachat2": GIGACHAT2,
        "yandex": YANDEX,
        "ollama_chat": OLLAMA,
        "acme_responses": RESPONSES,
        "mistral": MISTRAL,
        "deepseek": THINKING,
        "moonshot": THINKING,
    }
    return own.get(row, CHAT)
