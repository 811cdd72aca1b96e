"""From what providers really answer to the error that it means."""

from __future__ import annotations

import json
from email.utils import formatdate

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from llm_master.errors import (
    AuthenticationError,
    ContentPolicyError,
    ContextWindowExceededError,
    InsufficientFundsError,
    InvalidRequestError,
    ModelNotFoundError,
    PermissionDeniedError,
    ProviderConnectionError,
    ProviderError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
)
from llm_master.providers import sdk
from llm_master.providers.failures import Failure, classify, duration, error_of, failure_of, read_failure, request_id, retry_after

NOW = 1_800_000_000.0


def headers(**fields: str) -> CIMultiDictProxy[str]:
    """Headers as aiohttp hands them over: found in any case."""
    return CIMultiDictProxy(CIMultiDict({name.replace("_", "-"): value for name, value in fields.items()}))


def error_for(status, body, **fields) -> ProviderError:
    raw = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else json.dumps(body).encode()
    return error_of(status, headers(**fields), read_failure(raw), model="m", url="https://api.acme.ai/v1/chat/completions")


def openai_shape(message, type=None, code=None, param=None):
    return {"error": {"message": message, "type": type, "param": param, "code": code}}


# What providers answer: status, body, error. The name before the dot is only for people.
REAL = {
    # OpenAI
    "openai.key": (401, openai_shape("Incorrect API key provided: sk-x.", "invalid_request_error", "invalid_api_key"), AuthenticationError),
    "openai.quota": (
        429,
        openai_shape(
            "You exceeded your current quota, please check your plan and billing details.", "insufficient_quota", "insufficient_quota"
        ),
        InsufficientFundsError,
    ),
    "openai.hard_limit": (
        400,
        openai_shape("Billing hard limit has been reached", "invalid_request_error", "billing_hard_limit_reached"),
        InsufficientFundsError,
    ),
    "openai.rate": (
        429,
        openai_shape(
            "Rate limit reached for gpt-4.1 in organization org-x on tokens per min (TPM): Limit 30000, Used 29000. Please try again in 1.2s.",
            "tokens",
            "rate_limit_exceeded",
        ),
        RateLimitError,
    ),
    "openai.too_large_for_tpm": (
        429,
        openai_shape(
            "Request too large for gpt-4.1 on tokens per min (TPM): Limit 30000, Requested 40000.", "tokens", "rate_limit_exceeded"
        ),
        RateLimitError,
    ),
    "openai.context": (
        400,
        openai_shape(
            "This model's maximum context length is 128000 tokens. However, your messages resulted in 130000 tokens.",
            "invalid_request_error",
            "context_length_exceeded",
            "messages",
        ),
        ContextWindowExceededError,
    ),
    "openai.policy": (
        400,
        openai_shape(
            "Invalid prompt: your prompt was flagged as potentially violating our usage policy.", "invalid_request_error", "invalid_prompt"
        ),
        ContentPolicyError,
    ),
    "openai.policy_code": (
        400,
        openai_shape("Your request was rejected.", "invalid_request_error", "content_policy_violation"),
        ContentPolicyError,
    ),
    "openai.model": (
        404,
        openai_shape("The model `gpt-9` does not exist or you do not have access to it.", "invalid_request_error", "model_not_found"),
        ModelNotFoundError,
    ),
    "openai.parameter": (
        400,
        openai_shape(
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
            "invalid_request_error",
            "unsupported_parameter",
            "max_tokens",
        ),
        InvalidRequestError,
    ),
    "openai.temperature": (
        400,
        openai_shape(
            "Unsupported value: 'temperature' does not support 0.2 with this model. Only the default (1) value is supported.",
            "invalid_request_error",
            "unsupported_value",
            "temperature",
        ),
        InvalidRequestError,
    ),
    "openai.long_user": (
        400,
        openai_shape(
            "Invalid 'user': string too long. Expected a string with maximum length 64, but got a string with length 90 instead.",
            "invalid_request_error",
            "string_above_max_length",
            "user",
        ),
        InvalidRequestError,
    ),
    "openai.country": (
        403,
        openai_shape("Country, region, or territory not supported", "request_forbidden", "unsupported_country_region_territory"),
        PermissionDeniedError,
    ),
    "openai.server": (500, openai_shape("The server had an error while processing your request.", "server_error"), ServerError),
    "openai.overloaded": (503, openai_shape("That model is currently overloaded with other requests.", "server_error"), ServerError),
    # Azure
    "azure.policy": (
        400,
        {
            "error": {
                "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
                "type": None,
                "param": "prompt",
                "code": "content_filter",
                "status": 400,
                "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {"hate": {"filtered": True}}},
            }
        },
        ContentPolicyError,
    ),
    "azure.policy_inner_only": (
        400,
        {"error": {"message": "Refused.", "code": "x", "innererror": {"code": "ResponsibleAIPolicyViolation"}}},
        ContentPolicyError,
    ),
    "azure.deployment": (
        404,
        {"error": {"code": "DeploymentNotFound", "message": "The API deployment for this resource does not exist."}},
        ModelNotFoundError,
    ),
    "azure.gateway": (
        401,
        {"statusCode": 401, "message": "Access denied due to invalid subscription key or wrong API endpoint."},
        AuthenticationError,
    ),
    # OpenRouter: the code is a number, and there is no type
    "openrouter.funds": (
        402,
        {
            "error": {
                "message": "Insufficient credits. Add more using https://openrouter.ai/settings/credits",
                "code": 402,
                "metadata": {"limit_source": "openrouter_credits", "remedy_hint": "..."},
            }
        },
        InsufficientFundsError,
    ),
    "openrouter.afford": (
        402,
        {
            "error": {
                "message": "This request requires more credits, or fewer max_tokens. You requested up to 65536 tokens, but can only afford 1200.",
                "code": 402,
            }
        },
        InsufficientFundsError,
    ),
    "openrouter.key_limit": (
        402,
        {"error": {"message": "Prompt tokens limit exceeded: 30000 > 20000", "code": 402}},
        InsufficientFundsError,
    ),
    "openrouter.model": (400, {"error": {"message": "acme/large is not a valid model ID", "code": 400}}, ModelNotFoundError),
    "openrouter.no_endpoint": (404, {"error": {"message": "No endpoints found for acme/large.", "code": 404}}, ModelNotFoundError),
    "openrouter.policy": (
        403,
        {
            "error": {
                "message": "Your chosen model requires moderation and your input was flagged",
                "code": 403,
                "metadata": {"reasons": ["violence"], "flagged_input": "..."},
            }
        },
        ContentPolicyError,
    ),
    "openrouter.upstream_rate": (
        429,
        {
            "error": {
                "message": "Provider returned error",
                "code": 429,
                "metadata": {"provider_name": "Acme", "raw": "acme/large:free is temporarily rate-limited upstream."},
            }
        },
        RateLimitError,
    ),
    "openrouter.upstream_context": (
        400,
        {
            "error": {
                "message": "Provider returned error",
                "code": 400,
                "metadata": {"raw": '{"error":{"message":"prompt is too long: 210000 tokens > 200000 maximum"}}', "provider_name": "Acme"},
            }
        },
        ContextWindowExceededError,
    ),
    "openrouter.200": (200, {"error": {"message": "Provider returned error", "code": 502}}, ServerError),
    "openrouter.200_rate": (200, {"error": {"message": "Rate limit exceeded: free-models-per-day", "code": 429}}, RateLimitError),
    # Groq
    "groq.model": (
        404,
        openai_shape(
            "The model `llama-3.3-70b-versatile` does not exist or you do not have access to it.",
            "invalid_request_error",
            "model_not_found",
        ),
        ModelNotFoundError,
    ),
    "groq.decommissioned": (
        400,
        openai_shape(
            "The model `mixtral-8x7b-32768` has been decommissioned and is no longer supported.",
            "invalid_request_error",
            "model_decommissioned",
        ),
        ModelNotFoundError,
    ),
    "groq.context": (
        400,
        openai_shape("Please reduce the length of the messages or completion.", "invalid_request_error", "context_length_exceeded"),
        ContextWindowExceededError,
    ),
    # More than the whole limit of a minute: no wait makes it fit, so it is no rate limit to wait for.
    "groq.413_is_never_going_to_fit": (
        413,
        openai_shape(
            "Request too large for model `openai/gpt-oss-20b` in organization `org_x` service tier `on_demand` on tokens per minute (TPM): "
            "Limit 8000, Requested 13000, please reduce your message size and try again.",
            "tokens",
            "rate_limit_exceeded",
        ),
        InvalidRequestError,
    ),
    "groq.tool": (
        400,
        {
            "error": {
                "message": "Failed to call a function. Please adjust your prompt. See 'failed_generation' for more details.",
                "type": "invalid_request_error",
                "code": "tool_use_failed",
                "failed_generation": "<function>",
            }
        },
        InvalidRequestError,
    ),
    # Mistral: three shapes
    "mistral.extra": (
        422,
        {
            "object": "error",
            "message": {
                "detail": [
                    {
                        "type": "extra_forbidden",
                        "loc": ["body", "stream_options", "include_usage"],
                        "msg": "Extra inputs are not permitted",
                        "input": True,
                    }
                ]
            },
            "type": "invalid_request_error",
            "param": None,
            "code": None,
        },
        InvalidRequestError,
    ),
    "mistral.model": (
        400,
        {"object": "error", "message": "Invalid model: mistral-huge", "type": "invalid_model", "param": None, "code": "1500"},
        ModelNotFoundError,
    ),
    "mistral.key": (401, {"detail": "Unauthorized"}, AuthenticationError),
    "mistral.key_2": (401, {"message": "Unauthorized", "request_id": "abc"}, AuthenticationError),
    "mistral.capital": (
        422,
        {
            "object": "Error",
            "detail": [],
            "message": [{"msg": "Input should be a valid list"}],
            "type": "invalid_request_error",
            "code": 3001,
        },
        InvalidRequestError,
    ),
    "mistral.capacity": (
        429,
        {
            "object": "error",
            "message": "Service tier capacity exceeded for this model.",
            "type": "service_tier_capacity_exceeded",
            "code": "3505",
        },
        RateLimitError,
    ),
    "mistral.context": (
        400,
        {
            "object": "error",
            "message": "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context length",
            "type": "invalid_request_error",
            "code": "3051",
        },
        ContextWindowExceededError,
    ),
    # DeepSeek
    "deepseek.funds": (402, openai_shape("Insufficient Balance", "unknown_error", "invalid_request_error"), InsufficientFundsError),
    "deepseek.model": (400, openai_shape("Model Not Exist", "invalid_request_error", "invalid_request_error"), ModelNotFoundError),
    "deepseek.context": (
        400,
        openai_shape("This model's maximum context length is 131072 tokens. However, you requested 140000 tokens", "invalid_request_error"),
        ContextWindowExceededError,
    ),
    "deepseek.policy": (400, openai_shape("Content Exists Risk", "invalid_request_error", "invalid_request_error"), ContentPolicyError),
    "deepseek.parameters": (422, openai_shape("Failed to deserialize the JSON body", "invalid_request_error"), InvalidRequestError),
    # Together
    "together.context": (
        422,
        {
            "id": "x",
            "error": {
                "message": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8193. Given: 9000 `inputs` tokens and 512 `max_new_tokens`",
                "type": "invalid_request_error",
                "param": None,
                "code": None,
            },
        },
        ContextWindowExceededError,
    ),
    "together.model": (
        404,
        {
            "id": "x",
            "error": {"message": "Unable to access model acme/large.", "type": "invalid_request_error", "code": "model_not_available"},
        },
        ModelNotFoundError,
    ),
    "together.funds": (
        402,
        {"id": "x", "error": {"message": "Credit limit exceeded", "type": "credit_limit", "code": None}},
        InsufficientFundsError,
    ),
    # Fireworks
    "fireworks.context": (
        400,
        {
            "error": {
                "object": "error",
                "type": "invalid_request_error",
                "code": "invalid_request_error",
                "message": "The prompt is too long: 140000, model maximum context length: 131071",
            }
        },
        ContextWindowExceededError,
    ),
    "fireworks.model": (
        404,
        {
            "error": {
                "object": "error",
                "type": "invalid_request_error",
                "code": "NOT_FOUND",
                "message": "Model not found, inaccessible, and/or not deployed",
            }
        },
        ModelNotFoundError,
    ),
    "fireworks.key": (401, {"error": "unauthorized"}, AuthenticationError),
    "fireworks.fault": (
        401,
        {"fault": {"faultstring": "Invalid ApiKey", "detail": {"errorcode": "oauth.v2.InvalidApiKey"}}},
        AuthenticationError,
    ),
    # Perplexity
    "perplexity.model": (
        400,
        {
            "error": {
                "message": "Invalid model 'x'. Permitted models can be found in the documentation.",
                "type": "invalid_model",
                "code": 400,
            }
        },
        ModelNotFoundError,
    ),
    "perplexity.key": (
        401,
        "<html>\r\n<head><title>401 Authorization Required</title></head><body><center><h1>401 Authorization Required</h1></center></body></html>",
        AuthenticationError,
    ),
    "perplexity.funds": (
        401,
        openai_shape("You exceeded your current quota, please check your plan and billing details.", "insufficient_quota", 401),
        InsufficientFundsError,
    ),
    # Cerebras: flat
    "cerebras.context": (
        400,
        {
            "message": "Please reduce the length of the messages or completion. Current length is 9000 while limit is 8192",
            "type": "invalid_request_error",
            "param": "messages",
            "code": "context_length_exceeded",
        },
        ContextWindowExceededError,
    ),
    "cerebras.context_text": (
        400,
        {"message": "Current length is 9000 while limit is 8192", "type": "invalid_request_error", "param": "messages", "code": "wrong"},
        ContextWindowExceededError,
    ),
    "cerebras.model": (
        404,
        {
            "message": "Model x does not exist or you do not have access to it.",
            "type": "not_found_error",
            "param": "model",
            "code": "model_not_found",
        },
        ModelNotFoundError,
    ),
    "cerebras.rate": (
        429,
        {
            "message": "Tokens per minute limit exceeded - too many tokens processed.",
            "type": "too_many_tokens_error",
            "code": "token_quota_exceeded",
        },
        RateLimitError,
    ),
    "cerebras.busy": (
        429,
        {
            "message": "We're experiencing high traffic right now!",
            "type": "too_many_requests_error",
            "param": "queue",
            "code": "queue_exceeded",
        },
        RateLimitError,
    ),
    "cerebras.funds": (
        402,
        {"message": "Payment required", "type": "payment_required", "code": "payment_required"},
        InsufficientFundsError,
    ),
    # xAI: code and error are both texts
    "xai.request": (
        400,
        {"code": "Client specified an invalid argument", "error": "The model expects a single `text` element per message."},
        InvalidRequestError,
    ),
    "xai.key": (
        400,
        {
            "code": "Client specified an invalid argument",
            "error": "Incorrect API key provided: xa***99. You can obtain an API key from the console.",
        },
        AuthenticationError,
    ),
    "xai.context": (
        400,
        {
            "code": "Client specified an invalid argument",
            "error": "This model's maximum prompt length is 131072 but the request contains 136973 tokens.",
        },
        ContextWindowExceededError,
    ),
    "xai.model": (
        404,
        {
            "code": "Some requested entity was not found",
            "error": "The model grok-9 does not exist or your team does not have access to it.",
        },
        ModelNotFoundError,
    ),
    "xai.no_credits": (
        403,
        {
            "code": "The caller does not have permission to execute the specified operation",
            "error": "Your newly created teams doesn't have any credits yet. You can purchase credits on the console.",
        },
        InsufficientFundsError,
    ),
    "xai.spent": (
        429,
        {
            "code": "Some resource has been exhausted",
            "error": "Your team has either used all available credits or reached its monthly spending limit.",
        },
        InsufficientFundsError,
    ),
    "xai.policy": (
        403,
        {"code": "The caller does not have permission to execute the specified operation", "error": "Content violates usage guidelines."},
        ContentPolicyError,
    ),
    # Moonshot: a type, and no code
    "moonshot.policy": (
        400,
        {"error": {"type": "content_filter", "message": "The request was rejected because it was considered high risk"}},
        ContentPolicyError,
    ),
    "moonshot.context": (
        400,
        {"error": {"type": "invalid_request_error", "message": "Input token length too long"}},
        ContextWindowExceededError,
    ),
    "moonshot.context_2": (
        400,
        {
            "error": {
                "type": "invalid_request_error",
                "message": "Invalid request: Your request exceeded model token limit: 262144 (requested: 269030)",
            }
        },
        ContextWindowExceededError,
    ),
    "moonshot.key": (401, {"error": {"type": "invalid_authentication_error", "message": "Invalid Authentication"}}, AuthenticationError),
    "moonshot.funds": (
        429,
        {
            "error": {
                "type": "exceeded_current_quota_error",
                "message": "Your account is suspended, please check your plan and billing details",
            }
        },
        InsufficientFundsError,
    ),
    "moonshot.funds_403": (
        403,
        {"error": {"type": "exceeded_current_quota_error", "message": "You exceeded your current token quota"}},
        InsufficientFundsError,
    ),
    "moonshot.model": (
        404,
        {"error": {"type": "resource_not_found_error", "message": "Not found the model kimi-9 or Permission denied"}},
        ModelNotFoundError,
    ),
    "moonshot.busy": (
        429,
        {"error": {"type": "engine_overloaded_error", "message": "The engine is currently overloaded, please try again later"}},
        RateLimitError,
    ),
    "moonshot.rate": (
        429,
        {
            "error": {
                "type": "rate_limit_reached_error",
                "message": "Your account request reached max request: 3, please try again after 1 seconds",
            }
        },
        RateLimitError,
    ),
    # Z.ai: the code is a number in a text, and 429 means many things
    "zai.funds": (
        429,
        {"error": {"code": "1113", "message": "Insufficient balance or no resource package. Please recharge."}},
        InsufficientFundsError,
    ),
    "zai.model": (400, {"error": {"code": "1211", "message": "Unknown Model, please check the model code."}}, ModelNotFoundError),
    "zai.context": (400, {"error": {"code": "1261", "message": "Prompt exceeds max length"}}, ContextWindowExceededError),
    "zai.policy": (400, {"error": {"code": "1301", "message": "The system detected potentially unsafe content"}}, ContentPolicyError),
    "zai.rate": (429, {"error": {"code": "1302", "message": "High concurrency usage of this API"}}, RateLimitError),
    "zai.key": (401, {"error": {"code": "1000", "message": "Authentication failed"}}, AuthenticationError),
    # NVIDIA: problem details
    "nvidia.model": (
        404,
        {"status": 404, "title": "Not Found", "detail": "Function '23d4f03a': Not found for account 'Qaw'"},
        ModelNotFoundError,
    ),
    "nvidia.removed": (410, {"status": 410, "title": "Gone", "detail": "The model has reached its end of life"}, ModelNotFoundError),
    "nvidia.path": (404, "404 page not found", ModelNotFoundError),
    "nvidia.validation": (
        422,
        {"detail": [{"loc": ["body", "messages"], "msg": "Field required", "type": "missing"}]},
        InvalidRequestError,
    ),
    "nvidia.funds": (402, {"detail": "Cloud credits expired - Please contact NVIDIA representatives"}, InsufficientFundsError),
    # Hugging Face: a text, or nested
    "huggingface.funds": (
        402,
        {"error": "You have exceeded your monthly included credits for Inference Providers. Subscribe to PRO to get 20x more."},
        InsufficientFundsError,
    ),
    "huggingface.model": (
        400,
        openai_shape(
            "The requested model 'x' is not supported by any provider you have enabled.",
            "invalid_request_error",
            "model_not_supported",
            "model",
        ),
        ModelNotFoundError,
    ),
    "huggingface.key": (401, {"error": "Invalid username or password."}, AuthenticationError),
    "huggingface.tgi": (
        422,
        {"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096.", "error_type": "validation"},
        ContextWindowExceededError,
    ),
    "huggingface.permission": (
        403,
        {"error": "This authentication method does not have sufficient permissions to call Inference Providers on behalf of user x"},
        PermissionDeniedError,
    ),
    # Cohere: flat, only a message
    "cohere.model": (
        404,
        {"id": "x", "message": "model 'x' not found, make sure the correct model ID was used and that you have access to the model."},
        ModelNotFoundError,
    ),
    "cohere.context": (
        400,
        {"id": "x", "message": "too many tokens: total number of tokens in the prompt cannot exceed 4081"},
        ContextWindowExceededError,
    ),
    "cohere.key": (401, {"id": "x", "message": "invalid api token"}, AuthenticationError),
    "cohere.trial": (
        429,
        {
            "id": "x",
            "message": "You are using a Trial key, which is limited to 40 API calls / minute. You can continue to use the Trial key for free.",
        },
        RateLimitError,
    ),
    "cohere.blocked": (498, {"id": "x", "message": "blocked output: the generated text was blocked"}, ContentPolicyError),
    # Gemini: in a list
    "gemini.field": (
        400,
        [
            {
                "error": {
                    "code": 400,
                    "message": 'Invalid JSON payload received. Unknown name "reasoning": Cannot find field.',
                    "status": "INVALID_ARGUMENT",
                    "details": [{"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [{"description": "x"}]}],
                }
            }
        ],
        InvalidRequestError,
    ),
    "gemini.key": (
        400,
        [
            {
                "error": {
                    "code": 400,
                    "message": "API key not valid. Please pass a valid API key.",
                    "status": "INVALID_ARGUMENT",
                    "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}],
                }
            }
        ],
        AuthenticationError,
    ),
    "gemini.context": (
        400,
        [
            {
                "error": {
                    "code": 400,
                    "message": "The input token count (2845475) exceeds the maximum number of tokens allowed (1048576).",
                    "status": "INVALID_ARGUMENT",
                }
            }
        ],
        ContextWindowExceededError,
    ),
    "gemini.model": (
        404,
        [{"error": {"code": 404, "message": "models/x is not found for API version v1beta", "status": "NOT_FOUND"}}],
        ModelNotFoundError,
    ),
    "gemini.rate": (
        429,
        [
            {
                "error": {
                    "code": 429,
                    "message": "You exceeded your current quota, please check your plan and billing details. Please retry in 34.07s.",
                    "status": "RESOURCE_EXHAUSTED",
                    "details": [
                        {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": []},
                        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34s"},
                    ],
                }
            }
        ],
        RateLimitError,
    ),
    "gemini.busy": (503, [{"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}], ServerError),
    "gemini.permission": (
        403,
        [{"error": {"code": 403, "message": "Permission denied on resource project x.", "status": "PERMISSION_DENIED"}}],
        PermissionDeniedError,
    ),
    # Chutes: detail
    "chutes.model": (404, {"detail": "model not found: x"}, ModelNotFoundError),
    "chutes.funds": (
        402,
        {"detail": {"message": "Quota exceeded and account balance is $0.0, please pay with fiat"}},
        InsufficientFundsError,
    ),
    "chutes.capacity": (429, {"detail": "Infrastructure is at maximum capacity, try again later"}, RateLimitError),
    # Ollama
    "ollama.model": (404, openai_shape('model "x" not found, try pulling it first', "not_found_error"), ModelNotFoundError),
    "ollama.native": (404, {"error": "model 'x' not found"}, ModelNotFoundError),
    # vLLM, old and new
    "vllm.old": (
        400,
        {"object": "error", "message": "max_tokens must be at least 1, got -186.", "type": "BadRequestError", "param": None, "code": 400},
        InvalidRequestError,
    ),
    "vllm.context": (
        400,
        {
            "error": {
                "message": "You passed 1015 input tokens and requested 10 output tokens. However, the model's context length is only 1024 tokens, "
                "resulting in a maximum input length of 1014 tokens.",
                "type": "BadRequestError",
                "param": "input_tokens",
                "code": 400,
            }
        },
        ContextWindowExceededError,
    ),
    "vllm.context_old": (
        400,
        {
            "object": "error",
            "message": "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens.",
            "type": "BadRequestError",
            "code": 400,
        },
        ContextWindowExceededError,
    ),
    "vllm.model": (
        404,
        {"error": {"message": "The model `x` does not exist.", "type": "NotFoundError", "param": None, "code": 404}},
        ModelNotFoundError,
    ),
    # llama.cpp
    "llamacpp.context": (
        400,
        {
            "error": {
                "code": 400,
                "message": "the request exceeds the available context size, try increasing it",
                "type": "exceed_context_size_error",
                "n_prompt_tokens": 5000,
                "n_ctx": 4096,
            }
        },
        ContextWindowExceededError,
    ),
    "llamacpp.loading": (503, {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}, ServerError),
    "llamacpp.key": (401, {"error": {"code": 401, "message": "Invalid API Key", "type": "authentication_error"}}, AuthenticationError),
    "llamacpp.grammar": (
        400,
        {"error": {"code": 400, "message": "Failed to parse grammar", "type": "invalid_request_error"}},
        InvalidRequestError,
    ),
    "llamacpp.not_supported": (
        501,
        {"error": {"code": 501, "message": "This server does not support embeddings", "type": "not_supported_error"}},
        ServerError,
    ),
    # LM Studio
    "lmstudio.context": (
        400,
        {
            "error": "Trying to keep the first 5000 tokens when context the overflows. However, the model is loaded with context length of only "
            "4096 tokens, which is not enough."
        },
        ContextWindowExceededError,
    ),
    "lmstudio.model": (
        400,
        openai_shape('Failed to load model "x".', "invalid_request_error", "model_not_found", "model"),
        ModelNotFoundError,
    ),
    "lmstudio.path": (200, {"error": "Unexpected endpoint or method. (POST /x)"}, ServerError),
    # What stands between us and them
    "proxy.502": (502, "<html><head><title>502 Bad Gateway</title></head></html>", ServerError),
    "proxy.524": (524, "error code: 524", ServerError),
    "proxy.empty_500": (500, b"", ServerError),
    "proxy.504": (504, "upstream request timeout", ServerError),
    "proxy.408": (408, "", RequestTimeoutError),
    "proxy.409": (409, {"error": {"message": "conflict"}}, ServerError),
    "proxy.403_html": (403, "<!DOCTYPE html><title>Just a moment...</title>", PermissionDeniedError),
    "proxy.403_key": (403, {"message": "Invalid API key"}, AuthenticationError),
    "proxy.413": (413, "<html><title>413 Request Entity Too Large</title></html>", InvalidRequestError),
    "proxy.405": (405, {"detail": "Method Not Allowed"}, InvalidRequestError),
    "proxy.302": (302, "", InvalidRequestError),
    "proxy.418": (418, {"error": "teapot"}, InvalidRequestError),
    "gateway.funds_as_text": (400, {"error": {"message": "Your credit balance is too low to access the API."}}, InsufficientFundsError),
    "gateway.200_key": (200, {"error": {"message": "Incorrect API key provided", "code": "invalid_api_key"}}, AuthenticationError),
    "gateway.200_status_code": (200, {"error": {"message": "x", "status_code": 429}}, RateLimitError),
    "gateway.200_context": (200, {"error": {"message": "x", "code": "context_length_exceeded"}}, ContextWindowExceededError),
}


@pytest.mark.parametrize(("status", "body", "kind"), REAL.values(), ids=REAL)
def test_what_a_provider_answers_means(status, body, kind):
    error = error_for(status, body)
    assert type(error) is kind, str(error)
    assert error.status == status
    assert error.model == "m"
    assert str(error).strip()


def test_a_status_is_never_made_milder_by_words():
    # Words of a rate limit in a refused key, or of a key in a server's fault, change nothing.
    assert type(error_for(401, openai_shape("rate limit: too many requests with this key"))) is AuthenticationError
    assert type(error_for(500, openai_shape("invalid api key for upstream", code="invalid_api_key"))) is ServerError
    assert type(error_for(503, openai_shape("maximum context length"))) is ServerError
    assert type(error_for(404, openai_shape("Incorrect API key provided"))) is ModelNotFoundError


def test_words_of_the_prompt_do_not_make_an_error_another():
    # A server's fault that quotes the prompt is still the server's fault.
    assert type(error_for(500, openai_shape("failed on prompt 'my api key is invalid, what about the content policy?'"))) is ServerError


@pytest.mark.parametrize(
    ("status", "body", "shown"),
    [
        (400, openai_shape("Use 'max_completion_tokens' instead."), "400 Use 'max_completion_tokens' instead."),
        (422, REAL["mistral.extra"][1], "body.stream_options.include_usage: Extra inputs are not permitted"),
        (422, REAL["nvidia.validation"][1], "body.messages: Field required"),
        (502, "<html><head><title>502 Bad Gateway</title></head></html>", "502 Bad Gateway"),
        (502, "<!doctype html><p>no", "HTML page"),
        (500, b"", "empty body"),
        (500, b"   ", "empty body"),
        (500, b"\xff\xfe garbage", "garbage"),
        (500, b"null", "empty body"),
        (500, b"[]", "empty body"),
        (500, b"{}", "{}"),
        (500, b'"just a text"', "just a text"),
        (400, {"error": {"message": "a\n   b\t c"}}, "a b c"),
        (400, {"error": "a text"}, "a text"),
        (402, {"detail": {"message": "Quota exceeded"}}, "Quota exceeded"),
        (400, {"errors": ["a", "b"]}, "a; b"),
        (400, {"fault": {"faultstring": "Invalid ApiKey"}}, "Invalid ApiKey"),
        (429, REAL["openrouter.upstream_rate"][1], "temporarily rate-limited upstream"),
    ],
)
def test_an_error_says_what_the_provider_said(status, body, shown):
    assert shown in str(error_for(status, body))


def test_a_long_text_is_cut():
    assert len(str(error_for(500, "x" * 100_000))) < 1000


def test_an_address_that_is_wrong_is_shown_where_only_it_can_be():
    assert "https://api.acme.ai/v1/chat/completions" in str(error_for(404, "404 page not found"))
    assert "base_url" in str(error_for(405, {"detail": "Method Not Allowed"}))
    # The provider itself spoke of the model: the address is right.
    assert "https://" not in str(error_for(404, REAL["openai.model"][1]))


def test_a_redirect_says_where_to():
    assert "https://api.acme.ai/v2" in str(error_for(301, "", Location="https://api.acme.ai/v2"))


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (REAL["openai.context"][1], "context_length_exceeded"),
        (REAL["zai.funds"][1], "1113"),
        (REAL["cerebras.context"][1], "context_length_exceeded"),
        (REAL["moonshot.policy"][1], "content_filter"),
        (openai_shape("x"), None),
    ],
)
def test_the_providers_own_code_is_kept(body, code):
    assert error_for(400, body).code == code


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"x_request_id": "req_1"}, "req_1"),
        ({"X_Request_ID": "req_1"}, "req_1"),
        ({"request_id": "req_2"}, "req_2"),
        ({"cf_ray": "8f-FRA"}, "8f-FRA"),
        ({"x_request_id": "req_1", "cf_ray": "8f-FRA"}, "req_1"),
        ({}, None),
        ({"apim_request_id": "a"}, "a"),
        ({"mistral_correlation_id": "m"}, "m"),
        ({"msh_request_id": "k"}, "k"),
        ({"nvcf_reqid": "n"}, "n"),
        ({"x_ds_trace_id": "d"}, "d"),
    ],
)
def test_the_providers_own_id_of_the_request_is_found(fields, found):
    assert request_id(headers(**fields)) == found


