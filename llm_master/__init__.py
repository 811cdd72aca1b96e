"""One awaitable for every language model.

``await QueryLLM().query(model_name=..., prompt=...)`` asks any model of any provider. Providers and models are data, in
two tables: ``PROVIDER_CONFIGS`` and ``ModelRegistry``.

Names are loaded on first use (PEP 562), so that importing the package costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "llm_master.errors": (
        "AuthenticationError",
        "BudgetExceededError",
        "ConfigurationError",
        "ContentPolicyError",
        "ContextWindowExceededError",
        "DeadlineExceededError",
        "InsufficientFundsError",
        "InvalidOutputError",
        "InvalidRequestError",
        "LLMError",
        "MissingApiKeyError",
        "ModelNotFoundError",
        "PermissionDeniedError",
        "PricingError",
        "ProviderConnectionError",
        "ProviderError",
        "RateLimitError",
        "RequestTimeoutError",
        "ServerError",
        "StreamInterruptedError",
        "UnknownModelError",
    ),
    "llm_master.media": ("Audio", "Citation", "Image"),
    "llm_master.results": (
        "CostEstimate",
        "EmbeddingResponse",
        "KeyHealth",
        "ListedModel",
        "ModelList",
        "ModerationResponse",
        "ModerationResult",
        "ProviderHealth",
        "ProviderModels",
        "RerankResponse",
        "RerankResult",
        "TokenCount",
    ),
    "llm_master.types": (
        "Attempt",
        "AudioDelta",
        "GenerationParams",
        "LLMResponse",
        "Plan",
        "RateLimitState",
        "ReasoningDelta",
        "Receipt",
        "StreamEnd",
        "TextDelta",
        "ToolCall",
        "ToolCallDelta",
        "Usage",
    ),
    "llm_master.model_rows": ("ModelConfig",),
    "llm_master.rows": ("ProviderConfig",),
    "llm_master.model_registry": ("ModelRegistry",),
    # Both providers come by way of the table: one shows it as its PROVIDER_CONFIGS, the other is made of a row.
    "llm_master.provider_configs": ("LLMConfig", "OpenRouterProvider", "PROVIDER_CONFIGS", "UnifiedProvider"),
    "llm_master.provider_plugins": ("PROVIDER_PLUGINS",),
    "llm_master.providers": ("BaseLLMProvider", "BaseProvider", "OpenAICompatibleProvider", "ProviderInterface", "extract_prompt"),
    "llm_master.query": ("LLMStream", "QueryLLM"),
    "llm_master.router": ("Router",),
    "llm_master.rotating_client": ("RotatingClient",),
    "llm_master.transport.fetch": ("download",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted([*_HOME, "__version__"])  # noqa: PLE0605  # computed, so that no name stands in two lists


def __getattr__(name: str) -> Any:
    module = _HOME.get(name)
    if module is None:
        raise AttributeError(f"module 'llm_master' has no attribute {name!r}")
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)


if TYPE_CHECKING:
    from llm_master.dispatch.stream import LLMStream as LLMStream
    from llm_master.errors import AuthenticationError as AuthenticationError
    from llm_master.errors import BudgetExceededError as BudgetExceededError
    from llm_master.errors import ConfigurationError as ConfigurationError
    from llm_master.errors import ContentPolicyError as ContentPolicyError
    from llm_master.errors import ContextWindowExceededError as ContextWindowExceededError
    from llm_master.errors import DeadlineExceededError as DeadlineExceededError
    from llm_master.errors import InsufficientFundsError as InsufficientFundsError
    from llm_master.errors import InvalidOutputError as InvalidOutputError
    from llm_master.errors import InvalidRequestError as InvalidRequestError
    from llm_master.errors import LLMError as LLMError
    from llm_master.errors import MissingApiKeyError as MissingApiKeyError
    from llm_master.errors import ModelNotFoundError as ModelNotFoundError
    from llm_master.errors import PermissionDeniedError as PermissionDeniedError
    from llm_master.errors import PricingError as PricingError
    from llm_master.errors import ProviderConnectionError as ProviderConnectionError
    from llm_master.errors import ProviderError as ProviderError
    from llm_master.errors import RateLimitError as RateLimitError
    from llm_master.errors import RequestTimeoutError as RequestTimeoutError
    from llm_master.errors import ServerError as ServerError
    from llm_master.errors import StreamInterruptedError as StreamInterruptedError
    from llm_master.errors import UnknownModelError as UnknownModelError
    from llm_master.media import Audio as Audio
    from llm_master.media import Citation as Citation
    from llm_master.media import Image as Image
    from llm_master.model_registry import ModelRegistry as ModelRegistry
    from llm_master.model_rows import ModelConfig as ModelConfig
    from llm_master.provider_configs import PROVIDER_CONFIGS as PROVIDER_CONFIGS
    from llm_master.provider_configs import LLMConfig as LLMConfig
    from llm_master.provider_configs import OpenRouterProvider as OpenRouterProvider
    from llm_master.provider_plugins import PROVIDER_PLUGINS as PROVIDER_PLUGINS
    from llm_master.providers import BaseLLMProvider as BaseLLMProvider
    from llm_master.providers import BaseProvider as BaseProvider
    from llm_master.providers import OpenAICompatibleProvider as OpenAICompatibleProvider
    from llm_master.providers import ProviderInterface as ProviderInterface
    from llm_master.providers import UnifiedProvider as UnifiedProvider
    from llm_master.providers import extract_prompt as extract_prompt
    from llm_master.query import QueryLLM as QueryLLM
    from llm_master.results import CostEstimate as CostEstimate
    from llm_master.results import EmbeddingResponse as EmbeddingResponse
    from llm_master.results import KeyHealth as KeyHealth
    from llm_master.results import ListedModel as ListedModel
    from llm_master.results import ModelList as ModelList
    from llm_master.results import ModerationResponse as ModerationResponse
    from llm_master.results import ModerationResult as ModerationResult
    from llm_master.results import ProviderHealth as ProviderHealth
    from llm_master.results import ProviderModels as ProviderModels
    from llm_master.results import RerankResponse as RerankResponse
    from llm_master.results import RerankResult as RerankResult
    from llm_master.results import TokenCount as TokenCount
    from llm_master.rotating_client import RotatingClient as RotatingClient
    from llm_master.router import Router as Router
    from llm_master.rows import ProviderConfig as ProviderConfig
    from llm_master.transport.fetch import download as download
    from llm_master.types import Attempt as Attempt
    from llm_master.types import AudioDelta as AudioDelta
    from llm_master.types import GenerationParams as GenerationParams
    from llm_master.types import LLMResponse as LLMResponse
    from llm_master.types import Plan as Plan
    from llm_master.types import RateLimitState as RateLimitState
    from llm_master.types import ReasoningDelta as ReasoningDelta
    from llm_master.types import Receipt as Receipt
    from llm_master.types import StreamEnd as StreamEnd
    from llm_master.types import TextDelta as TextDelta
    from llm_master.types import ToolCall as ToolCall
    from llm_master.types import ToolCallDelta as ToolCallDelta
    from llm_master.types import Usage as Usage
