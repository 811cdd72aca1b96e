"""YandexGPT: Yandex AI Studio's own API for text, with its functions, streams and embeddings.

Sources: https://yandex.cloud/en/docs/ai-studio/text-generation/api-ref/TextGeneration/completion,
https://yandex.cloud/en/docs/ai-studio/concepts/generation/models, https://yandex.cloud/en/docs/ai-studio/api-ref/authentication
"""

from __future__ import annotations

import functools
import re
from array import array
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from llm_master.errors import ConfigurationError, InvalidRequestError, PermissionDeniedError, ProviderError, ServerError
from llm_master.providers import yandex_answer as answer
from llm_master.providers.base import Translation
from llm_master.providers.bodies import encoded, unreadable
from llm_master.providers.counts import count
from llm_master.providers.failures import BAD_JSON, request_id
from llm_master.providers.http import HTTPProvider, with_headers
from llm_master.providers.lines import LineParser
from llm_master.providers.neutral import is_neutral, neutral
from llm_master.providers.stream_reader import StreamReader
from llm_master.providers.yandex_messages import conversation
from llm_master.transport import Answer, Endpoint
from llm_master.types import LLMResponse, Message, Usage, WireAnswer

if TYPE_CHECKING:
    from llm_master.results import EmbeddingResponse

_NEUTRAL = neutral(top_p=(1, 1.0))

_WITHOUT_WORD = frozenset(
    "audio frequency_penalty function_call functions logit_bias logprobs metadata modalities moderation n prediction presence_penalty "
    "prompt_cache_key prompt_cache_retention safety_identifier seed service_tier stop store stream_options top_k top_logprobs top_p user "
    "verbosity web_search_options".split()
)
"""What is asked elsewhere, and this API has no word for."""

_EFFORTS = {"none": "DISABLED", **dict.fromkeys(("minimal", "low", "medium", "high", "xhigh"), "ENABLED_HIDDEN")}
"""The API thinks or does not, and has no word for how much."""

_MODES = {"auto": "AUTO", "none": "NONE", "required": "REQUIRED", "any": "REQUIRED"}

_BRANCHES = ("latest", "rc", "deprecated")

_TOKEN = re.compile(r"IAM_TOKEN(_\d+)?$", re.IGNORECASE)
_URI = re.compile(r"[a-z]+://.+")