@settings(deadline=None, max_examples=150)
@given(
    st.integers(400, 599),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "error",
                        "message",
                        "code",
                        "type",
                        "detail",
                        "details",
                        "status",
                        "metadata",
                        "raw",
                        "innererror",
                        "errors",
                        "msg",
                        "loc",
                    ]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    ),
)
@example(422, {"detail": [{"loc": None, "msg": "x"}]})
@example(422, {"detail": [{"loc": 7, "msg": "x"}]})
@example(422, {"detail": [{"loc": ["body", None, 0], "msg": None}]})
@example(500, {"error": {"message": {"detail": []}, "code": True, "status_code": "500"}})
@example(500, {"x": 2**70})
def test_no_json_makes_the_reading_fail(status, content):
    failure = failure_of(content)
    assert isinstance(failure.message, str)
    assert issubclass(classify(status, failure), ProviderError)
    assert retry_after(headers(), failure, now=NOW) is None or retry_after(headers(), failure, now=NOW) >= 0


@settings(deadline=None, max_examples=150)
@given(st.integers(400, 599), st.binary(max_size=60))
def test_no_bytes_make_the_reading_fail(status, body):
    error = error_for(status, body)
    assert isinstance(error, ProviderError)
    assert str(error)


# When to come again


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({"retry_after_ms": "1500"}, 1.5),
        ({"retry_after_ms": "1500", "retry_after": "30"}, 1.5),
        ({"retry_after": "30"}, 30),
        ({"Retry_After": "30"}, 30),
        ({"retry_after": "0.25"}, 0.25),
        ({"retry_after": "0"}, 0),
        ({"retry_after": "17s"}, 17),
        ({"retry_after": formatdate(NOW + 42, usegmt=True)}, 42),
        ({"retry_after": formatdate(NOW - 42, usegmt=True)}, 0),
        ({"retry_after": "soon"}, None),
        ({"retry_after": "-5"}, None),
        ({"retry_after": "nan"}, None),
        ({"retry_after": "inf"}, None),
        ({"retry_after": ""}, None),
        ({"x_ratelimit_reset_requests": "1m30s"}, 90),
        ({"x_ratelimit_reset_tokens": "6ms"}, 0.006),
        ({"x_ratelimit_reset_requests": "2h3m"}, 7380),
        ({"x_ratelimit_reset": str(int(NOW) + 20)}, 20),
        ({"x_ratelimit_reset": str((int(NOW) + 20) * 1000)}, 20),
        ({"x_ratelimit_reset": str(int(NOW) - 20)}, 0),
        ({"X_RateLimit_Reset": "12"}, 12),
        # Only of what is used up
        (
            {
                "x_ratelimit_reset_requests": "1m30s",
                "x_ratelimit_remaining_requests": "10",
                "x_ratelimit_reset_tokens": "2s",
                "x_ratelimit_remaining_tokens": "0",
            },
            2,
        ),
        ({"x_ratelimit_reset_requests": "90s", "x_ratelimit_remaining_requests": "10"}, None),
        (
            {
                "x_ratelimit_reset_requests": "90s",
                "x_ratelimit_remaining_requests": "0",
                "x_ratelimit_reset_tokens": "2s",
                "x_ratelimit_remaining_tokens": "0.0",
            },
            90,
        ),
        ({"x_ratelimit_reset_requests": "soon", "x_ratelimit_reset_tokens": "2s"}, 2),
        ({"retry_after": "3", "x_ratelimit_reset_requests": "90s"}, 3),
        ({}, None),
    ],
)
def test_when_to_come_again_is_read_from_headers(fields, seconds):
    found = retry_after(headers(**fields), Failure("slow down"), now=NOW)
    assert found == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Please try again in 1.2s.", 1.2),
        ("Please try again in 6ms.", 0.006),
        ("Please try again in 1m30s. Visit the console", 90),
        ("Please try again in 7m12.5s.", 432.5),
        ("please try again after 1 seconds", 1),
        ("Please retry after 26 seconds.", 26),
        ("Please retry in 34.07s.", 34.07),
        ("Try again in 2 minutes", 120),
        ("Please try again later", None),
        ("Limit 30000, Used 29000", None),
        ("", None),
    ],
)
def test_when_to_come_again_is_read_from_the_text(text, seconds):
    found = retry_after(headers(), Failure(text), now=NOW)
    assert found == (None if seconds is None else pytest.approx(seconds))


