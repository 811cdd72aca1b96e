"""One of several processes that share limits: sends so many queries at once, and says how they ended and how long it took."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections import Counter
from typing import Any

from llm_master import PROVIDER_CONFIGS, LLMConfig, ProviderConfig, QueryLLM
from llm_master.clock import Clock


class Skewed(Clock):
    """A clock that is wrong by so many seconds."""

    def __init__(self, skew: float) -> None:
        self.skew = skew

    def monotonic(self) -> float:
        return time.monotonic() + abs(self.skew)  # which is never below 0

    def time(self) -> float:
        return time.time() + self.skew


async def main(told: dict[str, Any]) -> None:
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url=told["base_url"], **told["row"])
    config = LLMConfig(environment={}, api_keys={"acme": told["keys"]}, clock=Skewed(told["skew"]), max_attempts=1000, **told["config"])
    async with QueryLLM(config) as llm:

        async def ask() -> str:
            try:
                await llm.query("acme/m", prompt="Hi")
            except Exception as exc:
                return f"{type(exc).__name__}: {exc}"
            return "answered"

        print("ready", flush=True)
        sys.stdin.readline()
        began = time.time()
        ended = Counter(await asyncio.gather(*(ask() for _ in range(told["count"]))))
        print(json.dumps({"ended": ended, "began": began, "seconds": time.time() - began}), flush=True)


logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
asyncio.run(main(json.loads(sys.argv[1])))
