"""YandexGPT's completion, from its public references, and from nothing of the library.

* https://yandex.cloud/en/docs/ai-studio/text-generation/api-ref/TextGeneration/completion
* https://yandex.cloud/en/docs/ai-studio/operations/generation/function-call
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, ClassVar

from servers.formats import INPUT, OUTPUT, REASONING, Call, Format, Refusal, Said

FOLDER = "b1gt6g8ht345"


class YandexGPT(Format):
    """Streams are lines, of which each holds all of the answer so far. A message is text, or calls, or results."""

    key_headers: ClassVar = {"authorization": "Api-Key KEY"}
    finish_reasons: ClassVar = {
        "stop": "ALTERNATIVE_STATUS_FINAL",
        "length": "ALTERNATIVE_STATUS_TRUNCATED_FINAL",
        "tool_calls": "ALTERNATIVE_STATUS_TOOL_CALLS",
        "content_filter": "ALTERNATIVE_STATUS_CONTENT_FILTER",
    }
    option_names: ClassVar = {"max_tokens": ("completionOptions", "maxTokens"), "temperature": ("completionOptions", "temperature")}
    unsupported: ClassVar = "seed"
    environment: ClassVar = {"YANDEX_FOLDER_ID": FOLDER}
    names_model: ClassVar = False
    counts_cached: ClassVar = False
    text_beside_calls: ClassVar = False
    usage: ClassVar[dict[str, Any]] = {
        "inputTextTokens": str(INPUT),
        "completionTokens": str(OUTPUT),
        "totalTokens": str(INPUT + OUTPUT),
        "completionTokensDetails": {"reasoningTokens": str(REASONING)},
    }

    def chosen(self, body: Any) -> Any:
        said = body["toolChoice"]
        return {"type": "function", "function": {"name": said["functionName"]}} if "functionName" in said else said["mode"].lower()

    def _result(self, text: str, calls: Sequence[Call], status: str) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "text": text}
        if calls:
            made = [{"functionCall": {"name": name, "arguments": arguments}} for _, name, arguments in calls]
            message = {"role": "assistant", "toolCallList": {"toolCalls": made}}
        alternative = {"message": message, "status": status}
        return {"result": {"alternatives": [alternative], "usage": self.usage, "modelVersion": "23.10.2024"}}

    def answer(self, text: str = "", calls: Sequence[Call] = (), finish: str | None = None) -> Any:
        assert not (text and calls), "a message holds text or calls"
        return self._result(text, calls, finish or f"ALTERNATIVE_STATUS_{'TOOL_CALLS' if calls else 'FINAL'}")

    def without_usage(self, content: Any) -> Any:
        return {"result": {name: value for name, value in content["result"].items() if name != "usage"}}

    def stream(self, *texts: str, calls: Sequence[Call] = (), finish: str | None = None) -> list[str]:
        said, lines = "", []
        for text in texts:
            said += text
            lines.append(self._result(said, (), "ALTERNATIVE_STATUS_PARTIAL"))
        lines.append(self._result(said, calls, finish or f"ALTERNATIVE_STATUS_{'TOOL_CALLS' if calls else 'FINAL'}"))
        return [json.dumps(line, ensure_ascii=False) + "\n" for line in lines]

    def _error(self, grpc: int, http: int, message: str) -> dict[str, Any]:
        return {"error": {"grpcCode": grpc, "httpCode": http, "message": message, "httpStatus": "…", "details": []}}

    def error(self, kind: str, *, retry_after: int = 7) -> Refusal:
        grpc, status, message = {
            "key": (16, 401, "Unknown api key 'AQVN****'"),
            "rate": (8, 429, "ai.textGenerationCompletionSessionsCount.count gauge quota limit exceed: allowed 1 requests"),
            "server": (13, 500, "Internal error"),
            "model": (5, 404, "Failed to get model: not found"),
            "request": (3, 400, "Role of the message is not known"),
        }[kind]
        headers = {"retry-after": str(retry_after)} if kind == "rate" else {}
        return Refusal(status, self._error(grpc, status, message), headers)

    def error_event(self) -> str:
        return json.dumps(self._error(14, 503, "Overloaded")) + "\n"

    def read(self, path: str, body: Any) -> Said:
        assert path.endswith("/completion"), path
        folder, model, branch = body["modelUri"].removeprefix("gpt://").split("/")
        assert (folder, branch) == (FOLDER, "latest"), body["modelUri"]
        options = body["completionOptions"]
        said = Said(model, options["stream"])
        names: list[str] = []
        last = ""
        for message in body["messages"]:
            role = message["role"]
            assert role in ("system", "user", "assistant"), role
            (kind,) = message.keys() - {"role"}
            if kind == "toolResultList":
                results = [item["functionResult"] for item in message[kind]["toolResults"]]
                assert role == "assistant" and [result["name"] for result in results] == names
                said.results |= {result["name"]: result["content"] for result in results}
                names = []
            elif kind == "toolCallList":
                calls = [item["functionCall"] for item in message[kind]["toolCalls"]]
                names = [call["name"] for call in calls]
                said.calls += [(call["name"], call["arguments"]) for call in calls]
                if last != "assistant text":
                    said.assistant.append("")
            else:
                assert kind == "text" and not names, "results follow their calls"
                if role == "system":
                    said.system += message["text"]
                else:
                    (said.user if role == "user" else said.assistant).append(message["text"])
            last = f"{role} {kind}"
        assert not names
        said.tools = {tool["function"]["name"]: tool["function"]["parameters"] for tool in body.get("tools", ())}
        said.schema = body.get("jsonSchema", {}).get("schema")
        said.max_tokens, said.temperature = options.get("maxTokens"), options.get("temperature")
        return said


YANDEX = YandexGPT()