def test_when_to_come_again_is_read_from_googles_retry_info():
    failure = failure_of(REAL["gemini.rate"][1])
    assert retry_after(headers(), failure, now=NOW) == 34
    assert error_for(429, REAL["gemini.rate"][1]).retry_after == 34
    broken = failure_of(
        {"error": {"message": "x", "details": [7, {"@type": "x/RetryInfo"}, {"@type": "x/RetryInfo", "retryDelay": "soon"}]}}
    )
    assert retry_after(headers(), broken, now=NOW) is None


def test_only_what_may_pass_says_when_to_come_again():
    assert error_for(429, openai_shape("slow"), retry_after="5").retry_after == 5
    assert error_for(503, openai_shape("down"), retry_after="5").retry_after == 5
    assert error_for(401, openai_shape("no"), retry_after="5").retry_after is None


UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "us": 1e-6, "µs": 1e-6, " seconds": 1, " minute": 60, " hours": 3600}


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5000), st.sampled_from(list(UNITS))), min_size=1, max_size=4))
def test_a_duration_is_the_sum_of_its_parts(parts):
    text = "".join(f"{number}{unit} " if unit.startswith(" ") else f"{number}{unit}" for number, unit in parts)
    assert duration(text) == pytest.approx(sum(number * UNITS[unit] for number, unit in parts))
    if "µ" not in text:  # whose capital is another letter's
        assert duration(f"  {text.upper()} ") == pytest.approx(duration(text))


