"""A server that answers in every shape that the docs use, as the APIs' public references have it, and refuses what those refuse.

It runs in a process of its own, and tells one API from another by the path alone. ``DocumentedServer`` starts it.

Sources: those of ``formats.py`` and ``media.py``, and https://docs.perplexity.ai/api-reference/chat-completions-post,
https://docs.cohere.com/reference/rerank, https://platform.openai.com/docs/api-reference/moderations; those of ``format_cohere.py`` and
``format_ollama.py``.
"""

from __future__ import annotations

import base64
import io
import json
import re
import struct
import subprocess
import sys
import urllib.request
import wave
from pathlib import Path
from typing import Any

from servers.format_bedrock import CONVERSE
from servers.format_chat_kin import beside_the_text
from servers.format_cohere import COHERE
from servers.format_ollama import OLLAMA
from servers.format_yandex import YANDEX
from servers.formats import ANTHROPIC, CHAT, GEMINI, RESPONSES
from servers.media import PNG, b64

SENTENCE = "Because of Rayleigh scattering."
SOURCES = [{"title": "Counting stars", "url": "https://example.com/stars", "snippet": "About 200 billion trillion.", "date": None}]


def silence() -> bytes:
    """A WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(24_000)
        sound.writeframes(bytes(480))
    return file.getvalue()


PDF = b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"


class DocumentedServer:
    """Starts the server and reads back what it was asked."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "servers.documented"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).resolve().parent.parent,
        )
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"
        self.base_url = f"{self.url}/v1"

    def stop(self) -> None:
        self._process.communicate(timeout=10)  # it ends when its standard input does

    def take(self) -> list[dict[str, Any]]:
        """The requests since the last time: path (below ``/v1``) and body, of a form its fields' names."""
        with urllib.request.urlopen(f"{self.url}/_control/take", timeout=10) as answer:
            taken: list[dict[str, Any]] = json.load(answer)
        return taken


# What follows runs in the server's process.


class Refused(Exception):
    """What the API would not take."""


def want(condition: object, why: str) -> None:
    if not condition:
        raise Refused(why)


def example(schema: Any, root: Any = None) -> Any:
    """A value that fits a schema."""
    root = schema if root is None else root
    if "$ref" in schema:
        found = root
        for step in schema["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        return example(found, root)
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            return example(schema[key][0], root)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        return {name: example(inner, root) for name, inner in schema.get("properties", {}).items()}
    if kind == "array":
        return [example(schema.get("items", {}), root) for _ in range(max(1, schema.get("minItems", 1)))]
    low = schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1)
    return {"integer": low, "number": low + 0.5, "boolean": True, "null": None}.get(kind, "robin")


def text_for(schema: Any, *instructions: str) -> str:
    """The answer: what fits the schema, be it given as such or in words; else a sentence."""
    for words in instructions:
        if schema is None and "JSON schema" in words:
            schema = json.loads(words[words.index("\n\n{") :])
    return SENTENCE if schema is None else json.dumps(example(schema))


def check_part(part: Any) -> None:
    kind = part["type"]
    if kind == "image_url":
        url = part["image_url"]["url"]
        want(url.startswith("https://") or base64.b64decode(url.partition(";base64,")[2]), "image_url: give a URL or a data URI")
    elif kind == "input_audio":
        want(part["input_audio"]["format"] in ("wav", "mp3"), "input_audio.format: wav or mp3")
        want(base64.b64decode(part["input_audio"]["data"]), "input_audio.data is empty")
    elif kind == "file":
        want(part["file"].keys() & {"file_data", "file_id"}, "file: give file_data or file_id")
    elif kind == "document_url":
        want(part["document_url"], "document_url is empty")
    else:
        want(kind == "text" and isinstance(part["text"], str), f"Invalid value: {kind!r}")


