"""What the APIs that make images and speech answer, and what they would refuse to be asked. Written from their public references:

* https://developers.openai.com/api/reference/resources/images/methods/generate, .../methods/edit, .../resources/audio
* https://www.recraft.ai/docs/api-reference/usage
* https://api.bfl.ai/openapi.json, https://docs.bfl.ai/api_integration/errors
* https://ai.google.dev/gemini-api/docs/imagen, https://docs.cloud.google.com/vertex-ai/generative-ai/docs/model-reference/imagen-api
* https://ai.google.dev/api/embeddings, https://ai.google.dev/api/tokens
"""

from __future__ import annotations

import base64
import email.message
import email.parser
import email.policy
from typing import Any
from urllib.parse import parse_qs, urlsplit

from servers.scripted import Request

PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII=")
PNG_URI = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


# OpenAI and who took its shape

_OPENAI = (
    "prompt model n size quality background output_format output_compression moderation style user response_format safety_identifier stream "
    "partial_images complexity frame_count frame_duration_ms svg"
)
OPENAI_IMAGE = set(_OPENAI.split())
OPENAI_EDIT = (OPENAI_IMAGE | {"image", "image[]", "mask", "markup", "input_fidelity"}) - {"moderation", "style"}
OPENAI_SPEECH = set("model input voice instructions response_format speed stream_format".split())
RECRAFT = set(
    "prompt text_layout n style_id style substyle model response_format size negative_prompt controls random_seed image_format".split()
)


def read_image(request: Request, key: str) -> dict[str, Any]:
    """The body of ``images.generate``. Raises ``AssertionError`` where the API would refuse it."""
    assert (request.method, request.path) == ("POST", "/v1/images/generations")
    return _read(request, key, OPENAI_IMAGE)


def read_recraft(request: Request, key: str) -> dict[str, Any]:
    assert (request.method, request.path) == ("POST", "/v1/images/generations")
    body = _read(request, key, RECRAFT)
    assert 1 <= body.get("n", 1) <= 6
    assert not {"style", "style_id"} <= body.keys(), "style and style_id are mutually exclusive"
    if {"style", "substyle", "negative_prompt", "text_layout"} & body.keys():
        assert body.get("model", "recraftv4_1").startswith(("recraftv3", "recraftv2")), "styles are not supported by V4 models"
    return body


def read_speech(request: Request, key: str) -> dict[str, Any]:
    assert (request.method, request.path) == ("POST", "/v1/audio/speech")
    body = _read(request, key, OPENAI_SPEECH)
    assert {"model", "input", "voice"} <= body.keys()
    assert len(body["input"]) <= 4096
    return body


def read_edit(request: Request, key: str) -> dict[str, Any]:
    """The form of ``images.edit``: each field's text; a file is ``(name, type, bytes)``, and there may be several of one name."""
    assert (request.method, request.path) == ("POST", "/v1/images/edits")
    assert request.headers["authorization"] == f"Bearer {key}"
    head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
    form = email.parser.BytesParser(policy=email.policy.default).parsebytes(head + request.body)
    fields: dict[str, Any] = {}
    for part in form.iter_parts():
        assert isinstance(part, email.message.EmailMessage)
        name = str(part.get_param("name", header="content-disposition"))
        data = part.get_payload(decode=True)
        assert isinstance(data, bytes)
        if part.get_filename():
            fields.setdefault(name, []).append((part.get_filename(), part.get_content_type(), data))
        else:
            fields[name] = data.decode()
    assert fields.keys() <= OPENAI_EDIT, f"Unknown parameter: {fields.keys() - OPENAI_EDIT}"
    assert "prompt" in fields and ({"image", "image[]"} & fields.keys())
    return fields


def _read(request: Request, key: str, known: set[str]) -> dict[str, Any]:
    assert request.headers["authorization"] == f"Bearer {key}"
    body: dict[str, Any] = request.json
    assert body.keys() <= known, f"Unknown parameter: {body.keys() - known}"
    return body


