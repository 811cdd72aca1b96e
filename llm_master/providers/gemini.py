"""Gemini's generateContent, of Google AI and of Vertex AI.

Sources: https://ai.google.dev/api/generate-content, https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from llm_master.errors import InvalidRequestError, ServerError
from llm_master.providers import gemini_answer as answer
from llm_master.providers import gemini_media as media
from llm_master.providers.base import Translation, extract_prompt
from llm_master.providers.bodies import encoded
from llm_master.providers.failures import request_id
from llm_master.providers.gemini_messages import conversation
from llm_master.providers.http import HTTPProvider
from llm_master.providers.neutral import is_neutral, neutral
from llm_master.providers.schemas import check_schema, fits
from llm_master.providers.stream_reader import StreamReader
from llm_master.results import EmbeddingResponse, ListedModel
from llm_master.types import LLMResponse, Message, WireAnswer

_GENERATION = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "max_tokens": "maxOutputTokens",
    "max_completion_tokens": "maxOutputTokens",
    "n": "candidateCount",
    "seed": "seed",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
    "logprobs": "responseLogprobs",
    "top_logprobs": "logprobs",
}
"""OpenAI's options and the fields of ``generationConfig``."""

_TOP = frozenset("safetySettings cachedContent toolConfig labels modelArmorConfig systemInstruction serviceTier".split())
"""The API's own fields of a request."""

_NEUTRAL = neutral(
    *("n", "frequency_penalty", "presence_penalty", "logprobs", "response_format"),  # which it has words for
    parallel_tool_calls=(True,),
)

_REFUSED = frozenset(
    "audio function_call functions logit_bias moderation parallel_tool_calls prediction prompt_cache_key prompt_cache_retention "
    "safety_identifier store stream_options user verbosity web_search_options metadata".split()
)
"""What OpenAI's API has and this one has no word for."""

_BUDGETS = {"none": 0, "minimal": 512, "low": 1024, "medium": 8192, "high": 24_576}
"""Tokens of thinking for ``reasoning_effort``, for models that take a budget (before Gemini 3):
https://ai.google.dev/gemini-api/docs/openai#thinking"""

_SCHEMA_WORDS = frozenset(
    "$recursiveRef not if then else patternProperties dependentRequired dependentSchemas unevaluatedProperties contains".split()
)
"""Keywords that structured output does not know: https://ai.google.dev/gemini-api/docs/structured-output#json-schema-support"""