def chat(body: Any) -> tuple[Any, list[str]]:
    """OpenAI's chat completions, whole and in events."""
    want(body.get("model"), "you must provide a model parameter")
    messages = body.get("messages")
    want(isinstance(messages, list) and messages, "'messages' is a required property")
    system = ""
    for message in messages:
        want(message["role"] in ("system", "developer", "user", "assistant", "tool"), f"Invalid value: {message['role']!r}")
        known = {"role", "content", "name", "tool_calls", "tool_call_id", "refusal", "audio", *beside_the_text(body["model"], "")}
        want(message.keys() <= known, f"{message.keys() - known}")
        content = message.get("content")
        want(content or message.get("tool_calls"), "content is required")
        for part in content if isinstance(content, list) else ():
            check_part(part)
        if message["role"] == "system":
            system += content if isinstance(content, str) else "".join(part["text"] for part in content)
    form, calls = body.get("response_format") or {}, []
    tools = [tool["function"] for tool in body.get("tools", ())]
    if isinstance(forced := body.get("tool_choice"), dict):
        tools = [tool for tool in tools if tool["name"] == forced["function"]["name"]]
    if tools and messages[-1]["role"] != "tool":
        calls = [("call_1", tools[0]["name"], example(tools[0].get("parameters", {"type": "object"})))]
    text = "" if calls else text_for(form.get("json_schema", {}).get("schema"), system)
    if form.get("type") == "json_object" and text == SENTENCE:
        text = json.dumps({"answer": text})
    answer = {**CHAT.answer(text, calls), "model": body["model"]}
    answer["choices"][0]["message"] |= beside_the_text(body["model"], text)
    if body["model"].startswith("sonar"):
        answer |= {"citations": [source["url"] for source in SOURCES], "search_results": SOURCES}
    if "audio" in body.get("modalities", ()):
        want(body.get("audio", {}).keys() == {"voice", "format"}, "audio: voice and format are required")
        want(not body.get("stream") or body["audio"]["format"] == "pcm16", "a stream has pcm16 only")
        answer["choices"][0]["message"] |= {
            "content": None,
            "audio": {"id": "audio_1", "data": b64(silence()), "transcript": SENTENCE, "expires_at": 1_900_000_000},
        }
    events = CHAT.stream(text[:7], text[7:], calls=calls) if text else CHAT.stream(calls=calls)
    if "search_results" in answer:
        extra = {key: answer[key] for key in ("citations", "search_results")}
        events = [f"data: {json.dumps({**json.loads(event[6:]), **extra})}\n\n" if event[6] == "{" else event for event in events]
    return answer, events


def yandex(body: Any) -> tuple[Any, list[str]]:
    """YandexGPT's completion: https://yandex.cloud/en/docs/ai-studio/text-generation/api-ref/TextGeneration/completion."""
    want(re.fullmatch(r"gpt://[^/]+/[^/]+/[^/]+", body["modelUri"]), "Invalid model_uri")
    want(all(message.keys() == {"role", "text"} for message in body["messages"]), "a message holds a text")
    return YANDEX.answer(SENTENCE), YANDEX.stream(SENTENCE[:7], SENTENCE[7:])


def responses(body: Any) -> tuple[Any, list[str]]:
    want(body.get("model"), "Missing required parameter: 'model'.")
    want(body.get("input"), "Missing required parameter: 'input'.")
    refused = body.keys() & {"messages", "max_tokens", "response_format", "stop", "seed", "reasoning_effort"}
    want(not refused, f"Unsupported parameter: {refused}")
    text = text_for(body.get("text", {}).get("format", {}).get("schema"), body.get("instructions", ""))
    if any(tool.get("require_approval") == "always" for tool in body.get("tools", ())) and len(body["input"]) == 1:
        ask = {"id": "mcpr_1", "type": "mcp_approval_request", "name": "read", "arguments": "{}", "server_label": "docs"}
        return {**RESPONSES.answer(), "output": [ask]}, []
    if body.get("background"):
        return {**RESPONSES.answer(), "status": "queued", "usage": None}, []
    answer = RESPONSES.answer(text, thinking=("Thought about it.", "c2VjcmV0") if "reasoning" in body else None)
    if any(tool["type"] == "web_search" for tool in body.get("tools", ())):
        said = answer["output"][-1]["content"][0]
        said["annotations"] = [{"type": "url_citation", "start_index": 0, "end_index": len(text), **SOURCES[0]}]
        answer["output"].insert(0, {"id": "ws_1", "type": "web_search_call", "status": "completed", "action": {"type": "search"}})
    return answer, RESPONSES.stream(text[:7], text[7:])