class YandexProvider(HTTPProvider):
    """``yandexgpt*`` and whatever else has a URI there. The key is an API key, or an IAM token.

    A key is an IAM token if it begins with ``t1.``, or if the variable in which it stands is named so (``..._IAM_TOKEN``).
    """

    stream_parser = LineParser
    whole_types = ("text/html",)

    @functools.cached_property
    def _has_token(self) -> bool:
        return self.api_key is not None and (self.api_key.startswith("t1.") or _TOKEN.search(self.key_source) is not None)

    def uri(self, model: str, scheme: str = "gpt") -> str:
        """A model's URI. One that is a URI already stays; of a name, the folder's, by default its latest branch.

        Raises:
            ConfigurationError: No folder is known.
        """
        if _URI.fullmatch(model):
            return model
        folder = self.config.folder_id
        if not folder:
            variable = f"{self.config.name.upper() or 'YANDEX'}_FOLDER_ID"
            raise ConfigurationError(
                f"{model!r} needs the folder that it is asked in: set ${variable} (or folder_id of the row), or name it as {scheme}://FOLDER/{model}"
            )
        if model in _BRANCHES:  # yandexgpt/rc, whose first part is the provider's other name
            model = f"yandexgpt/{model}"
        return f"{scheme}://{folder}/{model if '/' in model else f'{model}/latest'}"

    def prepare(self, messages: Sequence[Message], model: str, options: Mapping[str, Any], *, stream: bool) -> tuple[str, dict[str, Any]]:
        """Path and body of a request."""
        body = {"modelUri": self.uri(model), **options, "messages": conversation(messages)}
        body["completionOptions"] = {"stream": stream, **options.get("completionOptions", {})}
        return "/completion", body

    def headers(self, options: Mapping[str, Any]) -> dict[str, str]:
        """Headers of a request: the key, and the folder, if one is set."""
        headers = {}
        if self.api_key:
            headers["Authorization"] = f"{'Bearer' if self._has_token else 'Api-Key'} {self.api_key}"
        if self.config.folder_id:
            headers["x-folder-id"] = self.config.folder_id
        return headers

    def translate(self, model: str, options: Mapping[str, Any]) -> Translation:
        """OpenAI's options in the API's words.

        Raises:
            InvalidRequestError: A value that the API is known to refuse.
        """
        result = Translation()
        out = result.options
        inner: dict[str, Any] = {}
        for name, value in options.items():
            if is_neutral(name, value, _NEUTRAL):
                result.dropped.append(name)
            elif name in ("max_tokens", "max_completion_tokens"):
                inner["maxTokens"] = value
                result.renamed[name] = "completionOptions.maxTokens"
            elif name == "temperature":
                inner[name] = value
            elif name == "reasoning_effort":
                if value not in _EFFORTS:
                    raise InvalidRequestError(f"reasoning_effort is {value!r}: give one of {', '.join(_EFFORTS)}")
                inner["reasoningOptions"] = {"mode": _EFFORTS[value]}
                result.renamed[name] = "completionOptions.reasoningOptions.mode"
            elif name == "tools":
                out[name] = [_tool(tool) for tool in value]
            elif name == "tool_choice":
                out["toolChoice"] = _tool_choice(value)
                result.renamed[name] = "toolChoice"
            elif name == "parallel_tool_calls":
                out["parallelToolCalls"] = bool(value)
                result.renamed[name] = "parallelToolCalls"
            elif name == "response_format":
                out.update(_format(value))
                result.renamed[name] = next(iter(_format(value)))
            elif name in _WITHOUT_WORD:
                result.unsupported.append(name)
            else:
                out[name] = value  # one of the API's own, or new: the API says so if it is not
        if inner:
            out["completionOptions"] = {**inner, **out.get("completionOptions", {})}
        return result

    def read_answer(self, body: bytes, *, status: int, request_id: str | None, model: str) -> LLMResponse:
        """Make an answer of a 2xx body."""
        return answer.read_answer(body, status=status, request_id=request_id, model=model)

    def reader(self, model: str, status: int, request_id: str | None) -> StreamReader:
        """What makes events of a stream's lines."""
        return answer.LineReader(model, status, request_id)

    def refused(self, answer: Answer, model: str, endpoint: Endpoint) -> ProviderError:
        """The error for an answer that is no 2xx, with what may be done about a folder or a token."""
        error = super().refused(answer, model, endpoint)
        said = str(error)
        variable = f"${self.config.name.upper() or 'YANDEX'}_FOLDER_ID"
        if answer.status in (400, 403, 404) and "folder" in said.lower():
            said += f". Check {variable}, which is {self.config.folder_id!r}, and that the key may use models there"
            if answer.status == 400:
                # It calls a folder that is not the key's an invalid argument.
                return PermissionDeniedError(said, status=400, model=model, request_id=error.request_id)
        elif answer.status == 403:
            said += f". Has the key the role ai.languageModels.user in the folder of {variable}, {self.config.folder_id!r}?"
        elif answer.status == 401 and self._has_token:
            said += ". An IAM token holds for 12 hours at most: fetch another, or give an API key"
        error.args = (said,)
        return error

    async def count_tokens(self, messages: Sequence[Message], model: str, **options: Any) -> int | None:
        """How many tokens the request has (https://yandex.cloud/en/docs/ai-studio/text-generation/api-ref/Tokenizer/tokenizeCompletion).

        Counting is free.
        """
        _, body = self.prepare(messages, model, options, stream=False)
        found = await self._ask("/tokenizeCompletion", body, model)
        try:
            return len(msgspec.json.decode(found.body)["tokens"])
        except (*BAD_JSON, LookupError, TypeError) as exc:
            raise unreadable(found.body, exc, found.status, request_id(found.headers), model) from exc

    async def health_check(self) -> bool:
        """Whether the tokenizer answers, which costs nothing."""
        await self._ask("/tokenize", {"modelUri": self.uri(self.config.default_model or "yandexgpt-lite"), "text": "."}, "")
        return True

    async def embed(self, inputs: Sequence[str], model: str, **options: Any) -> EmbeddingResponse:
        """Vectors of texts, of which each is a request (https://yandex.cloud/en/docs/ai-studio/embeddings/api-ref/Embeddings/textEmbedding).

        Args:
            inputs: The texts.
            model: ``text-search-doc`` for what is searched, ``text-search-query`` for what is asked, or a URI.
            **options: ``dimensions``, for models that have several.
        """
        from llm_master.results import EmbeddingResponse

        if (dimensions := options.pop("dimensions", None)) is not None:
            options["dim"] = dimensions
        vectors = []
        tokens: int | None = 0
        found: Answer | None = None
        for text in inputs:
            found = await self._ask(
                self.config.paths.get("embed", "/textEmbedding"), {"modelUri": self.uri(model, "emb"), "text": text, **options}, model
            )
            try:
                content = msgspec.json.decode(found.body)
                vectors.append(array("f", [float(number) for number in content["embedding"]]))
                counted = count(content.get("numTokens"))
                tokens = None if tokens is None or counted is None else tokens + counted
            except (*BAD_JSON, LookupError, TypeError, ValueError, AttributeError) as exc:
                raise unreadable(found.body, exc, found.status, request_id(found.headers), model) from exc
            if not vectors[-1]:
                raise ServerError(f"answered {found.status} with an empty vector", status=found.status, model=model)
        wire = WireAnswer(found.status, request_id(found.headers), found.body) if found is not None else WireAnswer()
        response = EmbeddingResponse(embeddings=vectors, model_name=model, usage=Usage(tokens, 0, cached_tokens=0), wire=wire)
        return with_headers(response, found) if found is not None else response

    async def _ask(self, path: str, body: Mapping[str, Any], model: str) -> Answer:
        endpoint = await self.endpoint(path, {})
        found = await endpoint.post(encoded(body))
        if not 200 <= found.status < 300:
            raise self.refused(found, model, endpoint)
        return found


