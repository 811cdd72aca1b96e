"""GigaChat's chat, of the first version and the second, from its public references, and from nothing of the library.

* https://developers.sber.ru/docs/ru/gigachat/api/reference/rest/post-chat
* https://github.com/ai-forever/gigachat/blob/main/MIGRATION_GUIDE.md (the second version)
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, ClassVar

from servers.formats import CACHED, INPUT, OUTPUT, Call, Format, Refusal, Said, _event

STATE = "77d3fb14-457a-46ba-937e-8d856156d003"


class GigaChat(Format):
    """The first version. A turn has one function call, which has no id."""

    key_variable: ClassVar = "GIGACHAT_ACCESS_TOKEN"
    key_headers: ClassVar = {"authorization": "Bearer KEY"}
    finish_reasons: ClassVar = {"stop": "stop", "length": "length", "tool_calls": "function_call", "content_filter": "blacklist"}
    option_names: ClassVar = {"max_tokens": ("max_tokens",), "temperature": ("temperature",)}
    unsupported: ClassVar = "seed"
    counts_reasoning: ClassVar = False
    parallel_calls: ClassVar = False
    tool_choices: ClassVar = ("auto", "none", "function")

    # prompt_tokens and total_tokens are what is billed: the cached tokens are taken off.
    usage: ClassVar[dict[str, Any]] = {
        "prompt_tokens": INPUT - CACHED,
        "completion_tokens": OUTPUT,
        "total_tokens": INPUT - CACHED + OUTPUT,
        "precached_prompt_tokens": CACHED,
    }

    def chosen(self, body: Any) -> Any:
        said = body["function_call"]
        return said if isinstance(said, str) else {"type": "function", "function": said}

    def _message(self, text: str, calls: Sequence[Call]) -> dict[str, Any]:
        message: dict[str, Any] = {"content": text, "role": "assistant"}
        if calls:
            ((_, name, arguments),) = calls
            message |= {"function_call": {"name": name, "arguments": arguments}, "functions_state_id": STATE}
        return message

    def answer(self, text: str = "", calls: Sequence[Call] = (), finish: str | None = None) -> Any:
        choice = {
            "message": self._message(text, calls),
            "index": 0,
            "finish_reason": finish or ("function_call" if calls else "stop"),
        }
        return {"choices": [choice], "created": 1_678_878_333, "model": "served-1", "object": "chat.completion", "usage": self.usage}

    def _chunk(self, choice: dict[str, Any], **more: Any) -> str:
        return _event(
            {"choices": [{"index": 0, **choice}], "created": 1_754_637_655, "model": "served-1", "object": "chat.completion", **more}
        )

    def stream(self, *texts: str, calls: Sequence[Call] = (), finish: str | None = None) -> list[str]:
        events = [
            self._chunk({"delta": {"content": text, **({} if number else {"role": "assistant"})}}) for number, text in enumerate(texts)
        ]
        events += [self._chunk({"delta": self._message("", [call])}) for call in calls]
        reason = finish or ("function_call" if calls else "stop")
        return [*events, self._chunk({"delta": {"content": ""}, "finish_reason": reason}, usage=self.usage), "data: [DONE]\n\n"]

    def error(self, kind: str, *, retry_after: int = 7) -> Refusal:
        status, message = {
            "key": (401, "Unauthorized"),
            "rate": (429, "Too many requests"),
            "server": (500, "Internal Server Error"),
            "model": (404, "No such model"),
            "request": (422, "Invalid params: repetition_penalty must be in range (0, +inf)"),
        }[kind]
        headers = {"retry-after": str(retry_after)} if kind == "rate" else {}
        return Refusal(status, {"status": status, "message": message}, headers)

    def error_event(self) -> str:
        return _event({"status": 500, "message": "Overloaded"})

    def read(self, path: str, body: Any) -> Said:
        assert path.endswith("/chat/completions"), path
        said = Said(body["model"], body.get("stream", False))
        names: list[str] = []
        for position, message in enumerate(body["messages"]):
            assert message.keys() <= {"role", "content", "function_call", "functions_state_id", "attachments", "name"}, message.keys()
            role, content = message["role"], message["content"]
            assert isinstance(content, str), "content is a string"
            if role == "function":
                assert message["name"] == names.pop(), "a function's result follows its call"
                result = json.loads(content)
                assert isinstance(result, dict), "the content of a function message is a JSON object in a string"
                said.results[message["name"]] = result.get("result", content)
                continue
            assert not names, "a function's result follows its call"
            if role == "system":
                assert position == 0, "system message must be the first message"
                said.system = content
            elif role == "user":
                said.user.append(content)
            else:
                assert role == "assistant", role
                said.assistant.append(content)
                if "function_call" in message:
                    call = message["function_call"]
                    names.append(call["name"])
                    said.calls.append((call["name"], call["arguments"]))
        said.tools = {function["name"]: function["parameters"] for function in body.get("functions", ())}
        wanted = body.get("response_format", {})
        said.schema = wanted["schema"] if wanted.get("type") == "json_schema" else None
        temperature = body.get("temperature")
        assert temperature is None or temperature > 0, "temperature: exclusive minimum 0"
        said.max_tokens, said.temperature = body.get("max_tokens"), 0 if temperature is not None and temperature <= 0.001 else temperature
        return said


class GigaChat2(GigaChat):
    """The second version: content in parts, of which several may be function calls."""

    path: ClassVar = "/v2"
    option_names: ClassVar = {"max_tokens": ("model_options", "max_tokens"), "temperature": ("model_options", "temperature")}
    parallel_calls: ClassVar = True
    usage: ClassVar = {
        "input_tokens": INPUT,
        "input_tokens_details": {"prompt_tokens": INPUT, "cached_tokens": CACHED},
        "output_tokens": OUTPUT,
        "total_tokens": INPUT + OUTPUT,
    }

    def chosen(self, body: Any) -> Any:
        said = body["tool_config"]
        return {"type": "function", "function": {"name": said["function_name"]}} if said["mode"] == "forced" else said["mode"]

    def _parts(self, text: str, calls: Sequence[Call]) -> dict[str, Any]:
        parts: list[Any] = [{"text": text}] if text else []
        parts += [{"function_call": {"name": name, "arguments": arguments}} for _, name, arguments in calls]
        return {"role": "assistant", "content": parts, **({"tool_state_id": STATE} if calls else {})}

    def answer(self, text: str = "", calls: Sequence[Call] = (), finish: str | None = None) -> Any:
        reason = finish or ("function_call" if calls else "stop")
        head = {"created_at": 1_780_321_857, "model": "served-1", "finish_reason": reason, "usage": self.usage}
        return {**head, "messages": [self._parts(text, calls)]}

    def stream(self, *texts: str, calls: Sequence[Call] = (), finish: str | None = None) -> list[str]:
        head = {"model": "served-1", "created_at": 1_780_321_864}
        events = [_event({**head, "messages": [self._parts(text, ())]}, "response.message.delta") for text in texts]
        if calls:
            events.append(_event({**head, "messages": [self._parts("", calls)]}, "response.message.delta"))
        reason = finish or ("function_call" if calls else "stop")
        return [*events, _event({**head, "finish_reason": reason, "usage": self.usage}, "response.message.done")]

    def read(self, path: str, body: Any) -> Said:
        assert path.endswith("/chat/completions"), path
        known = {"model", "messages", "stream", "model_options", "tools", "tool_config", "disable_filter", "anyField"}
        assert body.keys() <= known, body.keys()
        said = Said(body["model"], body.get("stream", False))
        open_calls: list[str] = []
        for message in body["messages"]:
            assert message.keys() <= {"role", "content", "tools_state_id"}, message.keys()
            role, parts = message["role"], message["content"]
            assert isinstance(parts, list)
            text = "".join(part["text"] for part in parts if "text" in part)
            calls = [part["function_call"] for part in parts if "function_call" in part]
            results = [part["function_result"] for part in parts if "function_result" in part]
            assert (role == "tool") == bool(results)
            assert [result["name"] for result in results] == open_calls, "each call has its result"
            open_calls = [call["name"] for call in calls]
            said.calls += [(call["name"], call["arguments"]) for call in calls]
            said.results |= {result["name"]: result["result"].get("result", result["result"]) for result in results}
            if role == "system":
                said.system += text
            elif role == "user":
                said.user.append(text)
            elif role == "assistant":
                said.assistant.append(text)
        assert not open_calls
        for tool in body.get("tools", ()):
            said.tools |= {function["name"]: function["parameters"] for function in tool["functions"]["specifications"]}
        options = body.get("model_options", {})
        wanted = options.get("response_format", {})
        said.schema = wanted["schema"] if wanted.get("type") == "json_schema" else None
        said.max_tokens, said.temperature = options.get("max_tokens"), options.get("temperature")
        return said


GIGACHAT, GIGACHAT2 = GigaChat(), GigaChat2()