def messages(body: Any) -> tuple[Any, list[str]]:
    """Anthropic's."""
    want(body.get("model"), "model: Field required")
    want(isinstance(body.get("max_tokens"), int), "max_tokens: Field required")
    for message in body["messages"]:
        want(message["role"] in ("user", "assistant") and message["content"], "messages must have non-empty content")
        for block in message["content"] if isinstance(message["content"], list) else ():
            want(block["type"] in ("text", "image", "document", "tool_use", "tool_result", "thinking"), f"{block['type']}: no known tag")
            if block["type"] == "document" and block["source"]["type"] == "base64":
                want(base64.b64decode(block["source"]["data"]).startswith(b"%PDF"), "document: the PDF specified was not valid")
    system = body.get("system", "")
    system = system if isinstance(system, str) else "".join(block["text"] for block in system)
    schema = body.get("output_config", {}).get("format", {}).get("schema")
    forced = body.get("tool_choice", {})
    if forced.get("type") == "tool":
        (tool,) = [tool for tool in body["tools"] if tool["name"] == forced["name"]]
        calls = [("toolu_1", tool["name"], example(tool["input_schema"]))]
        return ANTHROPIC.answer(calls=calls), ANTHROPIC.stream(calls=calls)
    text = text_for(schema, system)
    return ANTHROPIC.answer(text), ANTHROPIC.stream(text[:7], text[7:])


def cohere(body: Any) -> tuple[Any, list[str]]:
    said = COHERE.read("/v2/chat", body)
    text = text_for(said.schema, said.system)
    citations = []
    for position, document in enumerate(body.get("documents", ())):
        want(isinstance(document, str) or isinstance(document.get("data"), dict), "documents: data is required")
        data = {"text": document} if isinstance(document, str) else document["data"]
        source = {"type": "document", "id": f"doc:{position}", "document": data}
        citations.append({"start": 0, "end": 7, "text": text[:7], "sources": [source], "type": "TEXT_CONTENT"})
    return COHERE.answer(text, citations=citations), COHERE.stream(text[:7], text[7:], citations=citations)


def ollama(body: Any) -> tuple[Any, list[str]]:
    said = OLLAMA.read("/api/chat", body)
    want(body.get("think", False) in (True, False, "low", "medium", "high", "max"), f"invalid think value: {body.get('think')}")
    text = text_for(said.schema, said.system)
    thinking = "Rayleigh." if body.get("think") else ""
    return OLLAMA.answer(text, thinking=thinking), OLLAMA.stream(text[:7], text[7:], thinking=thinking)


def converse(path: str, body: Any) -> tuple[Any, list[str]]:
    """Bedrock's."""
    try:
        said = CONVERSE.read(path, body)
    except AssertionError as exc:
        raise Refused(str(exc)) from exc
    forced = body.get("toolConfig", {}).get("toolChoice", {}).get("tool", {}).get("name")
    calls = [("tooluse_1", forced, example(said.tools[forced]))] if forced else []
    text = "" if calls else text_for(said.schema, said.system)
    return CONVERSE.answer(text, calls), CONVERSE.stream(*([text[:7], text[7:]] if text else []), calls=calls)


