"""OpenRouter, constructed by hand."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from llm_master.providers.unified import UnifiedProvider


class OpenRouterProvider(UnifiedProvider):
    """The table's row with this key.

    Args:
        api_key: The key.
        custom_headers: Added to every request, as ``{"HTTP-Referer": "https://acme.example", "X-Title": "Acme"}``, by which
            its rankings know an app.
    """

    def __init__(self, api_key: str, custom_headers: Mapping[str, str] | None = None) -> None:
        row = UnifiedProvider.PROVIDER_CONFIGS["openrouter"]
        super().__init__(attrs.evolve(row, api_key=api_key, headers={**row.headers, **(custom_headers or {})}))
