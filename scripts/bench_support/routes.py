"""What a route of 50 targets costs a call, by strategy: with providers that answer in this process, so that nothing else is measured."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

from bench_support.report import Row, Section
from bench_support.wire import MESSAGES

TARGETS = 50
ROUNDS = 9
LIMIT = 5.0


def measure(*, full: bool) -> Section:
    """Differences to the same call without a route, of interleaved rounds."""
    count = ROUNDS * 2 + 1 if full else ROUNDS
    rounds = asyncio.run(_rounds(count))
    section = Section(f"A route of {TARGETS} targets: CPU per call over the same without one, median of {count} interleaved rounds", "")
    for strategy in rounds[0]:
        if strategy != "none":
            over = median(figures[strategy] - figures["none"] for figures in rounds)
            section.rows.append(Row(strategy, over, "µs", limit=LIMIT, limits="value"))
    return section


async def _rounds(count: int) -> list[dict[str, float]]:
    from llm_master import PROVIDER_CONFIGS, BaseLLMProvider, LLMConfig, LLMResponse, ProviderConfig, QueryLLM, Usage
    from llm_master.settings.routes import STRATEGIES

    class Here(BaseLLMProvider):
        """Answers at once."""

        async def generate(self, messages: Sequence[Any], model: str, **options: Any) -> LLMResponse:
            return LLMResponse("Hello", model, Usage(10, 5))

    for number in range(TARGETS):
        PROVIDER_CONFIGS[f"here{number}"] = ProviderConfig(provider_class=Here, requires_key=False)
    targets = [{"model": f"here{number}/m", "weight": 1 + number % 3} for number in range(TARGETS)]
    asked = {"none": (QueryLLM(LLMConfig(environment={})), "here0/m")}
    for strategy in STRATEGIES:
        routes = {"route": {"targets": targets, "strategy": strategy}}
        asked[strategy] = (QueryLLM(LLMConfig(environment={}, routes=routes)), "route")

    async def once(strategy: str, times: int) -> float:
        llm, name = asked[strategy]
        began = time.process_time()
        for _ in range(times):
            await llm.query(name, MESSAGES, temperature=0.5)
        return (time.process_time() - began) / times * 1e6

    for strategy in asked:
        await once(strategy, 500)
    return [{strategy: await once(strategy, 1000) for strategy in list(asked)[:: -1 if number % 2 else 1]} for number in range(count)]
