"""What ``QueryLLM`` does beside querying: embed, moderate, rerank, speak, count, estimate."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

from llm_master.dispatch.call import Call
from llm_master.dispatch.capabilities import refuse_lacking
from llm_master.dispatch.estimate import estimate_tokens, text_tokens
from llm_master.dispatch.sending import total_cost
from llm_master.dispatch.time_limit import TimeLimit
from llm_master.engine import Engine
from llm_master.errors import ContentPolicyError, InvalidRequestError, LLMError, ServerError
from llm_master.pricing import PriceList
from llm_master.provider_rows import MODERATION_MODEL
from llm_master.providers.base import BaseLLMProvider
from llm_master.results import CostEstimate, EmbeddingResponse, ModerationResponse, RerankResponse, TokenCount
from llm_master.types import CostState, LLMResponse, Message, Receipt, Usage

_AT_ONCE = 4
"""Batches of one ``embed`` in flight."""


async def embed(
    engine: Engine,
    model_name: str,
    inputs: str | Sequence[str],
    timeout: float | None,
    deadline: float | None,
    extra_body: Mapping[str, Any] | None,
    options: Mapping[str, Any],
) -> EmbeddingResponse:
    """Vectors of all inputs, asked for in batches."""
    texts = _texts(inputs, "inputs")
    row = engine.target(model_name).row
    calls = [
        engine.operation("embed", "embedding", model_name, (batch,), timeout, deadline, extra_body, dict(options))
        for batch in _batches(texts, row.embed_batch_size, row.embed_batch_tokens)
    ]
    if len(calls) == 1:
        return await _vectors(calls[0])
    began = calls[0].clock.monotonic()
    found: dict[int, EmbeddingResponse] = {}
    waiting = iter(enumerate(calls))

    async def work() -> None:
        for position, call in waiting:
            found[position] = await _vectors(call)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in calls[:_AT_ONCE]:
                group.create_task(work())
    except BaseExceptionGroup as errors:
        # What failed first is the reason of all that follows.
        error = errors.exceptions[0]
        if isinstance(error, LLMError):
            error.receipt = _one_receipt(calls)
        raise error from error.__cause__
    parts = [found[position] for position in range(len(calls))]
    receipt = _one_receipt(calls)
    return EmbeddingResponse(
        embeddings=[vector for part in parts for vector in part.embeddings],
        model_name=model_name,
        usage=_sum(part.usage for part in parts),
        latency=calls[0].clock.monotonic() - began,
        provider=receipt.provider,
        cost=receipt.cost,
        receipt=receipt,
        wire=parts[-1].wire,
    )


async def moderate(
    engine: Engine,
    model_name: str | None,
    inputs: str | Sequence[Any],
    timeout: float | None,
    deadline: float | None,
    options: Mapping[str, Any],
) -> ModerationResponse:
    """The judgement on each input."""
    answer: ModerationResponse = await _moderation(engine, model_name, inputs, timeout, deadline, options).answer()
    return answer


def _moderation(
    engine: Engine,
    model_name: str | None,
    inputs: str | Sequence[Any],
    timeout: float | None,
    deadline: float | None,
    options: Mapping[str, Any],
) -> Call:
    if isinstance(inputs, str):
        inputs = [inputs]
    if not isinstance(inputs, Sequence) or not inputs or not all(isinstance(item, (str, list, tuple)) and item for item in inputs):
        raise InvalidRequestError("inputs of moderate(): give a text, or a list of texts that are not empty, or of lists of content parts")
    name = model_name or engine.snapshot.options.moderation_model or MODERATION_MODEL
    return engine.operation("moderate", "moderation", name, (list(inputs),), timeout, deadline, None, dict(options))


def judge(engine: Engine) -> Callable[[Call], Awaitable[None]]:
    """The step of a query that has its conversation judged before it is sent."""

    async def judge_request(call: Call) -> None:
        asked = _moderation(engine, None, _said(call.messages), None, call.time_left()[0], {})
        receipt = asked.receipt
        try:
            answer: ModerationResponse = await asked.answer()
        finally:
            call.receipt.attempts += receipt.attempts
        # An attempt that fails is free, so that this is what the query costs if the next one does.
        call.receipt.cost, call.receipt.cost_state = call.spent = (receipt.cost, receipt.cost_state)
        if answer.flagged:
            error = ContentPolicyError(
                f"{answer.model_name} flagged the request as {', '.join(answer.categories)}; nothing was sent to {call.receipt.provider}",
                provider=answer.provider,
                model=answer.model_name,
            )
            error.categories = answer.categories
            raise error

    return judge_request


def _said(messages: Sequence[Message]) -> list[Any]:
    """What users and tools say, each message one input; with its images, where there are any."""
    said: list[Any] = []
    for message in messages:
        content = message.get("content")
        if message["role"] in ("assistant", "system", "developer") or not content:
            continue
        if isinstance(content, str):
            said.append(content)
            continue
        parts = [part for part in content if isinstance(part, Mapping) and part.get("type") in ("text", "image_url")]
        if len(parts) < len(content):
            # What nobody judges must not pass as judged.
            raise InvalidRequestError(
                "moderation=True judges texts and images, and the conversation holds something else: leave it out, or moderation"
            )
        texts = [str(part.get("text")) for part in parts if part["type"] == "text"]
        if len(texts) < len(parts):
            said.append(parts)
        elif any(texts):
            said.append("\n".join(texts))
    if not said:
        raise InvalidRequestError("moderation=True, and no user message holds a text or an image to judge: leave moderation out")
    return said


async def rerank(
    engine: Engine,
    model_name: str,
    query: str,
    documents: Sequence[str],
    timeout: float | None,
    deadline: float | None,
    options: Mapping[str, Any],
) -> RerankResponse:
    """The documents by relevance."""
    if not isinstance(query, str) or not query.strip():
        raise InvalidRequestError(f"query is {query!r}: give a text that is not empty")
    texts = _texts(documents, "documents")
    top_n = options.get("top_n")
    if top_n is not None and (not isinstance(top_n, int) or isinstance(top_n, bool) or top_n < 1):
        raise InvalidRequestError(f"top_n is {top_n!r}: give a whole number of at least 1, or leave it out for all")
    call = engine.operation("rerank", "rerank", model_name, (query, texts), timeout, deadline, None, dict(options))
    answer: RerankResponse = await call.answer()
    return answer


async def speech(
    engine: Engine, model_name: str, text: str, timeout: float | None, deadline: float | None, options: Mapping[str, Any]
) -> LLMResponse:
    """A text, spoken."""
    if not isinstance(text, str) or not text.strip():
        raise InvalidRequestError(f"text is {text!r}: give a text that is not empty")
    messages = [{"role": "user", "content": text}]
    target = engine.target(model_name)
    if target.route.generator is not None:
        # How this model is asked, its row says.
        refuse_lacking(("speech",), target.lacking, model_name)
        call = engine.call(model_name, messages, None, None, None, timeout, deadline, None, dict(options))
    else:
        call = engine.operation("speech", "speech", model_name, (messages,), timeout, deadline, None, dict(options))
    answer: LLMResponse = await call.answer()
    return answer


async def count_tokens(call: Call) -> TokenCount:
    """The provider's count, or an estimate where it has none."""
    if call.before is not None:
        await call.prepare()
    limit, is_deadline = call.time_left()
    provider: BaseLLMProvider = call.provider  # type: ignore[assignment]  # dispatch knows only what it asks of one
    counted = None
    if call.target.route.generator is None:
        try:
            with TimeLimit(call.clock, limit):
                counted = await provider.count_tokens(call.messages, call.target.route.model, **call.options)
        except Exception as exc:
            raise call.translated(exc, is_deadline=is_deadline) from exc
    if counted is not None:
        return TokenCount(counted, exact=True)
    return TokenCount(estimate_tokens(call.messages, call.options.get("tools")), exact=False)