def gemini(path: str, body: Any) -> tuple[Any, list[str]]:
    model, _, method = path.rpartition("/models/")[2].partition(":")
    if method == "predict":
        want(body["instances"][0].get("prompt"), "prompt: required")
        count = body.get("parameters", {}).get("sampleCount", 4)
        return {"predictions": [{"mimeType": "image/png", "bytesBase64Encoded": b64(PNG)}] * count}, []
    want(method in ("generateContent", "streamGenerateContent"), path)
    want(body.get("contents"), "contents is not specified")
    text = text_for(body.get("generationConfig", {}).get("responseJsonSchema"))
    answer = GEMINI.answer(text)
    if "image" in model:
        answer["candidates"][0]["content"]["parts"].append({"inlineData": {"mimeType": "image/png", "data": b64(PNG)}})
    return answer, GEMINI.stream(text[:7], text[7:])


def embeddings(body: Any) -> Any:
    want(body.get("model"), "you must provide a model parameter")
    texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
    want(texts and all(texts), "'$.input' is invalid")
    vector = [0.25] * body.get("dimensions", 4)
    coded = b64(struct.pack(f"<{len(vector)}f", *vector)) if body.get("encoding_format") == "base64" else vector
    data = [{"object": "embedding", "index": index, "embedding": coded} for index in range(len(texts))]
    return {"object": "list", "data": data, "model": body["model"], "usage": {"prompt_tokens": 4, "total_tokens": 4}}


def moderations(body: Any) -> Any:
    given = body["input"]
    count = len(given) if isinstance(given, list) and all(isinstance(one, str) for one in given) else 1
    result = {"flagged": False, "categories": {"violence": False}, "category_scores": {"violence": 0.01}}
    return {"id": "modr-1", "model": body["model"], "results": [result] * count}


def rerank(body: Any) -> Any:
    want(body.get("model") and body.get("query") and body.get("documents"), "model, query and documents are required")
    count = len(body["documents"])
    ranked = [{"index": index, "relevance_score": (index + 1) / (count + 1)} for index in reversed(range(count))]
    return {"id": "r1", "results": ranked[: body.get("top_n", count)], "meta": {"billed_units": {"search_units": 1}}}


def images(body: Any, own: str) -> Any:
    model = body.get("model", "recraftv4_1")
    want(body.get("prompt"), "Missing required parameter: 'prompt'.")
    count = body.get("n", 1)
    if model.startswith("gpt-image"):
        want(not body.keys() & {"response_format", "style"}, "Unknown parameter")
        usage = {
            "input_tokens": 10,
            "input_tokens_details": {"text_tokens": 10, "image_tokens": 0},
            "output_tokens": 272,
            "total_tokens": 282,
        }
        return {"created": 1_800_000_000, "data": [{"b64_json": b64(PNG)}] * count, "usage": usage}
    want("style" not in body or model.startswith(("recraftv3", "recraftv2", "dall-e-3")), "styles are not supported by V4 models")
    if not model.startswith("recraft"):
        return {"created": 1_800_000_000, "data": [{"url": f"{own}/cat.png"}] * count}
    return {"created": 1_800_000_000, "credits": 40 * count, "data": [{"image_id": "i", "url": f"{own}/cat.png"}] * count}


def speech(body: Any) -> bytes:
    want(body.get("model") and body.get("input") and body.get("voice"), "model, input and voice are required")
    want(body.get("response_format", "mp3") in ("mp3", "opus", "aac", "flac", "wav", "pcm"), "response_format")
    return silence()


_KEY_HEADERS = {
    "/messages": "x-api-key",
    "/flux-": "x-key",
    "/speak": "x-acme-key",
    "/get_result": "x-key",
    ":generateContent": "x-goog-api-key",
}
_NO_KEY = ("/chat/completions", "/models", "/cat.png")
"""Local servers want none; files are open to everybody."""


