"""The rows of ``PROVIDER_CONFIGS`` that come with the library. To add a provider, add one entry.

A row states only what differs from the defaults of :class:`~llm_master.rows.ProviderConfig`.
"""

from __future__ import annotations

from typing import Any

from llm_master.rows import ProviderConfig

_CHAT = ("chat", "streaming", "tools", "parallel_tools", "vision", "json_schema", "list_models")
"""What most of them do."""

_AWS: dict[str, Any] = {
    "api_key_env": ("AWS_BEARER_TOKEN_BEDROCK",),
    # In the order in which AWS's own libraries look at them.
    "ambient_keys": {
        "AWS_ACCESS_KEY_ID": "aws-keys:{AWS_ACCESS_KEY_ID}:{AWS_SECRET_ACCESS_KEY}[:{AWS_SESSION_TOKEN}]",
        "AWS_PROFILE": "aws-credentials:{AWS_PROFILE}",
        "AWS_ROLE_ARN": "aws-credentials",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "aws-credentials",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": "aws-credentials",
    },
    "field_env": {"region": ("AWS_REGION", "AWS_DEFAULT_REGION")},
}
"""How AWS is told who asks, and where."""

ROWS = {
    "openai": ProviderConfig(
        display_name="OpenAI",
        key_url="https://platform.openai.com/api-keys",
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
        capabilities=(*_CHAT, "json_mode", "reasoning", "audio_input", "pdf", "embedding", "moderation", "image_output", "speech"),
    ),
    "azure": ProviderConfig(
        # https://RESOURCE.openai.azure.com; a deployment's name is the model's. Deployments are often called as what they deploy.
        display_name="Azure OpenAI",
        key_url="https://portal.azure.com",
        telemetry_name="azure.ai.openai",
        provider_class="llm_master.providers.azure:AzureProvider",
        base_url_env=("AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_BASE_URL"),
        field_env={"query.api-version": ("AZURE_API_VERSION", "AZURE_OPENAI_API_VERSION", "OPENAI_API_VERSION")},
        api_key_env=("AZURE_OPENAI_API_KEY", "AZURE_OPENAI_AD_TOKEN"),
        # Who has set this up for Microsoft's own libraries has set it up for us.
        ambient_keys={"AZURE_CLIENT_ID": "entra-id", "AZURE_FEDERATED_TOKEN_FILE": "entra-id"},
        scope="https://cognitiveservices.azure.com/.default",
        paths={"key": "/models"},  # what could be deployed: not a list of deployments, but shown to a valid key only
        generate_map={
            "gpt-image-*": "llm_master.generators.images:openai_image",
            "dall-e-*": "llm_master.generators.images:openai_image",
            "tts-*": "speech",
            "gpt-4o-mini-tts": "speech",
            "gpt-4o-mini-tts-*": "speech",
            "responses/{model}": "llm_master.providers.azure:AzureResponsesProvider",
        },
        supports_caching=True,
        capabilities=(*[word for word in _CHAT if word != "list_models"], "json_mode", "reasoning", "embedding", "image_output", "speech"),
    ),
    "openrouter": ProviderConfig(
        display_name="OpenRouter",
        key_url="https://openrouter.ai/settings/keys",
        base_url="https://openrouter.ai/api/v1",
        takes_urls=("image", "file"),  # https://openrouter.ai/docs/features/multimodal/pdfs
        # Its list of models is for everybody: https://openrouter.ai/docs/api/api-reference/api-keys/get-current-key
        paths={"key": "/key"},
        default_model="openai/gpt-6-luna",
        # https://openrouter.ai/docs/api/reference/responses/overview
        generate_map={"responses/{model}": "llm_master.generators.responses:responses"},
        # Signed thoughts, which tool calls need; files that it has read need not be read again.
        returns=("reasoning_details", "annotations"),
        supports_caching=True,
        capabilities=(*_CHAT, "json_mode", "reasoning", "audio_input", "pdf", "embedding"),
    ),
    "groq": ProviderConfig(
        display_name="Groq",
        key_url="https://console.groq.com/keys",
        base_url="https://api.groq.com/openai/v1",
        default_model="openai/gpt-oss-20b",
        # https://console.groq.com/docs/responses-api
        generate_map={"responses/{model}": "llm_master.generators.responses:open_responses"},
        # Schemas are for the models that its guide lists, JSON mode is for all: https://console.groq.com/docs/structured-outputs
        structured_output="json_object",
        capabilities=("chat", "streaming", "tools", "parallel_tools", "vision", "json_mode", "reasoning", "list_models"),
    ),
    "mistral": ProviderConfig(
        display_name="Mistral",
        key_url="https://console.mistral.ai/api-keys",
        telemetry_name="mistral_ai",
        provider_class="llm_master.providers.mistral:MistralProvider",
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
        returns=("content",),  # with its thoughts: https://docs.mistral.ai/capabilities/reasoning
        # Of inputs it refuses more than 256, and more than 16,384 tokens together.
        embed_batch_size=128,
        embed_batch_tokens=10_000,
        # It refuses fields that it does not know; a stream ends with its usage unasked.
        renames={"seed": "random_seed", "max_completion_tokens": "max_tokens", "stream_options": None},
        capabilities=(*_CHAT, "json_mode", "reasoning", "audio_input", "pdf", "embedding"),
    ),
    "deepseek": ProviderConfig(
        display_name="DeepSeek",
        key_url="https://platform.deepseek.com/api_keys",
        provider_class="llm_master.providers.thinking:ThinkingProvider",
        base_url="https://api.deepseek.com",
        prefixes=("deepseek-",),
        default_model="deepseek-flash",
        # https://api-docs.deepseek.com/api/create-response
        generate_map={"responses/{model}": "llm_master.generators.responses:open_responses"},
        returns=("reasoning_content",),
        # text and json_object are all that it takes: https://api-docs.deepseek.com/api/create-chat-completion
        structured_output="json_object",
        takes_urls=(),
        supports_caching=True,
        renames={"max_completion_tokens": "max_tokens"},
        capabilities=("chat", "streaming", "tools", "parallel_tools", "json_mode", "reasoning", "list_models"),
    ),
    "together": ProviderConfig(
        display_name="Together AI",
        key_url="https://api.together.ai/settings/api-keys",
        base_url="https://api.together.xyz/v1",
        api_key_env=("TOGETHERAI_API_KEY", "TOGETHER_AI_API_KEY"),
        default_model="openai/gpt-oss-120b",
        capabilities=(*_CHAT, "json_mode", "reasoning", "embedding", "rerank"),
    ),
    "fireworks": ProviderConfig(
        display_name="Fireworks AI",
        key_url="https://app.fireworks.ai/settings/users/api-keys",
        base_url="https://api.fireworks.ai/inference/v1",
        api_key_env=("FIREWORKS_AI_API_KEY",),
        prefixes=("accounts/fireworks/",),
        default_model="accounts/fireworks/models/gpt-oss-120b",
        capabilities=(*_CHAT, "json_mode", "reasoning", "embedding"),
        # https://docs.fireworks.ai/guides/response-api
        generate_map={"responses/{model}": "llm_master.generators.responses:open_responses"},
    ),
    "perplexity": ProviderConfig(
        display_name="Perplexity",
        key_url="https://www.perplexity.ai/settings/api",
        base_url="https://api.perplexity.ai",
        api_key_env=("PPLX_API_KEY", "PERPLEXITYAI_API_KEY"),
        prefixes=("sonar", "pplx-"),
        paths={"models": "https://api.perplexity.ai/v1/models"},  # https://docs.perplexity.ai/api-reference/models-get
        default_model="sonar",
        capabilities=("chat", "streaming", "vision", "json_schema", "reasoning"),
        generate_map={"responses/{model}": "llm_master.providers.perplexity:PerplexityResponsesProvider"},
        reasoning_tag="think",  # https://docs.perplexity.ai/getting-started/models/models/sonar-reasoning-pro
    ),
    "cerebras": ProviderConfig(
        display_name="Cerebras",
        key_url="https://cloud.cerebras.ai",
        base_url="https://api.cerebras.ai/v1",
        default_model="gpt-oss-120b",
        takes_urls=(),
        capabilities=("chat", "streaming", "tools", "parallel_tools", "json_schema", "json_mode", "reasoning", "list_models"),
    ),
    "xai": ProviderConfig(
        display_name="xAI",
        key_url="https://console.x.ai",
        telemetry_name="x_ai",
        base_url="https://api.x.ai/v1",
        api_key_env=("GROK_API_KEY",),
        prefixes=("grok-",),
        default_model="grok-4.3",
        generate_map={"responses/{model}": "llm_master.providers.xai:XAIResponsesProvider"},
        supports_caching=True,
        capabilities=(*_CHAT, "json_mode", "reasoning"),
    ),
    "moonshot": ProviderConfig(
        display_name="Moonshot AI",
        key_url="https://platform.moonshot.ai/console/api-keys",
        provider_class="llm_master.providers.thinking:ThinkingProvider",
        base_url="https://api.moonshot.ai/v1",
        api_key_env=("KIMI_API_KEY",),
        prefixes=("kimi-", "moonshot-"),
        default_model="kimi-k2.6",
        returns=("reasoning_content",),
        # Images as base64 or as uploaded files: https://platform.kimi.ai/docs/guide/use-kimi-vision-model
        takes_urls=(),
        # Of older models only JSON mode is documented.
        structured_output="json_object",
        supports_caching=True,
        capabilities=("chat", "streaming", "tools", "parallel_tools", "vision", "json_mode", "list_models"),
    ),
    "zai": ProviderConfig(
        display_name="Z.ai",
        key_url="https://z.ai/manage-apikey/apikey-list",
        base_url="https://api.z.ai/api/paas/v4",
        api_key_env=("Z_AI_API_KEY", "ZHIPUAI_API_KEY"),
        prefixes=("glm-",),
        default_model="glm-5.3-flash",
        returns=("reasoning_content",),  # https://docs.z.ai/guides/capabilities/thinking-mode
        # https://docs.z.ai/guides/capabilities/struct-output
        structured_output="json_object",
        supports_caching=True,
        renames={"max_completion_tokens": "max_tokens"},
        capabilities=("chat", "streaming", "tools", "parallel_tools", "vision", "json_mode", "list_models"),
    ),
    "nvidia": ProviderConfig(
        display_name="NVIDIA NIM",
        key_url="https://build.nvidia.com/settings/api-keys",
        base_url="https://integrate.api.nvidia.com/v1",
        api_key_env=("NVIDIA_NIM_API_KEY", "NGC_API_KEY"),
        default_model="openai/gpt-oss-120b",
        capabilities=(*_CHAT, "embedding"),
    ),
    "huggingface": ProviderConfig(
        display_name="Hugging Face",
        key_url="https://huggingface.co/settings/tokens",
        base_url="https://router.huggingface.co/v1",
        api_key_env=("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACEHUB_API_TOKEN"),
        # The router's list of models is for everybody: https://huggingface.co/docs/hub/api
        paths={"key": "https://huggingface.co/api/whoami-v2"},
        default_model="openai/gpt-oss-120b",
        capabilities=(*_CHAT, "json_mode"),
        # https://huggingface.co/docs/inference-providers/guides/responses-api
        generate_map={"responses/{model}": "llm_master.generators.responses:open_responses"},
    ),
    "cohere": ProviderConfig(
        display_name="Cohere",
        key_url="https://dashboard.cohere.com/api-keys",
        provider_class="llm_master.providers.cohere:CohereProvider",
        base_url="https://api.cohere.com",
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
        embed_batch_size=96,  # https://docs.cohere.com/reference/embed
        capabilities=(*_CHAT, "json_mode", "reasoning", "embedding", "rerank"),
    ),
    "anthropic": ProviderConfig(
        display_name="Anthropic",
        key_url="https://console.anthropic.com/settings/keys",
        provider_class="llm_master.providers.anthropic:AnthropicProvider",
        base_url="https://api.anthropic.com/v1",
        api_key_env=("CLAUDE_API_KEY",),
        prefixes=("claude-",),
        default_model="claude-haiku-5-5",
        takes_urls=("image", "file"),  # https://platform.claude.com/docs/en/build-with-claude/pdf-support
        supports_caching=True,
        capabilities=(*_CHAT, "reasoning", "pdf", "count_tokens"),
    ),
    "gemini": ProviderConfig(
        display_name="Google Gemini",
        key_url="https://aistudio.google.com/apikey",
        telemetry_name="gcp.gemini",
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
        capabilities=(*_CHAT, "json_mode", "reasoning", "audio_input", "video_input", "pdf", "embedding", "image_output", "count_tokens"),
    ),
    "vertex": ProviderConfig(
        # With a key, the address of express mode; a service account, whose file stands for the key, finds its own.
        display_name="Google Vertex AI",
        key_url="https://console.cloud.google.com/apis/credentials",
        telemetry_name="gcp.vertex_ai",
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
        capabilities=(
            *(word for word in _CHAT if word != "list_models"),
            "json_mode",
            "reasoning",
            "audio_input",
            "video_input",
            "pdf",
            "embedding",
            "image_output",
            "count_tokens",
        ),
    ),
    "bedrock": ProviderConfig(
        display_name="Amazon Bedrock",
        key_url="https://console.aws.amazon.com/bedrock",
        telemetry_name="aws.bedrock",
        provider_class="llm_master.providers.bedrock:BedrockProvider",
        base_url="https://bedrock-runtime.{region}.amazonaws.com",
        base_url_env=("AWS_ENDPOINT_URL_BEDROCK_RUNTIME",),
        prefixes=("anthropic.claude-", "us.anthropic.", "eu.anthropic.", "apac.anthropic.", "global.anthropic.", "amazon.nova-"),
        takes_urls=(),  # of those only s3://
        # Schemas are for newer models only: https://docs.aws.amazon.com/bedrock/latest/userguide/structured-output.html
        structured_output="tool",
        supports_caching=True,
        capabilities=(
            *("chat", "streaming", "tools", "parallel_tools", "vision"),
            *("audio_input", "video_input", "pdf", "reasoning", "count_tokens"),
        ),
        **_AWS,
    ),
    "bedrock_openai": ProviderConfig(
        # The models that it serves by OpenAI's API: https://docs.aws.amazon.com/bedrock/latest/userguide/inference-chat-completions.html
        display_name="Amazon Bedrock (OpenAI's API)",
        telemetry_name="aws.bedrock",
        provider_class="llm_master.providers.bedrock:BedrockChatProvider",
        base_url="https://bedrock-runtime.{region}.amazonaws.com/openai/v1",
        generate_map={"responses/{model}": "llm_master.providers.bedrock:BedrockResponsesProvider"},
        takes_urls=(),
        capabilities=("chat", "streaming", "tools", "parallel_tools", "vision", "json_schema", "json_mode", "reasoning"),
        **_AWS,
    ),
    "gigachat": ProviderConfig(
        # The key is the authorization key, for which access tokens are fetched, or an access token.
        # base_url .../api/v2 is the second version of its chat API.
        display_name="GigaChat",
        provider_class="llm_master.providers.gigachat:GigaChatProvider",
        base_url="https://gigachat.devices.sberbank.ru/api/v1",
        api_key_env=("GIGACHAT_CREDENTIALS", "GIGACHAT_ACCESS_TOKEN"),
        # Not the bare name, which is the provider's as well: its default model is called so.
        prefixes=("GigaChat-", "GigaEmbeddings-", "EmbeddingsGigaR"),
        default_model="GigaChat",
        key_url="https://developers.sber.ru/studio/",
        paths={"oauth": "https://ngw.devices.sberbank.ru:9443/api/v2/oauth"},
        scope="GIGACHAT_API_PERS",
        takes_urls=(),
        # Images are uploaded first, and no turn holds more than one call.
        capabilities=("chat", "streaming", "tools", "reasoning", "embedding", "list_models", "count_tokens"),
        # Of which models hold to a schema is not said; all of them call functions.
        structured_output="tool",
        supports_caching=True,
        currency="RUB",
    ),
    "yandex": ProviderConfig(
        # The key is an API key or an IAM token; the folder in which models are asked is the row's.
        display_name="YandexGPT",
        provider_class="llm_master.providers.yandex:YandexProvider",
        base_url="https://llm.api.cloud.yandex.net/foundationModels/v1",
        default_path="/foundationModels/v1",
        aliases=("yandexgpt",),
        api_key_env=("YANDEX_IAM_TOKEN",),
        prefixes=("yandexgpt", "aliceai-", "gpt://", "ds://", "emb://", "text-search-"),
        default_model="yandexgpt-lite",
        key_url="https://yandex.cloud/en/docs/ai-studio/api-ref/authentication",
        takes_urls=(),
        embed_batch_size=1,
        capabilities=(
            "chat",
            "streaming",
            "tools",
            "parallel_tools",
            "json_schema",
            "json_mode",
            "reasoning",
            "embedding",
            "count_tokens",
        ),
        currency="RUB",
    ),
    "voyage": ProviderConfig(
        # Embeddings and rankings only.
        display_name="Voyage AI",
        key_url="https://dashboard.voyageai.com",
        base_url="https://api.voyageai.com/v1",
        api_key_env=("VOYAGE_AI_API_KEY",),
        prefixes=("voyage-", "rerank-2", "rerank-3"),
        paths={"rerank": "/rerank"},
        embed_batch_size=1000,  # https://docs.voyageai.com/reference/embeddings-api
        renames={"dimensions": "output_dimension", "top_n": "top_k"},
        capabilities=("embedding", "rerank"),
    ),
    "jina": ProviderConfig(
        # Embeddings and rankings only.
        display_name="Jina AI",
        key_url="https://jina.ai/api-dashboard",
        base_url="https://api.jina.ai/v1",
        api_key_env=("JINA_AI_API_KEY",),
        prefixes=("jina-",),
        paths={"rerank": "/rerank"},
        capabilities=("embedding", "rerank"),
    ),
    "recraft": ProviderConfig(
        display_name="Recraft",
        key_url="https://www.recraft.ai/profile/api",
        base_url="https://external.api.recraft.ai/v1",
        api_key_env=("RECRAFT_API_TOKEN",),
        generate_map={
            "recraft-image-gen": "llm_master.generators.images:recraft_image",
            "recraft*": "llm_master.generators.images:recraft_image",
        },
        capabilities=("image_output",),
    ),
    "bfl": ProviderConfig(
        display_name="Black Forest Labs",
        key_url="https://dashboard.bfl.ai",
        provider_class="llm_master.providers.bfl:BFLProvider",
        base_url="https://api.bfl.ai/v1",
        prefixes=("flux-",),
        default_model="flux-2-pro",
        # Of submitting and of all the asking until the image is there.
        timeout=300,
        capabilities=("image_output",),
    ),
    "chutes": ProviderConfig(
        display_name="Chutes",
        key_url="https://chutes.ai/app/api",
        base_url="https://llm.chutes.ai/v1",
        api_key_env=("CHUTES_API_TOKEN",),
        default_model="Qwen/Qwen3-32B-TEE",
        capabilities=("chat", "streaming", "tools", "parallel_tools", "json_schema", "json_mode", "list_models"),
    ),
    "ollama": ProviderConfig(
        display_name="Ollama",
        start_command="ollama serve",
        base_url="http://localhost:11434/v1",
        base_url_env=("OLLAMA_HOST",),
        default_path="/v1",
        requires_key=False,
        # https://docs.ollama.com/api/openai-compatibility
        generate_map={"responses/{model}": "llm_master.generators.responses:open_responses"},
        takes_urls=(),  # https://docs.ollama.com/api/openai-compatibility
        skip_cost_calculation=True,
        renames={"max_completion_tokens": "max_tokens"},
        capabilities=(*_CHAT, "json_mode", "reasoning", "embedding"),
    ),
    "ollama_chat": ProviderConfig(
        # The same server, by its own API.
        display_name="Ollama (own API)",
        start_command="ollama serve",
        telemetry_name="ollama",
        provider_class="llm_master.providers.ollama:OllamaProvider",
        base_url="http://localhost:11434",
        base_url_env=("OLLAMA_HOST",),
        api_key_env=("OLLAMA_API_KEY",),
        requires_key=False,
        takes_urls=(),  # https://docs.ollama.com/capabilities/vision
        capabilities=(*_CHAT, "json_mode", "reasoning", "embedding"),
        skip_cost_calculation=True,
    ),
    "vllm": ProviderConfig(
        display_name="vLLM",
        start_command="vllm serve MODEL",
        base_url="http://localhost:8000/v1",
        default_path="/v1",
        requires_key=False,
        # https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html
        generate_map={"responses/{model}": "llm_master.generators.responses:open_responses"},
        skip_cost_calculation=True,
        capabilities=(*_CHAT, "json_mode", "reasoning", "embedding"),
    ),
    "llamacpp": ProviderConfig(
        display_name="llama.cpp",
        start_command="llama-server -m MODEL.gguf",
        base_url="http://localhost:8080/v1",
        default_path="/v1",
        api_key_env=("LLAMA_API_KEY",),
        requires_key=False,
        generate_map={"responses/{model}": "llm_master.generators.responses:open_responses"},
        takes_urls=(),  # it may have been built without the means to fetch
        default_model="default",
        skip_cost_calculation=True,
        capabilities=(*_CHAT, "json_mode", "reasoning", "embedding"),
    ),
    "lmstudio": ProviderConfig(
        display_name="LM Studio",
        start_command="lms server start",
        base_url="http://localhost:1234/v1",
        default_path="/v1",
        api_key_env=("LM_API_TOKEN",),
        requires_key=False,
        # https://lmstudio.ai/docs/developer/openai-compat/responses
        generate_map={"responses/{model}": "llm_master.generators.responses:open_responses"},
        takes_urls=(),
        skip_cost_calculation=True,
        capabilities=(*_CHAT, "embedding"),
    ),
    "openai_compatible": ProviderConfig(
        # Whatever OPENAI_COMPATIBLE_BASE_URL names; what it is called follows from the address.
        display_name="OpenAI Compatible",
        display_names={
            "openrouter.ai": "OpenRouter",
            "api.openai.com": "OpenAI",
            "together.ai": "Together AI",
            "together.xyz": "Together AI",
            "azure.com": "Azure OpenAI",
        },
        host_classes={"azure.com": "llm_master.providers.azure:AzureProvider"},
        field_env={"query.api-version": ("OPENAI_COMPATIBLE_API_VERSION",)},
        requires_key=False,
        capabilities=(*_CHAT, "json_mode", "embedding"),
    ),
    "local": ProviderConfig(
        # The variables that tools for OpenAI's API know, when they are set to another server.
        display_name="Local",
        base_url_env=("OPENAI_BASE_URL",),
        api_key_env=("OPENAI_API_KEY",),
        requires_key=False,
        skip_cost_calculation=True,
        capabilities=(*_CHAT, "json_mode", "embedding"),
    ),
    "gguf": ProviderConfig(
        # gguf/PATH: a model file, answered by llama.cpp in a process of ours.
        display_name="GGUF file (embedded llama.cpp)",
        start_command="llm-master query -m gguf/PATH",
        provider_class="llm_master.providers.gguf:GGUFProvider",
        requires_key=False,
        takes_urls=(),
        embed_batch_size=64,
        skip_cost_calculation=True,
        renames={"num_ctx": "n_ctx"},
        capabilities=("chat", "streaming", "tools", "json_schema", "json_mode", "embedding", "list_models", "count_tokens"),
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
