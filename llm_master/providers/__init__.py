"""One file per wire format, and the contract that they fulfil.

``UnifiedProvider`` speaks OpenAI's chat completions; the others speak their own. ``TimeoutError`` is
``RequestTimeoutError`` under the name that provider code knows it by.
"""

from __future__ import annotations

from llm_master.errors import RequestTimeoutError as TimeoutError
from llm_master.providers.base import BaseLLMProvider, Translation, extract_prompt
from llm_master.providers.http import HTTPProvider
from llm_master.providers.interface import ProviderInterface
from llm_master.providers.mock import MockProvider
from llm_master.providers.short import BaseProvider
from llm_master.providers.stream_reader import StreamReader
from llm_master.providers.unified import OpenAICompatibleProvider, UnifiedProvider
from llm_master.rows import ProviderConfig
from llm_master.types import GenerationParams

__all__ = [
    "BaseLLMProvider",
    "BaseProvider",
    "GenerationParams",
    "HTTPProvider",
    "MockProvider",
    "OpenAICompatibleProvider",
    "ProviderConfig",
    "ProviderInterface",
    "StreamReader",
    "TimeoutError",
    "Translation",
    "UnifiedProvider",
    "extract_prompt",
]
