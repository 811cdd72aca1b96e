"""What ``QueryLLM`` does beside querying: embed, moderate, rerank, speak, count, estimate."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

from llm_master.dispatch.call import Call, total_cost
from llm_master.dispatch.estimate import estimate_tokens, text_tokens
from llm_master.engine import Engine
from llm_master.errors import ContentPolicyError, InvalidRequestError, LLMError, ServerError
from llm_master.pricing import PriceList
from llm_master.provider_configs import MODERATION_MODEL
from llm_master.providers.base import BaseLLMProvider
from llm_master.results import CostEstimate, EmbeddingResponse, ModerationResponse, RerankResponse, TokenCount
from llm_master.types import CostState, LLMResponse, Message, Receipt, Usage

_AT_ONCE = 4
"""Batches of one ``embed`` in flight."""

_BATCH_TOKENS = 200_000
"""Tokens of one batch, estimated. OpenAI takes 300,000: https://platform.openai.com/docs/api-reference/embeddings/create"""


async def embed(
    engine: Engine,
    model_name: str,
    inputs: str | Sequence[str],
    timeout: float | None,
    deadline: float,
    extra_body: Mapping[str, Any] | None,
    options: Mapping[str, Any],
) -> EmbeddingResponse:
    """Vectors of all inputs, asked for in batches."""
    texts = _texts(inputs, "inputs")
    size = engine.target(model_name).row.embed_batch_size
    calls = [
        engine.operation("embed", "embedding", model_name, (batch,), timeout, deadline, extra_body, dict(options))
        for batch in _batches(texts, size)
    ]
    if len(calls) == 1:
        answer: EmbeddingResponse = await calls[0].answer()
        _check_vectors(answer, len(texts), model_name)
        return answer
    began = calls[0].clock.monotonic()
    free = asyncio.Semaphore(_AT_ONCE)

    async def send(call: Call) -> EmbeddingResponse:
        async with free:
            part: EmbeddingResponse = await call.answer()
            _check_vectors(part, len(call.messages[0]), model_name)
            return part

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(send(call)) for call in calls]
    except* LLMError as errors:
        error = errors.exceptions[0]
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        assert isinstance(error, LLMError)
        error.receipt = _one_receipt(calls)
        raise error from error.__cause__
    parts = [task.result() for task in tasks]
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
    engine: Engine, model_name: str | None, inputs: str | Sequence[Any], timeout: float | None, deadline: float, options: Mapping[str, Any]
) -> ModerationResponse:
    """The judgement on each input."""
    if isinstance(inputs, str):
        inputs = [inputs]
    if not isinstance(inputs, Sequence) or not inputs or not all(isinstance(item, (str, list, tuple)) and item for item in inputs):
        raise InvalidRequestError("inputs of moderate(): give a text, or a list of texts that are not empty, or of lists of content parts")
    name = model_name or engine.snapshot.options.moderation_model or MODERATION_MODEL
    call = engine.operation("moderate", "moderation", name, (list(inputs),), timeout, deadline, None, dict(options))
    answer: ModerationResponse = await call.answer()
    return answer


def judge(engine: Engine) -> Callable[[Call], Awaitable[None]]:
    """The step of a query that has its conversation judged before it is sent."""

    async def judge_request(call: Call) -> None:
        answer = await moderate(engine, None, _said(call.messages), None, call.time_left()[0], {})
        receipt = answer.receipt
        assert receipt is not None
        call.receipt.attempts += receipt.attempts
        call.spent = (receipt.cost, receipt.cost_state)
        if answer.flagged:
            call.receipt.cost, call.receipt.cost_state = call.spent
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
    deadline: float,
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
    engine: Engine, model_name: str, text: str, timeout: float | None, deadline: float, options: Mapping[str, Any]
) -> LLMResponse:
    """A text, spoken."""
    if not isinstance(text, str) or not text.strip():
        raise InvalidRequestError(f"text is {text!r}: give a text that is not empty")
    messages = [{"role": "user", "content": text}]
    call = engine.operation("speech", "speech", model_name, (messages,), timeout, deadline, None, dict(options))
    answer: LLMResponse = await call.answer()
    return answer


async def count_tokens(call: Call) -> TokenCount:
    """The provider's count, or an estimate where it has none."""
    if call.before is not None:
        await call.prepare()
    provider: BaseLLMProvider = call.provider  # type: ignore[assignment]  # dispatch knows only what it asks of one
    counted = None
    if call.target.route.generator is None:
        try:
            counted = await provider.count_tokens(call.messages, call.target.route.model, **call.options)
        except Exception as exc:
            raise call.translated(exc, is_deadline=False) from exc
    if counted is not None:
        return TokenCount(counted, exact=True)
    return TokenCount(estimate_tokens(call.messages, call.options.get("tools")), exact=False)


async def estimate_cost(call: Call, options: Mapping[str, Any]) -> CostEstimate:
    """The most that a query would cost, by estimated input and the output that is allowed."""
    target = call.target
    if target.look_up is not None:
        model = await asyncio.get_running_loop().run_in_executor(None, target.look_up)
        target.look_up, target.prices = None, PriceList(model) if model is not None else None
    tokens_in = estimate_tokens(call.messages, options.get("tools"))
    limits = (options.get("max_tokens"), options.get("max_completion_tokens"), target.max_output_tokens)
    tokens_out = next((limit for limit in limits if isinstance(limit, int)), None)
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


def _batches(texts: list[str], size: int) -> Iterator[list[str]]:
    batch: list[str] = []
    tokens = 0
    for text in texts:
        its = text_tokens(text)
        if batch and (len(batch) == size or tokens + its > _BATCH_TOKENS):
            yield batch
            batch, tokens = [], 0
        batch.append(text)
        tokens += its
    yield batch


def _check_vectors(answer: EmbeddingResponse, expected: int, model_name: str) -> None:
    if len(answer) != expected:
        raise ServerError(f"{model_name} answered {len(answer)} vectors for {expected} inputs", provider=answer.provider)


def _one_receipt(calls: Sequence[Call]) -> Receipt:
    """The receipt of several requests: all their attempts, batch by batch, and what they cost total_cost."""
    first = calls[0].receipt
    tried = [call.receipt for call in calls if call.receipt.attempts]
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
    counts = [part.input_tokens for part in parts]
    billed = [part.cost for part in parts]
    return Usage(
        None if None in counts else sum(count for count in counts if count is not None),
        0,
        cost=None if None in billed else sum((cost for cost in billed if cost is not None), start=type(billed[0])()),  # type: ignore[misc]
    )