async def estimate_cost(call: Call, options: Mapping[str, Any]) -> CostEstimate:
    """The most that a query would cost, by estimated input and the output that is allowed."""
    target = call.target
    if target.look_up is not None:
        model = await asyncio.get_running_loop().run_in_executor(None, target.look_up)
        target.look_up, target.prices = None, PriceList(model) if model is not None else None
    options = {**target.route.options, **{name: value for name, value in options.items() if value is not None}}
    tokens_in = estimate_tokens(call.messages, options.get("tools"))
    limits = (options.get("max_tokens"), options.get("max_completion_tokens"), target.max_output_tokens)
    tokens_out = next((limit for limit in limits if isinstance(limit, int)), None)
    if tokens_out is not None and isinstance(options.get("n"), int):
        tokens_out *= options["n"]
    prices = None if target.row.skip_cost_calculation else target.prices
    cost = input_cost = None
    if prices is not None:
        input_cost = prices.cost(Usage(tokens_in, 0, cached_tokens=0))[0]
        if tokens_out is not None:
            cost = prices.cost(Usage(tokens_in, tokens_out, cached_tokens=0))[0]
    state: CostState = "unknown" if cost is None else "estimated"
    return CostEstimate(tokens_in, tokens_out, cost, input_cost, target.row.currency, state)


