"""Chat completions of APIs that refuse what OpenAI's takes. Written from the public references, and from nothing of the library:

* https://docs.mistral.ai/api/#tag/chat
* https://api-docs.deepseek.com/guides/thinking_mode, https://platform.kimi.ai/docs/guide/use-kimi-k2-thinking-model
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

from servers.formats import ChatCompletions, Said


class MistralChat(ChatCompletions):
    """Mistral's: ids of nine letters or digits, contents of chunks, no field that it does not know."""

    unsupported: ClassVar = "stream_options"

    def read(self, path: str, body: Any) -> Said:
        known = {"model", "messages", "temperature", "top_p", "max_tokens", "stream", "stop", "random_seed", "metadata", "response_format"}
        known |= {"tools", "tool_choice", "presence_penalty", "frequency_penalty", "n", "prediction", "parallel_tool_calls"}
        known |= {"reasoning_effort", "prompt_mode", "guardrails", "prompt_cache_key", "safe_prompt"}
        assert body.keys() <= known, f"Extra inputs are not permitted: {body.keys() - known}"
        names: dict[str, str] = {}
        plain = []
        for message in body["messages"]:
            assert message["role"] in ("system", "user", "assistant", "tool"), message["role"]
            for call in message.get("tool_calls") or ():
                assert re.fullmatch("[a-zA-Z0-9]{9}", call["id"]), (
                    f"Tool call id was {call['id']} but must be a-z, A-Z, 0-9, with a length of 9."
                )
                names[call["id"]] = call["function"]["name"]
            if message["role"] == "tool":
                assert message["tool_call_id"] in names, f"Unexpected tool call id {message['tool_call_id']} in tool results"
            content = message.get("content")
            if isinstance(content, list):
                for part in content:
                    assert part["type"] in ("text", "image_url", "document_url", "input_audio", "file", "thinking", "reference"), part[
                        "type"
                    ]
                shown = [part for part in content if part["type"] == "text" or "data:" in str(part.get("image_url"))]
                message = {**message, "content": shown}
            message = {key: value for key, value in message.items() if key != "prefix"}
            plain.append(message)
        said = super().read(path, {**body, "messages": plain})
        # Whichever id a call had, its result is that of its function.
        said.results = {names[call]: text for call, text in said.results.items()}
        return said


class ThinkingChat(ChatCompletions):
    """Of models that think between their tool calls: a call without its ``reasoning_content`` is refused."""

    def read(self, path: str, body: Any) -> Said:
        thinks = body.get("thinking", {}).get("type") != "disabled"
        plain = []
        for position, message in enumerate(body["messages"]):
            if message["role"] == "assistant" and message.get("tool_calls") and thinks:
                error = f"thinking is enabled but reasoning_content is missing in assistant tool call message at index {position}"
                assert message.get("reasoning_content"), error
            plain.append({key: value for key, value in message.items() if key != "reasoning_content"})
        return super().read(path, {**body, "messages": plain})


MISTRAL, THINKING = MistralChat(), ThinkingChat()


def beside_the_text(model: str, text: str) -> dict[str, Any]:
    """What a message of this model holds beside role and content, or instead of it."""
    if model.startswith(("deepseek", "glm", "kimi", "acme-thinker")):
        return {"reasoning_content": "Thought about it."}
    if model.startswith("anthropic/"):
        details = [{"type": "reasoning.text", "text": "Thought about it.", "signature": "c2ln", "index": 0}]
        return {"reasoning": "Thought about it.", "reasoning_details": details}
    if model.startswith("sonar-reasoning"):
        return {"content": f"<think>\nThought about it.\n</think>\n\n{text}"}
    return {}