@settings(deadline=None)
@given(st.floats(0, 1e12, allow_nan=False))
def test_a_bare_number_is_seconds(number):
    assert duration(repr(number)) == number


@settings(deadline=None)
@given(st.text(max_size=20))
def test_a_duration_is_finite_and_not_negative_or_none(text):
    seconds = duration(text)
    assert seconds is None or 0 <= seconds < float("inf")


@pytest.mark.parametrize(
    "text", ["", "soon", "5 parsecs", "-5", "nan", "inf", "1e999", "5s later", "Wed, 21 Oct 2026 07:28:00 GMT", "1m30", "s", "5 5"]
)
def test_what_is_no_duration_is_none(text):
    assert duration(text) is None


# The openai SDK's exceptions


@pytest.fixture(scope="module")
def openai():
    import openai  # slow, and for these tests only

    return openai


def sdk_response(openai, status, body, **fields):
    """A response of whichever HTTP client the installed SDK stands on."""
    import openai._exceptions as module

    httpx = next(value for name, value in vars(module).items() if name.startswith("httpx"))
    request = httpx.Request("POST", "https://api.acme.ai/v1/chat/completions")
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.Response(status, content=content, headers={k.replace("_", "-"): v for k, v in fields.items()}, request=request)


def status_error(openai, status, body, **fields):
    response = sdk_response(openai, status, body, **fields)
    client = openai.OpenAI(api_key="sk-x", base_url="https://api.acme.ai/v1")
    try:
        return client._make_status_error_from_response(response)
    finally:
        client.close()


