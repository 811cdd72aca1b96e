"""``ChatLLMMaster``, a chat model of LangChain that asks any model of any provider.

Needs the extra: ``pip install 'llm_master[langchain]'``. Keys, limits, retries, fallbacks and prices are those of ``QueryLLM``.
"""

from __future__ import annotations

try:
    import langchain_core as _langchain_core  # noqa: F401  # to say what is missing before anything else does
except ImportError as exc:
    raise ImportError("llm_master.langchain needs langchain-core, which is not installed: pip install 'llm_master[langchain]'") from exc

from llm_master.langchain.model import ChatLLMMaster

__all__ = ["ChatLLMMaster"]
