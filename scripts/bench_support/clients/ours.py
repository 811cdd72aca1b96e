"""llm_master with everything on: a registered price, a cost for each answer, a receipt."""

from __future__ import annotations

from itertools import count

from bench_support.wire import KEY, MESSAGES, MODEL
from llm_master import PROVIDER_CONFIGS, LLMResponse, ModelConfig, ModelRegistry, ProviderConfig, QueryLLM

_numbers = count()


class Ours:
    """One ``QueryLLM`` is kept for all queries."""

    provider_class: str | None = None

    def __init__(self, base_url: str, *, many: int | None = None) -> None:
        del many  # as many connections as the process may open files
        provider = f"bench{next(_numbers)}"
        self._model = f"{provider}/{MODEL}"
        PROVIDER_CONFIGS[provider] = ProviderConfig(base_url=base_url, api_key=KEY, provider_class=self.provider_class)
        ModelRegistry.register(
            self._model,
            ModelConfig(input_price_per_million=1, output_price_per_million=2, cached_input_price_per_million="0.5"),
        )
        self._llm = QueryLLM()

    async def call(self) -> int:
        return _length(await self._llm.query(self._model, MESSAGES, temperature=0.5))

    async def embed(self, texts: list[str]) -> int:
        return len(await self._llm.embed(self._model, texts))

    async def stream(self) -> int:
        texts: list[str] = []
        async with self._llm.stream(self._model, MESSAGES, temperature=0.5) as stream:
            async for text in stream:
                texts.append(text)  # noqa: PERF401  # as a user writes it
        if stream.response.cost is None:
            raise RuntimeError("the bench means to measure a stream that knows its cost, and this one does not")
        return len(texts)


class Constructed(Ours):
    """``await QueryLLM().query(...)``, as in scripts and web handlers."""

    async def call(self) -> int:
        return _length(await QueryLLM().query(self._model, MESSAGES, temperature=0.5))


class Anthropic(Ours):
    """The same in Anthropic's wire format."""

    provider_class = "llm_master.providers.anthropic:AnthropicProvider"


class Gemini(Ours):
    """The same in Gemini's wire format."""

    provider_class = "llm_master.providers.gemini:GeminiProvider"


def _length(answer: LLMResponse) -> int:
    if answer.cost is None or answer.receipt is None:
        raise RuntimeError("the bench means to measure a call with cost and receipt, and this one has none")
    return len(answer.content)
