"""``PROVIDER_CONFIGS``, the table of providers; ``LLMConfig``; and the rows as one engine uses them.

To add a provider, add one entry to ``_ROWS``, or at run time::

    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url="https://api.acme.ai/v1", prefixes=("acme-",))

A row states only what differs from the defaults of :class:`~llm_master.rows.ProviderConfig`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import attrs

from llm_master.errors import ConfigurationError
from llm_master.provider_table import ProviderTable
from llm_master.providers.unified import UnifiedProvider
from llm_master.rows import ProviderConfig, canonical, key_attr
from llm_master.settings.environment import Environment, current_environment
from llm_master.snapshot import Options, Snapshot, base_url_of, keys_of, take

_ROWS = {
    "openai": ProviderConfig(
        display_name="OpenAI",
        base_url="https://api.openai.com/v1",
        # gpt-oss is not among them: others serve it.
        prefixes=(
            "gpt-3",
            "gpt-4",
            "gpt-5",
            "gpt-6",
            "gpt-audio",
            "gpt-chat",
            "gpt-image-",
            "chatgpt-",
            "o1",
            "o3",
            "o4",
            "ft:gpt-",
            "text-embedding-",
            "tts-1",
            "omni-moderation-",
        ),
        default_model="gpt-6-luna",
        generate_map={
            "gpt-image-*": "llm_master.generators.images:openai_image",
            "chatgpt-image-*": "llm_master.generators.images:openai_image",
            "dall-e-*": "llm_master.generators.images:openai_image",
            "tts-*": "speech",
            "gpt-4o-mini-tts": "speech",
            "gpt-4o-mini-tts-*": "speech",
            "responses-{model}": "llm_master.generators.responses:responses",
            "responses/{model}": "llm_master.generators.responses:responses",
        },
        supports_caching=True,
    ),
    "azure": ProviderConfig(
        # The v1 API: https://RESOURCE.openai.azure.com/openai/v1, the deployment's name as the model.
        display_name="Azure OpenAI",
        api_key_env=("AZURE_OPENAI_API_KEY",),
        supports_caching=True,
    ),
    "openrouter": ProviderConfig(
        display_name="OpenRouter",
        base_url="https://openrouter.ai/api/v1",
        takes_urls=("image", "file"),  # https://openrouter.ai/docs/features/multimodal/pdfs
        default_model="openai/gpt-6-luna",
        supports_caching=True,
    ),
    "groq": ProviderConfig(
        display_name="Groq",
        base_url="https://api.groq.com/openai/v1",
        default_model="openai/gpt-oss-20b",
        # Schemas are for the models that its guide lists, JSON mode is for all: https://console.groq.com/docs/structured-outputs
        structured_output="json_object",
    ),
    "mistral": ProviderConfig(
        display_name="Mistral",
        base_url="https://api.mistral.ai/v1",
        prefixes=(
            "mistral-",
            "ministral-",
            "codestral-",
            "devstral-",
            "magistral-",
            "pixtral-",
            "voxtral-",
            "open-mistral-",
            "open-mixtral-",
        ),
        default_model="mistral-small-latest",
        # Of inputs it refuses more than 256, and more than 16,384 tokens together.
        embed_batch_size=128,
        embed_batch_tokens=10_000,
        # It refuses fields that it does not know; a stream ends with its usage unasked.
        renames={"seed": "random_seed", "max_completion_tokens": "max_tokens", "stream_options": None},
    ),
    "deepseek": ProviderConfig(
        display_name="DeepSeek",
        base_url="https://api.deepseek.com",
        prefixes=("deepseek-",),
        default_model="deepseek-flash",
        # text and json_object are all that it takes: https://api-docs.deepseek.com/api/create-chat-completion
        structured_output="json_object",
        takes_urls=(),
        supports_caching=True,
        renames={"max_completion_tokens": "max_tokens"},
    ),
    "together": ProviderConfig(
        display_name="Together AI",
        base_url="https://api.together.xyz/v1",
        api_key_env=("TOGETHERAI_API_KEY", "TOGETHER_AI_API_KEY"),
        default_model="openai/gpt-oss-120b",
    ),
    "fireworks": ProviderConfig(
        display_name="Fireworks AI",
        base_url="https://api.fireworks.ai/inference/v1",
        api_key_env=("FIREWORKS_AI_API_KEY",),
        prefixes=("accounts/fireworks/",),
        default_model="accounts/fireworks/models/gpt-oss-120b",
    ),
    "perplexity": ProviderConfig(
        display_name="Perplexity",
        base_url="https://api.perplexity.ai",
        api_key_env=("PPLX_API_KEY", "PERPLEXITYAI_API_KEY"),
        prefixes=("sonar", "pplx-"),
        default_model="sonar",
    ),
    "cerebras": ProviderConfig(
        display_name="Cerebras",
        base_url="https://api.cerebras.ai/v1",
        default_model="gpt-oss-120b",
        takes_urls=(),
    ),
    "xai": ProviderConfig(
        display_name="xAI",
        base_url="https://api.x.ai/v1",
        api_key_env=("GROK_API_KEY",),
        prefixes=("grok-",),
        default_model="grok-4.3",
        supports_caching=True,
    ),
    "moonshot": ProviderConfig(
        display_name="Moonshot AI",
        base_url="https://api.moonshot.ai/v1",
        api_key_env=("KIMI_API_KEY",),
        prefixes=("kimi-", "moonshot-"),
        default_model="kimi-k2.6",
        # Images as base64 or as uploaded files: https://platform.kimi.ai/docs/guide/use-kimi-vision-model
        takes_urls=(),
        # Of older models only JSON mode is documented.
        structured_output="json_object",
        supports_caching=True,
    ),
    "zai": ProviderConfig(
        display_name="Z.ai",
        base_url="https://api.z.ai/api/paas/v4",
        api_key_env=("Z_AI_API_KEY", "ZHIPUAI_API_KEY"),
        prefixes=("glm-",),
        default_model="glm-5.3-flash",
        # https://docs.z.ai/guides/capabilities/struct-output
        structured_output="json_object",
        supports_caching=True,
        renames={"max_completion_tokens": "max_tokens"},
    ),
    "nvidia": ProviderConfig(
        display_name="NVIDIA NIM",
        base_url="https://integrate.api.nvidia.com/v1",
        api_key_env=("NVIDIA_NIM_API_KEY", "NGC_API_KEY"),
        default_model="openai/gpt-oss-120b",
    ),
    "huggingface": ProviderConfig(
        display_name="Hugging Face",
        base_url="https://router.huggingface.co/v1",
        api_key_env=("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACEHUB_API_TOKEN"),
        default_model="openai/gpt-oss-120b",
    ),
    "cohere": ProviderConfig(
        display_name="Cohere",
        provider_class="llm_master.providers.cohere:CohereProvider",
        base_url="https://api.cohere.ai/compatibility/v1",
        api_key_env=("CO_API_KEY",),
        prefixes=(
            "command-",
            "c4ai-",
            "embed-v",
            "embed-english-",
            "embed-multilingual-",
            "rerank-v",
            "rerank-english-",
            "rerank-multilingual-",
        ),
        default_model="command-a-03-2025",
        # Ranking is none of OpenAI's operations, so that the compatible API has no place for it.
        paths={"embed": "https://api.cohere.com/v2/embed", "rerank": "https://api.cohere.com/v2/rerank"},
        embed_batch_size=96,  # https://docs.cohere.com/reference/embed
        renames={"max_completion_tokens": "max_tokens"},
    ),
    "anthropic": ProviderConfig(
        display_name="Anthropic",
        provider_class="llm_master.providers.anthropic:AnthropicProvider",
        base_url="https://api.anthropic.com/v1",
        api_key_env=("CLAUDE_API_KEY",),
        prefixes=("claude-",),
        default_model="claude-haiku-5-5",
        takes_urls=("image", "file"),  # https://platform.claude.com/docs/en/build-with-claude/pdf-support
        supports_caching=True,
    ),
    "gemini": ProviderConfig(
        display_name="Google Gemini",
        provider_class="llm_master.providers.gemini:GeminiProvider",
        base_url="https://generativelanguage.googleapis.com/v1beta",
        aliases=("googleai",),
        api_key_env=("GOOGLE_API_KEY", "GOOGLE_GENERATIVE_AI_API_KEY"),
        prefixes=("gemini-",),
        default_model="gemini-3.5-flash-lite",
        generate_map={"imagen-*": "generate_images"},
        # Of addresses that say by their ending what is there: it wants to be told. No audio.
        takes_urls=("image", "file"),
        embed_batch_size=100,  # https://ai.google.dev/api/embeddings
        supports_caching=True,
    ),
    "vertex": ProviderConfig(
        # With a key, the address of express mode; a service account, whose file stands for the key, finds its own.
        display_name="Google Vertex AI",
        provider_class="llm_master.providers.vertex:VertexProvider",
        base_url="https://aiplatform.googleapis.com/v1beta1/publishers/google",
        aliases=("vertexai",),
        api_key_env=("VERTEXAI_API_KEY", "GOOGLE_APPLICATION_CREDENTIALS"),
        default_model="gemini-3.5-flash-lite",
        generate_map={"imagen-*": "generate_images"},
        takes_urls=("image", "file"),
        # https://cloud.google.com/vertex-ai/generative-ai/docs/embeddings/get-text-embeddings
        embed_batch_size=250,
        embed_batch_tokens=14_000,  # of 20,000
        supports_caching=True,
        scope="https://www.googleapis.com/auth/cloud-platform",
    ),
    "voyage": ProviderConfig(
        # Embeddings and rankings only.
        display_name="Voyage AI",
        base_url="https://api.voyageai.com/v1",
        api_key_env=("VOYAGE_AI_API_KEY",),
        prefixes=("voyage-", "rerank-2", "rerank-3"),
        paths={"rerank": "/rerank"},
        embed_batch_size=1000,  # https://docs.voyageai.com/reference/embeddings-api
        renames={"dimensions": "output_dimension", "top_n": "top_k"},
    ),
    "jina": ProviderConfig(
        # Embeddings and rankings only.
        display_name="Jina AI",
        base_url="https://api.jina.ai/v1",
        api_key_env=("JINA_AI_API_KEY",),
        prefixes=("jina-",),
        paths={"rerank": "/rerank"},
    ),
    "recraft": ProviderConfig(
        display_name="Recraft",
        base_url="https://external.api.recraft.ai/v1",
        api_key_env=("RECRAFT_API_TOKEN",),
        generate_map={
            "recraft-image-gen": "llm_master.generators.images:recraft_image",
            "recraft*": "llm_master.generators.images:recraft_image",
        },
    ),
    "bfl": ProviderConfig(
        display_name="Black Forest Labs",
        provider_class="llm_master.providers.bfl:BFLProvider",
        base_url="https://api.bfl.ai/v1",
        prefixes=("flux-",),
        default_model="flux-2-pro",
        # Of submitting and of all the asking until the image is there.
        timeout=300,
    ),
    "chutes": ProviderConfig(
        display_name="Chutes",
        base_url="https://llm.chutes.ai/v1",
        api_key_env=("CHUTES_API_TOKEN",),
        default_model="Qwen/Qwen3-32B-TEE",
    ),
    "ollama": ProviderConfig(
        display_name="Ollama",
        base_url="http://localhost:11434/v1",
        requires_key=False,
        takes_urls=(),  # https://docs.ollama.com/api/openai-compatibility
        skip_cost_calculation=True,
        renames={"max_completion_tokens": "max_tokens"},
    ),
    "vllm": ProviderConfig(
        display_name="vLLM",
        base_url="http://localhost:8000/v1",
        requires_key=False,
        skip_cost_calculation=True,
    ),
    "llamacpp": ProviderConfig(
        display_name="llama.cpp",
        base_url="http://localhost:8080/v1",
        api_key_env=("LLAMA_API_KEY",),
        requires_key=False,
        takes_urls=(),  # it may have been built without the means to fetch
        default_model="default",
        skip_cost_calculation=True,
    ),
    "lmstudio": ProviderConfig(
        display_name="LM Studio",
        base_url="http://localhost:1234/v1",
        api_key_env=("LM_API_TOKEN",),
        requires_key=False,
        takes_urls=(),
        skip_cost_calculation=True,
    ),
    "mock": ProviderConfig(
        display_name="Mock (embedded, no model)",
        provider_class="llm_master.providers.mock:MockProvider",
        prefixes=("mock-",),
        default_model="echo",
        requires_key=False,
        skip_cost_calculation=True,
    ),
}

MODERATION_MODEL = "openai/omni-moderation-latest"
"""Who judges where ``moderation=True`` and no other is set: it is free of charge, and knows images."""

PROVIDER_CONFIGS = ProviderTable(_ROWS, default_class=UnifiedProvider)
"""Every provider known, by name. Rows are frozen: ``attrs.evolve`` makes a changed one, and a new ``QueryLLM`` sees it."""

UnifiedProvider.PROVIDER_CONFIGS = PROVIDER_CONFIGS


class LLMConfig:
    """Settings: keys and addresses of providers, and how queries are made.

    Attributes are read from what was given here, else from the environment (and ``.env``), else from the table.
    For each row of ``PROVIDER_CONFIGS`` there are ``<name>_api_key`` and ``<name>_api_base``.

    Args:
        environment: Variables to read instead of the process environment and ``.env``; ``{}`` for none.
        **fields: ``<name>_api_key``, ``<name>_api_base``, ``preferred_provider``, ``default_model``, ``max_attempts``
            (sends of one query over everything), ``on_unsupported`` (``"error"``, or ``"drop"`` to leave out options that a
            provider does not take; the receipt lists them), ``moderation_model``, ``max_media_bytes`` (of one image or file
            that is sent), ``allow_private_urls`` (whether media may be fetched from private addresses), ``clock``.

    Raises:
        TypeError: A field that there is not.
        ConfigurationError: A value that cannot be one.
    """

    def __init__(self, *, environment: Mapping[str, str] | None = None, **fields: Any) -> None:
        known = self.field_names()
        for name in fields:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f"did you mean {near[0]!r}?" if near else "a provider must stand in PROVIDER_CONFIGS before its key is given"
                raise TypeError(f"LLMConfig has no field {name!r}: {hint}")
        attempts = fields.get("max_attempts", 1)
        if not isinstance(attempts, int) or isinstance(attempts, bool) or attempts < 1:
            raise ConfigurationError(f"max_attempts is {attempts!r}: give a whole number of at least 1")
        if fields.get("on_unsupported", "error") not in ("error", "drop"):
            raise ConfigurationError(f'on_unsupported is {fields["on_unsupported"]!r}: give "error" or "drop"')
        self._fields = fields
        self._environment = (
            None if environment is None else environment if isinstance(environment, Environment) else Environment(environment)
        )

    @classmethod
    def from_env(cls) -> LLMConfig:
        """The settings of the process environment and the ``.env`` of the working folder, as they are now."""
        return cls(environment=current_environment())

    @staticmethod
    def field_names() -> list[str]:
        """All fields, with those of the rows that the table holds now."""
        names = [field.name for field in attrs.fields(Options)]
        for row in PROVIDER_CONFIGS.values():
            names += [key_attr(row), f"{canonical(row.name)}_api_base"]
        return names

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in self._fields:
            return self._fields[name]
        environment = self.environment
        for row in PROVIDER_CONFIGS.values():
            if name == key_attr(row):
                keys = keys_of(row, self._fields, environment)
                return keys[0].secret if keys else None
            if name == f"{canonical(row.name)}_api_base":
                return base_url_of(row, self._fields, environment)
        if name in ("preferred_provider", "default_model"):
            found = environment.find(name.upper())
            return found[1] if found else None
        for field in attrs.fields(Options):
            if field.name == name:
                return field.default
        raise AttributeError(f"LLMConfig has no field {name!r}")

    def __repr__(self) -> str:
        # Neither keys nor addresses, which may hold one.
        return f"<LLMConfig: {', '.join(sorted(self._fields)) or 'nothing set here'}>"

    @property
    def environment(self) -> Environment:
        """The variables that these settings read."""
        return self._environment if self._environment is not None else current_environment()

    def replace(self, fields: Mapping[str, Any]) -> LLMConfig:
        """The same settings with some replaced."""
        return LLMConfig(environment=self._environment, **{**self._fields, **fields})

    def fingerprint(self) -> tuple[Any, ...]:
        """Equal for settings that were given equal fields; the environment is compared apart."""
        return tuple(sorted(((name, value) for name, value in self._fields.items()), key=lambda item: item[0]))

    def validate(self) -> dict[str, bool]:
        """Whether each provider could be asked: it has its key, or needs none, and has an address."""
        snapshot = effective(self)
        return {name: snapshot.usable(name) for name in snapshot.rows}


def effective(config: LLMConfig) -> Snapshot:
    """The rows one engine uses: arguments over environment over files over the table.

    Raises:
        ConfigurationError: A key or an address that cannot be one, naming the variable.
    """
    options = Options(**{field.name: getattr(config, field.name) for field in attrs.fields(Options)})
    return take(PROVIDER_CONFIGS.values(), config._fields, config.environment, options)
