"""What the other methods of ``QueryLLM`` return: embeddings, rankings, judgements, counts, models, health."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal, TypeAlias

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


@attrs.frozen
class ListedModel:
    """A model that a provider has. ``str(model)`` is its id.

    Attributes:
        id: By which it is asked, behind the provider's name and a slash.
        declared: A row, the settings or ``ModelRegistry`` name it.
        discovered: The provider lists it.
        context_window: Tokens, by the provider, else as it is declared; ``None`` where nobody says.
        owned_by: Who made it, as the provider says.
        created: When, in seconds since 1970, as the provider says.
    """

    id: str
    declared: bool = attrs.field(default=False, kw_only=True)
    discovered: bool = attrs.field(default=True, kw_only=True)
    context_window: int | None = attrs.field(default=None, kw_only=True)
    owned_by: str | None = attrs.field(default=None, kw_only=True)
    created: float | None = attrs.field(default=None, kw_only=True)

    def __str__(self) -> str:
        return self.id


ListState: TypeAlias = Literal["listed", "no_list", "outage", "unusable"]


@attrs.frozen(kw_only=True)
class ProviderModels:
    """The models of one provider. Iterates over them; ``"an-id" in it`` looks for one.

    Attributes:
        provider: Name of its row.
        models: Those that it lists, in its order, and then those that are only declared, without the ignored ones.
        state: ``listed``; ``no_list``: it offers none; ``outage``: its list was asked for and did not come; ``unusable``: it cannot
            be asked. In all but the first, ``models`` are those that are declared.
        error: Why it is not ``listed``.
        source: Where the list came from: ``provider``, ``cache``, or ``declared`` where there is none.
        fetched_at: When the provider was asked, in seconds since 1970.
        latency: Seconds that its answer took; ``None`` from the cache.
    """

    provider: str
    models: tuple[ListedModel, ...] = ()
    state: ListState = "listed"
    error: str | None = None
    source: Literal["provider", "cache", "declared"] = "provider"
    fetched_at: float | None = None
    latency: float | None = None

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the models."""
        return tuple(model.id for model in self.models)

    def __len__(self) -> int:
        return len(self.models)

    def __iter__(self) -> Iterator[ListedModel]:
        return iter(self.models)

    def __contains__(self, model: object) -> bool:
        return any(model in (own, own.id) for own in self.models)


@attrs.frozen(eq=False)
class ModelList(Mapping[str, ProviderModels]):
    """Provider -> its models. ``str(found)`` is a list to read."""

    providers: Mapping[str, ProviderModels]

    @property
    def names(self) -> tuple[str, ...]:
        """``"provider/model"`` of every model that can be asked."""
        return tuple(f"{found.provider}/{model.id}" for found in self.values() if found.state != "unusable" for model in found)

    @property
    def outages(self) -> dict[str, str]:
        """The providers whose list was asked for and did not come, and why."""
        return {name: found.error or "" for name, found in self.items() if found.state == "outage"}

    def __getitem__(self, name: str) -> ProviderModels:
        return self.providers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.providers)

    def __len__(self) -> int:
        return len(self.providers)

    def __str__(self) -> str:
        lines = []
        for name, found in self.items():
            lines.append(f"{name}: {len(found)} models" if found.error is None else f"{name}: {len(found)} declared models ({found.error})")
            lines += [f"  {model}" for model in found]
        return "\n".join(lines)


HealthState: TypeAlias = Literal["valid", "unsupported", "invalid", "unreachable", "not_configured"]
"""How a key stands, the best first."""

_HEALTH_STATES: Sequence[str] = ("valid", "unsupported", "invalid", "unreachable", "not_configured")


@attrs.frozen(kw_only=True)
class KeyHealth:
    """How one key stands with its provider.

    Attributes:
        key: The key's name and last four characters, never the key; ``None`` where none is needed or there is none.
        state: ``valid``: the provider answers, and takes the key if it wants one; ``invalid``: it refused the key;
            ``unreachable``: no answer, or not the provider's; ``unsupported``: it answers, and what becomes of the key cannot be
            told without a request that is paid; ``not_configured``: a key or an address is missing, or it is switched off.
        detail: The reason in words.
        latency: Seconds to the answer; ``None`` where none came.
        status: HTTP status; ``None`` where there was none.
        models: How many models it lists for this key; ``None`` where it did not.
    """

    key: str | None = None
    state: HealthState
    detail: str
    latency: float | None = None
    status: int | None = None
    models: int | None = None


@attrs.frozen(kw_only=True)
class ProviderHealth:
    """How a provider stands: what is true of the best of its keys, and of each of them.

    Attributes:
        provider: Name of its row.
        keys: Each key; one entry without a key where none is needed.
    """

    provider: str
    key: str | None = None
    state: HealthState
    detail: str
    latency: float | None = None
    status: int | None = None
    models: int | None = None
    keys: tuple[KeyHealth, ...] = ()

    @classmethod
    def of(cls, provider: str, keys: Sequence[KeyHealth]) -> ProviderHealth:
        """What the health of its keys says of a provider."""
        best = min(keys, key=lambda key: _HEALTH_STATES.index(key.state))
        return cls(provider=provider, **attrs.asdict(best), keys=tuple(keys))