def _texts(given: Any, name: str) -> list[str]:
    """A list of texts, each checked; a lone text is a list of one, never of its characters."""
    if isinstance(given, str):
        given = [given]
    if not isinstance(given, Sequence) or isinstance(given, (bytes, bytearray)):
        raise InvalidRequestError(f"{name} is a {type(given).__name__}: give a text or a list of texts")
    if not given:
        raise InvalidRequestError(f"{name} is empty: give at least one text")
    for position, text in enumerate(given):
        if not isinstance(text, str):
            raise InvalidRequestError(f"{name}[{position}] is a {type(text).__name__}: give a text")
        if not text.strip():
            raise InvalidRequestError(f"{name}[{position}] is empty: leave it out")
    return list(given)


def _batches(texts: list[str], size: int, most: int) -> Iterator[list[str]]:
    batch: list[str] = []
    tokens = 0
    for text in texts:
        its = text_tokens(text)
        if batch and (len(batch) == size or tokens + its > most):
            yield batch
            batch, tokens = [], 0
        batch.append(text)
        tokens += its
    yield batch


async def _vectors(call: Call) -> EmbeddingResponse:
    answer: EmbeddingResponse = await call.answer()
    expected = len(call.messages[0])
    if len(answer) != expected:  # of a provider's class that does not count them itself
        error = ServerError(
            f"{call.receipt.provider}: answered {len(answer)} vectors for {expected} inputs",
            provider=call.receipt.provider,
            model=call.target.route.model,
        )
        error.receipt = call.receipt
        if call.attempt is not None:
            call.attempt.error, call.attempt.then = f"ServerError: {error}", "raised"
        raise error
    return answer


def _one_receipt(calls: Sequence[Call]) -> Receipt:
    """The receipt of several requests: all their attempts, batch by batch, and what they cost together."""
    first = calls[0].receipt
    tried = [call.receipt for call in calls if call.receipt.attempts]
    for receipt in tried:
        if receipt.attempts[-1].then == "cancelled":
            receipt.attempts[-1].then = "cancelled: another batch failed"
    cost, state = total_cost(*((receipt.cost, receipt.cost_state) for receipt in tried)) if tried else (None, "unknown")
    return Receipt(
        model_name=first.model_name,
        provider=first.provider,
        why=first.why,
        attempts=[attempt for receipt in tried for attempt in receipt.attempts],
        options=first.options,
        renamed=first.renamed,
        dropped=first.dropped,
        cost=cost,
        cost_state=state,
        currency=first.currency,
    )


def _sum(usages: Iterator[Usage]) -> Usage:
    parts = list(usages)

    def total(name: str) -> Any:
        counts = [getattr(part, name) for part in parts]
        return None if None in counts else sum(counts)

    return Usage(total("input_tokens"), 0, cached_tokens=total("cached_tokens"), cost=total("cost"))