def _tool(tool: Any) -> dict[str, Any]:
    function = tool.get("function") if isinstance(tool, Mapping) else None
    if not isinstance(function, Mapping):
        raise InvalidRequestError(f"tools: {tool!r:.80} is no function, and this API knows no other tool: give functions")
    given = {key: value for key, value in function.items() if value is not None}
    return {"function": {"parameters": {"type": "object", "properties": {}}, **given}}


def _tool_choice(value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping) and isinstance(function := value.get("function"), Mapping):
        return {"functionName": function.get("name")}
    if isinstance(value, str) and value in _MODES:
        return {"mode": _MODES[value]}
    raise InvalidRequestError(
        f'tool_choice is {value!r}: give "auto", "required", "none" or {{"type": "function", "function": {{"name": ...}}}}'
    )


def _format(value: Any) -> dict[str, Any]:
    kind = value.get("type") if isinstance(value, Mapping) else None
    if kind == "json_object":
        return {"jsonObject": True}
    if kind == "json_schema":
        inner = value["json_schema"] if isinstance(value.get("json_schema"), Mapping) else value
        if isinstance(inner.get("schema"), Mapping):
            return {"jsonSchema": {"schema": inner["schema"]}}
        raise InvalidRequestError(
            'response_format has no schema: give {"type": "json_schema", "json_schema": {"name": ..., "schema": {...}}}'
        )
    raise InvalidRequestError(f"response_format of type {kind!r} is not known here: give a json_schema or json_object")