class GeminiProvider(HTTPProvider):
    """``gemini-*``. Options by OpenAI's names are translated; Gemini's own (``safetySettings``, ``topK``, ...) go through."""

    models_path: ClassVar[str | None] = "/models?pageSize=1000"  # the most that a page holds
    reads_text_files = True
    urls_need_a_type = True
    refused_schema_words = _SCHEMA_WORDS

    def prepare(self, messages: Sequence[Message], model: str, options: Mapping[str, Any], *, stream: bool) -> tuple[str, dict[str, Any]]:
        """Path and body of a request."""
        # https://ai.google.dev/gemini-api/docs/function-calling#multimodal
        system, contents = conversation(messages, is_gemini_3=_version(model) >= 3)
        body: dict[str, Any] = {"contents": contents, **options}
        if system is not None:
            body.setdefault("systemInstruction", system)
        name = model.removeprefix("models/")
        method = "streamGenerateContent?alt=sse" if stream else "generateContent"
        return f"/models/{name}:{method}", body

    def takes_schema(self, schema: Mapping[str, Any]) -> bool:
        """Whether structured output takes this schema."""
        return fits(schema, forbidden=_SCHEMA_WORDS)

    def headers(self, options: Mapping[str, Any]) -> dict[str, str]:
        """Headers of a request. The key goes into one, not into the URL, which is logged on the way."""
        return {"x-goog-api-key": self.api_key} if self.api_key else {}

    async def describe_models(self) -> list[ListedModel]:
        """What ``/models`` lists (https://ai.google.dev/api/models#method:-models.list), by the names under which it is asked."""
        from llm_master.providers.listing import renamed

        return renamed(await super().describe_models(), "models/")

    def next_models(self, page: Mapping[str, Any]) -> str | None:
        """Pages go by a token."""
        return f"pageToken={page['nextPageToken']}" if page.get("nextPageToken") else None

    def translate(self, model: str, options: Mapping[str, Any]) -> Translation:
        """OpenAI's options in Gemini's words.

        Raises:
            InvalidRequestError: A value that the API is known to refuse.
        """
        result = Translation()
        out = result.options
        config: dict[str, Any] = {}
        for name, value in options.items():
            if is_neutral(name, value, _NEUTRAL):
                result.dropped.append(name)
            elif name in _GENERATION:
                config[_GENERATION[name]] = value
                if _GENERATION[name] != name:
                    result.renamed[name] = f"generationConfig.{_GENERATION[name]}"
            elif name == "stop":
                config["stopSequences"] = [value] if isinstance(value, str) else list(value)
                result.renamed[name] = "generationConfig.stopSequences"
            elif name == "modalities":
                config["responseModalities"] = [str(kind).upper() for kind in value]
                result.renamed[name] = "generationConfig.responseModalities"
            elif name in ("size", "aspect_ratio", "image_size"):
                said = media.size_of(value, media.IMAGE_RATIOS) if name == "size" else {media.camel(name): value}
                config["imageConfig"] = {**config.get("imageConfig", {}), **said}
                result.renamed[name] = "generationConfig.imageConfig"
            elif name == "voice":
                config["speechConfig"] = media.speech_config(value)
                result.renamed[name] = "generationConfig.speechConfig"
            elif name == "reasoning_effort":
                config["thinkingConfig"] = {**config.get("thinkingConfig", {}), **_thinking(model, value)}
                result.renamed[name] = "generationConfig.thinkingConfig"
            elif name in ("response_format", "response_schema"):
                config |= _format(value if name == "response_format" else {"type": "json_schema", "schema": value})
                result.renamed[name] = "generationConfig.responseJsonSchema"
            elif name == "tools":
                out["tools"] = _tools(value)
            elif name == "tool_choice":
                out["toolConfig"] = {**out.get("toolConfig", {}), "functionCallingConfig": _tool_choice(value)}
                result.renamed[name] = "toolConfig.functionCallingConfig"
            elif name == "service_tier":
                out["serviceTier"] = value
                result.renamed[name] = "serviceTier"
            elif name == "generationConfig":
                config |= value
            elif name in _TOP:
                out[name] = {**out[name], **value} if isinstance(out.get(name), dict) else value
            elif name in _REFUSED:
                result.unsupported.append(name)
            else:
                config[name] = value  # one of Gemini's own, or new: the API says so if it is not
        if config:
            out["generationConfig"] = config
        return result

    async def generate_images(self, messages: Sequence[Message], model: str, **options: Any) -> LLMResponse:
        """Images of the last user message, by Imagen (https://ai.google.dev/gemini-api/docs/imagen).

        Args:
            messages: The conversation.
            model: ``imagen-*``.
            **options: ``n`` (1), ``size`` or ``aspect_ratio``, ``output_format``, ``negative_prompt``, ``seed``, ...; names of the
                API's own are given as they are or with underscores.

        Raises:
            InvalidRequestError: No text, an image in the message, or an option that Imagen has no word for.
            ContentPolicyError: Every image was filtered.
        """
        body = media.imagen_body(messages, extract_prompt(messages), options)
        data, wire = await self._ask(model, "predict", body)
        response = media.read_images(data, status=wire.status or 200, request_id=wire.request_id, model=model)
        response.wire = wire
        return response

    async def speech(self, messages: Sequence[Message], model: str, **options: Any) -> LLMResponse:
        """Speak the last user message (https://ai.google.dev/gemini-api/docs/speech-generation).

        Args:
            messages: The conversation.
            model: ``gemini-*-tts``.
            **options: ``voice`` (``Kore``), ``instructions`` (how to say it: they go before the text), and what :meth:`generate`
                takes. The API sends bare samples, so ``format`` can only be ``pcm``; ``audio.save("x.wav")`` makes WAV of them.

        Raises:
            InvalidRequestError: No text, or another format.
        """
        text = extract_prompt(messages)
        if not text.strip():
            raise InvalidRequestError("the last user message has no text: say what is to be spoken")
        for name in ("format", "response_format"):
            if (value := options.pop(name, None)) not in (None, "pcm"):
                raise InvalidRequestError(f'{name} is {value!r}, and this API sends pcm only: leave it out; audio.save("x.wav") writes WAV')
        how = options.pop("instructions", None)
        said = self.translate(model, {"voice": media.DEFAULT_VOICE, **options, "modalities": ["audio"]})
        if said.unsupported or "speed" in options:
            names = ", ".join(map(repr, [*said.unsupported, *(name for name in options if name == "speed")]))
            raise InvalidRequestError(f"Gemini's speech does not take {names}: leave it out, or say it in instructions")
        response = await self.generate([{"role": "user", "content": f"{how}: {text}" if how else text}], model, **said.options)
        if response.audio is None:
            raise ServerError(f"answered without audio: {response.finish_reason}", model=model)
        response.audio.transcript = text
        response.usage.characters = len(text)
        return response

    async def embed(self, inputs: Sequence[str], model: str, **options: Any) -> EmbeddingResponse:
        """One vector for each input (https://ai.google.dev/api/embeddings), with ``dimensions``, ``task_type`` and ``title``.

        The API does not say how many tokens they have. It takes at most 100 inputs.
        """
        said = media.embedding_options(options)
        name = f"models/{model.removeprefix('models/')}"
        requests = [{"model": name, "content": {"parts": [{"text": text}]}, **said} for text in inputs]
        data, wire = await self._ask(model, "batchEmbedContents", {"requests": requests})
        answers = [self._vectors(data, lambda content: [one["values"] for one in content["embeddings"]], len(inputs), model, wire)]
        return media.joined(answers, wire)

    async def count_tokens(self, messages: Sequence[Message], model: str, **options: Any) -> int | None:
        """How many tokens the request has (https://ai.google.dev/api/tokens). ``options`` as :meth:`translate` made them."""
        _, body = self.prepare(messages, model, options, stream=False)
        data, wire = await self._ask(model, "countTokens", self._counted(model, body))
        return media.read_count(data, status=wire.status or 200, request_id=wire.request_id, model=model)

    def _counted(self, model: str, body: dict[str, Any]) -> dict[str, Any]:
        """The body of ``:countTokens`` for a request."""
        return {"generateContentRequest": {"model": f"models/{model.removeprefix('models/')}", **body}}

    async def _ask(self, model: str, method: str, body: Mapping[str, Any]) -> tuple[bytes, WireAnswer]:
        """Call a method of a model; return the body of its 2xx."""
        endpoint = await self.endpoint(f"/models/{model.removeprefix('models/')}:{method}", {})
        found = await endpoint.post(encoded(body))
        if not 200 <= found.status < 300:
            raise self.refused(found, model, endpoint)
        return found.body, WireAnswer(found.status, request_id(found.headers), found.body, headers=found.headers)

    @staticmethod
    def _vectors(data: bytes, pick: Any, count: int, model: str, wire: WireAnswer) -> Any:
        return media.read_vectors(data, pick, count, status=wire.status or 200, request_id=wire.request_id, model=model)

    def read_answer(self, body: bytes, *, status: int, request_id: str | None, model: str) -> LLMResponse:
        """Make an answer of a 2xx body."""
        return answer.read_answer(body, status=status, request_id=request_id, model=model)

    def reader(self, model: str, status: int, request_id: str | None) -> StreamReader:
        """What makes events of a stream's pieces."""
        return answer.CandidateReader(model, status, request_id)