def images(*data: bytes, tokens: tuple[int, int, int] | None = (50, 40, 1056), **rest: Any) -> dict[str, Any]:
    """Images as a GPT image model answers them; ``tokens`` of text, of images given, and written."""
    answer: dict[str, Any] = {"created": 1_800_000_000, "data": [{"b64_json": b64(one)} for one in data], **rest}
    if tokens is not None:
        text, given, written = tokens
        answer["usage"] = {
            "input_tokens": text + given,
            "input_tokens_details": {"text_tokens": text, "image_tokens": given},
            "output_tokens": written,
            "total_tokens": text + given + written,
        }
    return answer


def links(*urls: str, **rest: Any) -> dict[str, Any]:
    """Images as an API answers them that keeps them for some time."""
    return {"created": 1_800_000_000, "data": [{"url": url} for url in urls], **rest}


# Black Forest Labs

_BFL_COMMON = {"prompt", "seed", "safety_tolerance", "output_format", "webhook_url", "webhook_secret"}
_BFL_INPUTS = {"input_image", *(f"input_image_{number}" for number in range(2, 9))}
BFL_FIELDS = {
    "flux-pro-1.1": _BFL_COMMON | {"width", "height", "image_prompt", "prompt_upsampling"},
    "flux-2-pro": _BFL_COMMON | _BFL_INPUTS | {"width", "height"},
    "flux-kontext-pro": _BFL_COMMON | _BFL_INPUTS | {"aspect_ratio", "prompt_upsampling"},
    "flux-pro-1.0-fill": _BFL_COMMON | {"image", "mask", "steps", "guidance", "prompt_upsampling"},
}


def read_submission(request: Request, key: str) -> tuple[str, dict[str, Any]]:
    """Model and body of a submitted task."""
    model = request.path.removeprefix("/v1/")
    assert request.method == "POST"
    assert request.headers["x-key"] == key, "Not authenticated"
    assert "authorization" not in request.headers
    body: dict[str, Any] = request.json
    assert body.keys() <= BFL_FIELDS[model], f"Extra inputs are not permitted: {body.keys() - BFL_FIELDS[model]}"
    for side in ("width", "height"):
        assert 64 <= body.get(side, 64) <= 2048
    return model, body


def read_poll(request: Request, key: str) -> str:
    """Which task is asked about."""
    where = urlsplit(request.path)
    assert (request.method, where.path) == ("GET", "/v1/get_result")
    assert request.headers["x-key"] == key, "Not authenticated"
    (id,) = parse_qs(where.query)["id"]
    return id


def submitted(url: str, id: str = "task-1", **rest: Any) -> dict[str, Any]:
    return {"id": id, "polling_url": f"{url}/v1/get_result?id={id}", **rest}


def task(status: str, id: str = "task-1", **rest: Any) -> dict[str, Any]:
    return {"id": id, "status": status, "result": None, "progress": None, "details": None, "preview": None, **rest}


def done(url: str, id: str = "task-1", **result: Any) -> dict[str, Any]:
    return task("Ready", id, result={"sample": url, "seed": 42, "start_time": 1.0, "end_time": 2.5, "duration": 1.5, **result})


# Google

IMAGEN_PARAMETERS = set(
    "sampleCount aspectRatio imageSize personGeneration negativePrompt seed enhancePrompt addWatermark language safetySetting "
    "outputOptions includeRaiReason includeSafetyAttributes storageUri".split()
)


def read_predict(request: Request) -> dict[str, Any]:
    assert request.method == "POST" and request.path.endswith(":predict"), request.path
    body: dict[str, Any] = request.json
    assert body.keys() <= {"instances", "parameters"}
    for instance in body["instances"]:
        assert instance.keys() <= {"prompt"}, f"Unknown name: {instance.keys()}"
    assert body["parameters"].keys() <= IMAGEN_PARAMETERS, f"Unknown name: {body['parameters'].keys() - IMAGEN_PARAMETERS}"
    assert 1 <= body["parameters"].get("sampleCount", 4) <= 4
    return body


def read_embedding(request: Request) -> list[dict[str, Any]]:
    body: dict[str, Any] = request.json
    assert request.path.endswith(":batchEmbedContents")
    assert body.keys() == {"requests"} and 1 <= len(body["requests"]) <= 100
    for one in body["requests"]:
        assert one.keys() <= {"model", "content", "taskType", "title", "outputDimensionality"}
        assert f"/{one['model']}:" in request.path
    requests: list[dict[str, Any]] = body["requests"]
    return requests