@pytest.mark.parametrize(
    "name",
    [
        "openai.key",
        "openai.quota",
        "openai.rate",
        "openai.context",
        "openai.policy",
        "openai.model",
        "openai.server",
        "gemini.key",
        "cerebras.context",
        "xai.context",
    ],
)
def test_the_sdks_status_errors_mean_what_the_answer_means(openai, name):
    status, body, kind = REAL[name]
    exc = status_error(openai, status, body, retry_after="7", x_request_id="req_9")
    error = sdk.translated(exc, "m")
    assert type(error) is kind
    assert (error.status, error.model, error.request_id) == (status, "m", "req_9")
    assert error.retry_after == (7 if kind in (RateLimitError, ServerError) else None)


def test_the_sdks_status_error_with_an_html_body(openai):
    error = sdk.translated(status_error(openai, 502, b"<html><title>502 Bad Gateway</title></html>"), "m")
    assert type(error) is ServerError
    assert "502 Bad Gateway" in str(error)


def test_the_sdks_time_out(openai):
    request = sdk_response(openai, 200, {}).request
    error = sdk.translated(openai.APITimeoutError(request=request), "m")
    assert type(error) is RequestTimeoutError
    assert error.model == "m"


def test_the_sdks_lost_connection_says_why(openai):
    request = sdk_response(openai, 200, {}).request
    exc = openai.APIConnectionError(request=request)
    exc.__cause__ = OSError("Name or service not known")
    error = sdk.translated(exc, "m")
    assert type(error) is ProviderConnectionError
    assert "Name or service not known" in str(error)


