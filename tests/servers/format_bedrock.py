"""What a scripted server says as Bedrock's Converse API, and what it was asked. Written from the public reference alone:

* https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html, .../API_runtime_ConverseStream.html
* https://docs.aws.amazon.com/transcribe/latest/dg/event-stream.html for the frames

An event of a stream is a text here, its name before its payload, so that tests can cut streams by what they hold; ``wire`` makes frames
of them.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import struct
from collections.abc import Sequence
from typing import Any, ClassVar
from urllib.parse import unquote

from servers.formats import CACHED, INPUT, OUTPUT, Call, Format, Refusal, Said


def frame(name: str, payload: Any, kind: str = "event") -> bytes:
    """One frame as the service sends it."""
    headers = b""
    for header, value in {f":{kind}-type": name, ":content-type": "application/json", ":message-type": kind}.items():
        headers += struct.pack(">B", len(header)) + header.encode() + struct.pack(">BH", 7, len(value)) + value.encode()
    body = payload if isinstance(payload, bytes) else json.dumps(payload, ensure_ascii=False).encode()
    lengths = struct.pack(">II", len(headers) + len(body) + 16, len(headers))
    message = lengths + struct.pack(">I", binascii.crc32(lengths)) + headers + body
    return message + struct.pack(">I", binascii.crc32(message))


def _event(name: str, payload: Any, kind: str = "event") -> str:
    return f"{kind} {name} {json.dumps(payload, ensure_ascii=False)}"


class Converse(Format):
    """Bedrock's Converse."""

    key_headers: ClassVar = {"authorization": "Bearer KEY"}
    finish_reasons: ClassVar = {
        "stop": "end_turn",
        "length": "max_tokens",
        "tool_calls": "tool_use",
        "content_filter": "guardrail_intervened",
    }
    option_names: ClassVar = {
        "max_tokens": ("inferenceConfig", "maxTokens"),
        "temperature": ("inferenceConfig", "temperature"),
        "stop": ("inferenceConfig", "stopSequences"),
    }
    unsupported: ClassVar = "seed"
    stream_type: ClassVar = "application/vnd.amazon.eventstream"
    # It says neither who answers nor how much of the output was thinking.
    names_model: ClassVar = False
    counts_reasoning: ClassVar = False

    # Theirs is the input that no cache served.
    usage: ClassVar = {
        "inputTokens": INPUT - CACHED,
        "cacheReadInputTokens": CACHED,
        "cacheWriteInputTokens": 0,
        "outputTokens": OUTPUT,
        "totalTokens": INPUT + OUTPUT,
    }

    def wire(self, *events: Any) -> bytes:
        frames = b""
        # A joined text holds several.
        for event in "".join(events).split("\n"):
            if event:
                kind, name, payload = event.split(" ", 2)
                frames += frame(name, json.loads(payload), kind)
        return frames

    def answer(
        self, text: str = "", calls: Sequence[Call] = (), finish: str | None = None, *, thinking: tuple[str, str] | None = None
    ) -> Any:
        content: list[Any] = [{"reasoningContent": {"reasoningText": {"text": thinking[0], "signature": thinking[1]}}}] if thinking else []
        content += [{"text": text}] if text else []
        content += [{"toolUse": {"toolUseId": id, "name": name, "input": arguments}} for id, name, arguments in calls]
        return {
            "output": {"message": {"role": "assistant", "content": content}},
            "stopReason": finish or ("tool_use" if calls else "end_turn"),
            "usage": self.usage,
            "metrics": {"latencyMs": 512},
        }

    def preface(self) -> list[str]:
        return [_event("messageStart", {"role": "assistant", "p": "abc"}) + "\n"]

    def stream(
        self, *texts: str, calls: Sequence[Call] = (), finish: str | None = None, thinking: tuple[str, str] | None = None
    ) -> list[str]:
        events = [event.rstrip("\n") for event in self.preface()]
        index = 0

        def delta(content: Any) -> str:
            return _event("contentBlockDelta", {"contentBlockIndex": index, "delta": content, "p": "abcdefghijklmn"})

        if thinking:
            events += [delta({"reasoningContent": part}) for part in ({"text": thinking[0]}, {"signature": thinking[1]})]
            events.append(_event("contentBlockStop", {"contentBlockIndex": index}))
            index += 1
        if texts:
            # Of a text there is no start.
            events += [delta({"text": text}) for text in texts]
            events.append(_event("contentBlockStop", {"contentBlockIndex": index}))
            index += 1
        for id, name, arguments in calls:
            start = {"start": {"toolUse": {"toolUseId": id, "name": name}}, "contentBlockIndex": index}
            events.append(_event("contentBlockStart", start))
            written = json.dumps(arguments)
            events += [delta({"toolUse": {"input": piece}}) for piece in (written[:5], written[5:])]
            events.append(_event("contentBlockStop", {"contentBlockIndex": index}))
            index += 1
        events.append(_event("messageStop", {"stopReason": finish or ("tool_use" if calls else "end_turn")}))
        events.append(_event("metadata", {"usage": self.usage, "metrics": {"latencyMs": 512}}))
        return [f"{event}\n" for event in events]

    def error(self, kind: str, *, retry_after: int = 7) -> Refusal:
        status, name, message = {
            "key": (403, "UnrecognizedClientException", "The security token included in the request is invalid."),
            "rate": (429, "ThrottlingException", "Too many requests, please wait before trying again."),
            "server": (500, "InternalServerException", "An internal server error occurred. Retry your request."),
            "model": (404, "ResourceNotFoundException", "Could not resolve the foundation model from the provided identifier."),
            "request": (400, "ValidationException", "Malformed input request, please reformat your input and try again."),
        }[kind]
        headers = {"x-amzn-errortype": f"{name}:http://internal.amazon.com/coral/com.amazon.bedrock/", "x-amzn-requestid": "req-1"}
        return Refusal(status, {"message": message}, headers | ({"retry-after": str(retry_after)} if kind == "rate" else {}))

    def error_event(self) -> str:
        return _event("modelStreamErrorException", {"message": "The model is overloaded."}, "exception") + "\n"

    def read(self, path: str, body: Any) -> Said:
        found = re.fullmatch(r".*/model/([^/]+)/(converse|converse-stream)", path)
        assert found, path
        known = "messages system inferenceConfig toolConfig guardrailConfig additionalModelRequestFields additionalModelResponseFieldPaths "
        known += "promptVariables requestMetadata performanceConfig serviceTier outputConfig"
        assert body.keys() <= set(known.split()), f"Unknown field: {body.keys() - set(known.split())}"
        said = Said(unquote(found[1]), found[2] == "converse-stream")
        said.system = "".join(block["text"] for block in body.get("system", ()) if "text" in block)
        open_calls: list[str] = []
        before = ""
        for message in body["messages"]:
            role, content = message["role"], message["content"]
            assert message.keys() == {"role", "content"} and content, "The content field in the Message object is empty."
            assert role in ("user", "assistant") and role != before, "A conversation must alternate between user and assistant roles."
            before = role
            answered = False
            for block in content:
                assert len(block) == 1, f"a block is a union: {block.keys()}"
                (kind,) = block
                if kind == "toolResult":
                    result = block[kind]
                    assert result.keys() <= {"toolUseId", "content", "status"}
                    open_calls.remove(result["toolUseId"])
                    answered = True
                    said.results[result["toolUseId"]] = "".join(part["text"] for part in result["content"])
                elif kind == "toolUse":
                    call = block[kind]
                    assert re.fullmatch("[a-zA-Z0-9_-]{1,64}", call["toolUseId"]), call["toolUseId"]
                    assert isinstance(call["input"], dict)
                    open_calls.append(call["toolUseId"])
                    said.calls.append((call["name"], call["input"]))
                elif kind == "image":
                    image = block[kind]
                    assert image.keys() == {"format", "source"} and image["format"] in ("png", "jpeg", "gif", "webp")
                    said.images.append((f"image/{image['format']}", base64.b64decode(image["source"]["bytes"], validate=True)))
                elif kind == "text":
                    assert block["text"].strip(), "The text field in the ContentBlock object is blank."
                    if role == "user":
                        said.user.append(block["text"])
                else:
                    assert kind in ("document", "audio", "video", "reasoningContent", "cachePoint", "guardContent"), kind
            assert role == "assistant" or not open_calls, "Expected toolResult blocks for the toolUse blocks of the turn before."
            assert not answered or body.get("toolConfig"), "The toolConfig field must be defined when using toolUse and toolResult."
            if role == "assistant":
                said.assistant.append("".join(block["text"] for block in content if "text" in block))
        assert before == "user", "The conversation must end with a user message."
        tools = body.get("toolConfig", {"tools": []})
        assert tools.keys() <= {"tools", "toolChoice"} and ("toolConfig" not in body or tools["tools"]), "toolConfig.tools is required"
        for tool in tools["tools"]:
            if "toolSpec" in tool:
                said.tools[tool["toolSpec"]["name"]] = tool["toolSpec"]["inputSchema"]["json"]
        config = body.get("inferenceConfig", {})
        assert config.keys() <= {"maxTokens", "temperature", "topP", "stopSequences"}, config.keys()
        said.max_tokens, said.temperature, said.stop = config.get("maxTokens"), config.get("temperature"), config.get("stopSequences")
        wanted = body.get("outputConfig", {}).get("textFormat")
        said.schema = json.loads(wanted["structure"]["jsonSchema"]["schema"]) if wanted else None
        return said


CONVERSE = Converse()
