"""What ``QueryLLM`` asks of providers beside answers: which models they have, and how they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llm_master.engine import Engine
    from llm_master.results import ModelList, ProviderHealth


class Inquiries:
    """The methods of ``QueryLLM`` that cost nothing."""

    __slots__ = ()

    _engine: Engine

    async def list_models(self, provider: str | None = None, *, refresh: bool = False, timeout: float = 3.0) -> ModelList:
        """The models of all providers, or of one: those that it lists, and those that are declared.

        A list is kept for ``models_ttl`` of the settings (an hour). From then on a model that stands in one may be asked by its
        bare name. A failure is not kept: the next call asks again.

        Args:
            provider: Its name; all providers, at once, if ``None``.
            refresh: Ask also where a list is kept.
            timeout: Seconds that each provider has.

        Returns:
            Provider -> its models, also of those that could not be asked or did not answer, with the reason in ``error``.

        Raises:
            ConfigurationError: There is no such provider.
        """
        from llm_master import discovery

        return await discovery.list_models(self._engine, provider, refresh=refresh, timeout=timeout)

    async def check_health(self, provider: str | None = None, *, paid: bool = False, timeout: float = 3.0) -> dict[str, ProviderHealth]:
        """Whether providers answer and take their keys. It takes nothing of the limits, and what it finds bars no key.

        Args:
            provider: Its name; all that have what they need, at once, if ``None``.
            paid: Find out by a request for one token to the provider's default model, for each key; else by what is free.
            timeout: Seconds that each key has.

        Returns:
            Provider -> its health, with that of each key. What fails is told there and not raised.

        Raises:
            ConfigurationError: There is no such provider.
        """
        from llm_master import health

        return await health.check_health(self._engine, provider, paid=paid, timeout=timeout)