def _version(model: str) -> float:
    found = re.search(r"gemini-(\d+(?:\.\d+)?)", model)
    return float(found[1]) if found else 0.0


def _thinking(model: str, effort: Any) -> dict[str, Any]:
    if effort not in _BUDGETS:
        raise InvalidRequestError(f"reasoning_effort is {effort!r}: give one of {', '.join(_BUDGETS)}")
    if _version(model) >= 3:
        # https://ai.google.dev/gemini-api/docs/gemini-3#thinking_level
        return {"thinkingLevel": "minimal" if effort == "none" else effort, "includeThoughts": effort not in ("none", "minimal")}
    return {"thinkingBudget": _BUDGETS[effort], "includeThoughts": effort != "none"}


def _format(value: Any) -> dict[str, Any]:
    kind = value.get("type") if isinstance(value, Mapping) else None
    if kind == "text":
        return {"responseMimeType": "text/plain"}
    if kind == "json_object":
        return {"responseMimeType": "application/json"}
    if kind != "json_schema":
        raise InvalidRequestError(f"response_format of type {kind!r} is not known here: give text, json_object or json_schema")
    schema = value["json_schema"].get("schema") if isinstance(value.get("json_schema"), Mapping) else value.get("schema")
    if not isinstance(schema, Mapping):
        raise InvalidRequestError(
            'response_format has no schema: give {"type": "json_schema", "json_schema": {"name": ..., "schema": {...}}}'
        )
    check_schema(schema, "schema", forbidden=_SCHEMA_WORDS)
    return {"responseMimeType": "application/json", "responseJsonSchema": schema}


def _tools(tools: Sequence[Any]) -> list[Any]:
    """Functions in one declaration, Gemini's own tools as they are."""
    declarations = []
    others = []
    for tool in tools:
        function = tool.get("function")
        if not isinstance(function, Mapping):
            others.append(tool)
            continue
        declaration = {"name": function.get("name"), "description": function.get("description") or ""}
        if function.get("parameters"):
            declaration["parametersJsonSchema"] = function["parameters"]
        declarations.append(declaration)
    return [*([{"functionDeclarations": declarations}] if declarations else []), *others]


def _tool_choice(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        modes = {"auto": "AUTO", "required": "ANY", "any": "ANY", "none": "NONE", "validated": "VALIDATED"}
        if value not in modes:
            raise InvalidRequestError(
                f'tool_choice is {value!r}: give "auto", "required", "none" or {{"type": "function", "function": {{"name": ...}}}}'
            )
        return {"mode": modes[value]}
    if isinstance(value, Mapping) and isinstance(function := value.get("function"), Mapping):
        return {"mode": "ANY", "allowedFunctionNames": [function.get("name")]}
    if isinstance(value, Mapping) and isinstance(allowed := value.get("allowed_tools"), Mapping):
        names = [(tool.get("function") or tool).get("name") for tool in allowed.get("tools") or ()]
        return {"mode": "ANY" if allowed.get("mode") == "required" else "VALIDATED", "allowedFunctionNames": names}
    return dict(value)