async def answer(request: Any) -> Any:
    from aiohttp import web

    path = request.path.removeprefix("/v1")
    own = str(request.url.origin())
    header = next((header for part, header in _KEY_HEADERS.items() if part in path), "authorization")
    if path not in _NO_KEY and header not in request.headers and "x-goog-api-key" not in request.headers:
        return web.json_response({"error": {"message": f"no key: {header} is missing"}}, status=401)
    if path == "/api/v2/oauth":
        want("rquid" in request.headers and (await request.post()).get("scope"), "RqUID and scope are required")
        request.app["seen"].append({"method": request.method, "path": path, "body": {}})
        return web.json_response({"access_token": "a-token", "expires_at": 4_102_444_800_000})
    form = await request.post() if request.content_type == "multipart/form-data" else None
    body = json.loads(await request.read() or b"{}") if form is None else {}
    seen = {"method": request.method, "path": path, "body": body if form is None else sorted(form)}
    request.app["seen"].append(seen)
    events: list[str] = []
    try:
        if path == "/cat.png":
            return web.Response(body=PNG, content_type="image/png")
        if path == "/get_result":
            return web.json_response({"id": "t", "status": "Ready", "result": {"sample": f"{own}/cat.png", "seed": 1}})
        if path == "/models":
            return web.json_response({"object": "list", "data": []})
        if path == "/audio/speech":
            return web.Response(body=speech(body), content_type="audio/wav")
        if path == "/images/edits":
            assert form is not None
            want(form.get("prompt") and form.get("model"), "Missing required parameter: 'prompt'.")
            want(any(name.startswith("image") and form[name].file.read() == PNG for name in form), "Invalid image file.")
            return web.json_response(images({"model": form["model"], "prompt": form["prompt"]}, own))
        if path.startswith("/flux-"):
            want(body.get("prompt"), "prompt: Field required")
            content = {"id": "t", "polling_url": f"{own}/v1/get_result?id=t", "cost": 4}
        elif path == "/chat/completions" or path == "/speak":
            content, events = chat(body) if path != "/speak" else chat(as_chat(body))
        elif path.startswith("/responses/") and request.method == "GET":
            content = RESPONSES.answer(SENTENCE)
        elif path == "/completion":
            content, events = yandex(body)
            body["stream"] = body["completionOptions"]["stream"]
        elif path == "/responses":
            content, events = responses(body)
        elif path == "/messages":
            want("anthropic-version" in request.headers, "anthropic-version: header is required")
            content, events = messages(body)
        elif path == "/v2/chat":
            content, events = cohere(body)
        elif path == "/api/chat":
            content, events = ollama(body)
        elif path.endswith("/converse-stream"):
            return web.Response(body=CONVERSE.wire(*converse(path, body)[1]), content_type=CONVERSE.stream_type)
        elif path.endswith("/converse"):
            content, events = converse(path, body)
        elif "/models/" in path:
            content, events = gemini(path, body)
            body["stream"] = "streamGenerateContent" in path
        elif path == "/images/generations":
            content = images(body, own)
        else:
            operations = {"/embeddings": embeddings, "/moderations": moderations}
            operation = rerank if path.endswith("/rerank") else operations.get(path)
            if operation is None:
                return web.json_response({"error": {"message": f"there is no {path}"}}, status=404)
            content = operation(body)
    except (Refused, AssertionError, KeyError, IndexError, TypeError, ValueError) as exc:
        return web.json_response({"error": {"message": f"{type(exc).__name__}: {exc}", "type": "invalid_request_error"}}, status=400)
    if body.get("stream"):
        return web.Response(text="".join(events), content_type="text/event-stream")
    return web.json_response(content)


def as_chat(body: Any) -> Any:
    """docs/add_a_provider.md has an API of its own."""
    want(body.get("voice") and body.get("lines"), "voice and lines are required")
    messages = [{"role": line["who"], "content": line["says"]} for line in body["lines"]]
    return {"model": body["voice"], "messages": messages}


async def take(request: Any) -> Any:
    from aiohttp import web

    taken, request.app["seen"][:] = list(request.app["seen"]), []
    return web.json_response(taken)


async def main() -> None:
    import asyncio

    from aiohttp import web

    app = web.Application(client_max_size=2**26)
    app["seen"] = []
    app.router.add_get("/_control/take", take)
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    import asyncio
    import warnings

    warnings.simplefilter("ignore")  # aiohttp's advice on how to name a key of the app
    asyncio.run(main())