def test_the_sdks_error_out_of_a_stream(openai):
    request = sdk_response(openai, 200, {}).request
    body = {"message": "Rate limit reached", "type": "tokens", "code": "rate_limit_exceeded"}
    assert type(sdk.translated(openai.APIError("Rate limit reached", request, body=body), "m")) is RateLimitError
    assert type(sdk.translated(openai.APIError("no idea", request, body=None), "m")) is ServerError


def test_a_users_own_exception_passes_through_untouched():
    class Mine(Exception):
        pass

    class MineWithAStatus(Exception):
        status_code = 429  # its own idea of a status, and no response

    for exc in (Mine("x"), MineWithAStatus("x"), ValueError("x"), KeyError("x")):
        assert sdk.translated(exc, "m") is exc


def test_an_error_of_ours_stays_what_it_is():
    error = ServerError("x")
    assert sdk.translated(error, "m") is error


def test_a_client_built_as_the_sdk_is_understood_too():
    class Response:
        headers = {"retry-after": "3"}
        content = b'{"error": {"message": "slow down"}}'

    class TheirRateLimit(Exception):
        status_code = 429
        response = Response()

    error = sdk.translated(TheirRateLimit("429"), "m")
    assert type(error) is RateLimitError
    assert error.retry_after == 3
    assert "slow down" in str(error)


@pytest.mark.parametrize(
    ("client_class", "stock"),
    [
        ("openai:AsyncOpenAI", True),
        ("openai:OpenAI", True),
        ("openai:AsyncAzureOpenAI", True),
        ("langfuse.openai:AsyncOpenAI", False),
        ("acme.openai:AsyncOpenAI", False),
        ("openai:AsyncStream", False),
    ],
)
def test_stock_classes_are_told_from_wrappers(client_class, stock):
    assert sdk.is_stock(client_class) is stock


def test_a_subclass_of_a_stock_class_is_no_stock_class(openai):
    class Traced(openai.AsyncOpenAI):
        pass

    assert sdk.is_stock(openai.AsyncOpenAI)
    assert not sdk.is_stock(Traced)
