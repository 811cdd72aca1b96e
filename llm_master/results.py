"""What the other methods of ``QueryLLM`` return: embeddings, rankings, judgements, counts."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

import attrs
import msgspec

from llm_master.types import CostState, Receipt, Usage, WireAnswer


@attrs.define(kw_only=True)
class Result:
    """What every one of them says beside its own.

    Attributes:
        model_name: The name that was asked for.
        usage: What was counted; ``None`` where the provider did not say.
        latency: Seconds from sending to the whole answer; of several requests, to the last.
        provider: Name of the provider's row.
        cost: What it cost, in ``receipt.currency``; ``None`` if not known.
        receipt: What was done.
        wire: The HTTP side of the answer; of several requests, of the last.
    """

    model_name: str = ""
    usage: Usage = attrs.field(factory=Usage)
    latency: float | None = None
    provider: str | None = None
    cost: Decimal | None = None
    receipt: Receipt | None = attrs.field(default=None, repr=False)
    wire: WireAnswer | None = attrs.field(default=None, repr=False, eq=False)

    @property
    def raw(self) -> Any:
        """The provider's JSON, decoded at each use."""
        return None if self.wire is None or self.wire.body is None else msgspec.json.decode(self.wire.body)


@attrs.define(kw_only=True)
class EmbeddingResponse(Result):
    """Vectors, in the order of the inputs. Iterates over them.

    Attributes:
        embeddings: One vector of 32-bit floats per input. numpy takes them without copying
            (``numpy.asarray(answer.embeddings)``), and ``.tolist()`` makes a list of one.
    """

    embeddings: list[array[float]] = attrs.field(factory=list, repr=lambda vectors: f"<{len(vectors)} vectors>")

    def __len__(self) -> int:
        return len(self.embeddings)

    def __getitem__(self, index: int) -> array[float]:
        return self.embeddings[index]

    def __iter__(self) -> Iterator[array[float]]:
        return iter(self.embeddings)


@attrs.define
class RerankResult:
    """One document with its place.

    Attributes:
        index: Which of the given documents.
        score: How relevant it is, as the provider counts; higher is more.
        document: The document itself.
    """

    index: int
    score: float
    document: str = attrs.field(repr=False)


@attrs.define(kw_only=True)
class RerankResponse(Result):
    """Documents by relevance, the most relevant first. Iterates over them."""

    results: list[RerankResult] = attrs.field(factory=list)

    def __len__(self) -> int:
        return len(self.results)

    def __getitem__(self, index: int) -> RerankResult:
        return self.results[index]

    def __iter__(self) -> Iterator[RerankResult]:
        return iter(self.results)


@attrs.define
class ModerationResult:
    """The judgement on one input.

    Attributes:
        flagged: Whether it goes against the provider's policy.
        categories: Each category, and whether the input falls into it.
        scores: Each category, and how sure the provider is, from 0 to 1.
    """

    flagged: bool
    categories: Mapping[str, bool] = attrs.field(factory=dict)
    scores: Mapping[str, float] = attrs.field(factory=dict, repr=False)


@attrs.define(kw_only=True)
class ModerationResponse(Result):
    """The judgement on each input, in order."""

    results: list[ModerationResult] = attrs.field(factory=list)

    @property
    def flagged(self) -> bool:
        """Whether any input is flagged."""
        return any(result.flagged for result in self.results)

    @property
    def categories(self) -> tuple[str, ...]:
        """The categories into which any input falls, by name."""
        return tuple(sorted({name for result in self.results for name, hit in result.categories.items() if hit}))


@attrs.frozen
class TokenCount:
    """How many tokens a conversation has.

    Attributes:
        tokens: The number.
        exact: The provider counted them; else they are estimated from the length of the text.
    """

    tokens: int
    exact: bool

    def __int__(self) -> int:
        return self.tokens


@attrs.frozen
class CostEstimate:
    """What a query would cost, at most, by the registered prices.

    Attributes:
        input_tokens: Tokens of the conversation, estimated.
        output_tokens: The most it may write: ``max_tokens`` of the call, else what the model can; ``None`` if neither is known.
        cost: The most it would cost; ``None`` if a price or ``output_tokens`` is not known.
        input_cost: What the input alone costs; ``None`` if its price is not known.
        currency: ISO 4217 code.
        state: How ``cost`` is known.
    """

    input_tokens: int
    output_tokens: int | None
    cost: Decimal | None
    input_cost: Decimal | None
    currency: str = "USD"
    state: CostState = "unknown"
