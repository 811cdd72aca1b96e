"""The main job from Python: what scripts/demo runs."""

from __future__ import annotations

import asyncio
import os
import sys

from llm_master import LLMConfig, QueryLLM


async def main(question: str) -> None:
    config = LLMConfig.from_env()
    with_key = [name for name, usable in config.validate().items() if usable and getattr(config, f"{name}_api_key")]
    model = "gguf" if os.environ.get("GGUF_DEFAULT_MODEL") else with_key[0] if with_key else "mock"
    async with QueryLLM() as llm:
        async with llm.stream(model_name=model, prompt=question) as stream:
            async for text in stream:
                print(text, end="", flush=True)
        print()
        answer = stream.response
        receipt = answer.receipt
        assert receipt is not None
        print(f"\nusage    {answer.usage}")
        print(f"cost     {answer.cost if answer.cost is not None else 'unknown'} ({receipt.cost_state})")
        print(f"provider {receipt.provider}: {receipt.why}")
        for number, attempt in enumerate(receipt.attempts, 1):
            print(
                f"attempt {number}: {attempt.model_served or attempt.model}, key {attempt.key or 'none'}, "
                f"{attempt.latency or 0:.3f} s, {attempt.error or 'answered'}"
            )


asyncio.run(main(sys.argv[1]))
