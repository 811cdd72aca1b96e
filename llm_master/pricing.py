"""What an answer cost. Money is ``Decimal``; what is not known is ``None``, never 0."""

from __future__ import annotations

import threading
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import attrs

from llm_master.model_rows import ModelConfig, PriceTier
from llm_master.types import CostState, Usage

_MILLION = Decimal(1_000_000)
STANDARD_TIERS = frozenset({None, "", "default", "auto", "standard", "on_demand"})
"""Service tiers at which the list price holds, as answers name them."""


class PriceList:
    """The prices of one model, per token, worked out once.

    What is not text has its own price, and without one the cost is unknown: audio never costs what text costs, and images made are in
    the count of tokens only of a model documented to make them (``image_output``), or have a ``price_per_image``. Images that a model
    reads are text tokens, unless its row has a price for them or it is one that makes images.
    """

    __slots__ = (
        "_audio_in",
        "_audio_out",
        "_beside_text",
        "_cached",
        "_image_in",
        "_input",
        "_makes_images",
        "_output",
        "_per_character",
        "_per_image",
        "_per_request",
        "_per_search",
        "_per_search_unit",
        "_tiers",
        "_uncertain_from",
        "_without_tokens",
        "_write",
        "_write_1h",
    )

    def __init__(self, row: ModelConfig) -> None:
        self._input = _per_token(row.input_price_per_million)
        self._output = _per_token(row.output_price_per_million)
        self._cached = _per_token(row.cached_input_price_per_million)
        self._write = _per_token(row.cache_write_price_per_million)
        self._write_1h = _per_token(row.cache_write_1h_price_per_million)
        self._per_request = row.price_per_request
        self._per_search = row.price_per_web_search
        self._audio_in = _per_token(row.audio_input_price_per_million)
        self._audio_out = _per_token(row.audio_output_price_per_million)
        self._image_in = _per_token(row.image_input_price_per_million)
        self._per_image = row.price_per_image
        self._per_character = _per_token(row.price_per_million_characters)
        self._per_search_unit = row.price_per_search_unit
        self._makes_images = row.price_per_image is not None or row.capabilities.get("image_output") is True
        has_units = any(price is not None for price in (self._per_image, self._per_character, self._per_search_unit))
        self._without_tokens = self._input is None and self._output is None and (has_units or self._per_request is not None)
        self._beside_text = has_units or self._without_tokens or self._image_in is not None or self._makes_images
        """Whether text tokens alone do not make the cost. Audio is not among it: the counts say where there was any."""
        self._tiers = [
            (tier.above_input_tokens, PriceList(_with_tier(row, tier)))
            for tier in sorted(row.price_tiers, key=lambda tier: -tier.above_input_tokens)
        ]
        self._uncertain_from: date | None = None
        if row.prices_vary:
            self._uncertain_from = date.min
        elif row.prices_hold_until:
            self._uncertain_from = date.fromisoformat(row.prices_hold_until)

    def cost(self, usage: Usage) -> tuple[Decimal | None, CostState]:
        """What ``usage`` costs, and how that is known."""
        if self._beside_text or usage.audio_input_tokens or usage.audio_output_tokens or usage.images:
            if usage.billed_input_tokens is not None or usage.billed_output_tokens is not None:
                usage = _as_billed(usage)
            return self._cost_beside_text(usage)
        return self._cost_of_text(usage)

    def _cost_of_text(self, usage: Usage) -> tuple[Decimal | None, CostState]:
        tokens_in, tokens_out = usage.input_tokens, usage.output_tokens
        cached, written = usage.cached_tokens, usage.cache_write_tokens
        if usage.billed_input_tokens is not None or usage.billed_output_tokens is not None:
            # Whether any of what is billed were cached, who says so does not say.
            tokens_in, tokens_out, cached, written = usage.billed_input_tokens, usage.billed_output_tokens, None, None
        if not _are_counts(tokens_in, tokens_out, cached, written):
            return None, "unknown"
        if tokens_in is None or self._input is None or usage.others_worked:
            return None, "unknown"
        for above, prices in self._tiers:
            if tokens_in > above:
                tier_cost, tier_state = prices.cost(usage)
                return tier_cost, self._state(tier_state)
        if tokens_out is None or (self._output is None and tokens_out):
            return None, "unknown"
        state: CostState = "exact"
        if (cached and self._cached is None) or (cached is None and self._cached is not None):
            # No price for what was cached, or no count of it: the full price is an upper bound.
            cached, state = 0, "estimated"
        written = written or 0
        if written and self._write is None:
            # Counted as if it had not been written, which may be too little as well as too much.
            written, state = 0, "estimated"
        if (cached or 0) + written > tokens_in:
            # Counts that contradict our convention would make a negative price; better none.
            return None, "unknown"
        cost = (tokens_in - (cached or 0) - written) * self._input
        if cached and self._cached is not None:
            cost += cached * self._cached
        if written and self._write is not None:
            for_an_hour = min(usage.cache_write_1h_tokens or 0, written)
            if for_an_hour and self._write_1h is None:
                return None, "unknown"  # dearer than the other kind, by how much is not known
            cost += (written - for_an_hour) * self._write + for_an_hour * (self._write_1h or 0)
        if tokens_out and self._output is not None:
            cost += tokens_out * self._output
        if self._per_request is not None:
            cost += self._per_request
        if usage.web_searches:
            if self._per_search is None:
                return None, "unknown"
            cost += usage.web_searches * self._per_search
        return cost, self._state(state)

    def _cost_beside_text(self, usage: Usage) -> tuple[Decimal | None, CostState]:
        tokens_in, tokens_out = usage.input_tokens, usage.output_tokens
        audio_in, audio_out, images_in = usage.audio_input_tokens or 0, usage.audio_output_tokens or 0, usage.image_input_tokens
        if not _are_counts(tokens_in, tokens_out, audio_in, audio_out, images_in, usage.images, usage.characters, usage.search_units):
            return None, "unknown"
        for above, prices in self._tiers:
            if tokens_in is not None and tokens_in > above:
                tier_cost, tier_state = prices.cost(usage)
                return tier_cost, self._state(tier_state)
        if usage.images and self._per_image is None and not self._makes_images:
            return None, "unknown"
        cost = Decimal(0)
        for count, price in (
            (usage.images, self._per_image),
            (usage.characters, self._per_character),
            (usage.search_units, self._per_search_unit),
        ):
            if price is not None:
                if count is None:
                    return None, "unknown"
                cost += count * price
        if self._without_tokens:
            if usage.others_worked or usage.web_searches:
                return None, "unknown"
            return cost + (self._per_request or 0), self._state("exact")
        if tokens_in is None or tokens_out is None or (audio_in and self._audio_in is None) or (audio_out and self._audio_out is None):
            return None, "unknown"
        state: CostState = "exact"
        if self._image_in is None:
            if images_in and self._makes_images:
                return None, "unknown"
            images_in = 0
        elif images_in is None:
            images_in = 0
            if self._makes_images:
                # It may have been given images; the dearer price for all is an upper bound.
                images_in, state = tokens_in - audio_in if self._input is None or self._image_in > self._input else 0, "estimated"
        cached = usage.cached_tokens
        if audio_in or images_in:
            # How many of them were cached or written nobody says: the full price is an upper bound, if nothing was written.
            if usage.cache_write_tokens or (cached.__class__ is int and cached is not None and cached > tokens_in):
                return None, "unknown"
            if cached:
                cached, state = 0, "estimated"
        if audio_in + images_in > tokens_in or audio_out > tokens_out:
            return None, "unknown"
        text, text_state = self._cost_of_text(
            attrs.evolve(usage, input_tokens=tokens_in - audio_in - images_in, output_tokens=tokens_out - audio_out, cached_tokens=cached)
        )
        if text is None:
            return None, "unknown"
        for count, price in ((audio_in, self._audio_in), (audio_out, self._audio_out), (images_in, self._image_in)):
            if price is not None:
                cost += count * price
        return cost + text, "estimated" if state == "estimated" else text_state

    def _state(self, state: CostState) -> CostState:
        if self._uncertain_from is not None and datetime.now(UTC).date() >= self._uncertain_from:
            return "estimated"
        return state


def _as_billed(usage: Usage) -> Usage:
    """Usage with the counts that a provider charges for in place of the others."""
    return attrs.evolve(
        usage,
        input_tokens=usage.billed_input_tokens,
        output_tokens=usage.billed_output_tokens,
        billed_input_tokens=None,
        billed_output_tokens=None,
        cached_tokens=None,
        cache_write_tokens=None,
    )


def _are_counts(*values: Any) -> bool:
    """Whether what a provider's class gave as counts can be such; a class of a user's own may give anything."""
    for value in values:  # noqa: SIM110  # all() with a generator takes twice as long, on every answer
        if value is not None and (value.__class__ is not int or value < 0):
            return False
    return True


def _per_token(per_million: Decimal | None) -> Decimal | None:
    return None if per_million is None else per_million / _MILLION


def _with_tier(row: ModelConfig, tier: PriceTier) -> ModelConfig:
    stated = {name: price for name, price in attrs.asdict(tier).items() if name != "above_input_tokens" and price is not None}
    # That prices vary is said of the whole row, by the list that holds this one.
    return attrs.evolve(row, price_tiers=(), prices_vary=False, prices_hold_until=None, **stated)


_looked_up: dict[tuple[str, str], ModelConfig | None] = {}
_lookup_lock = threading.Lock()


def may_look_up(base_url: str | None) -> bool:
    """Whether a provider at this address can be in a public price list: a server of one's own is not.

    The list takes 0.4 s of CPU and 30 MB to load, so it is not loaded to learn that.
    """
    if base_url is None or not base_url.startswith("https://"):
        return False
    host = base_url.split("/")[2].rpartition("@")[2]
    host = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return "." in host and not host.endswith((".local", ".internal", ".localhost")) and not host.replace(".", "").isdigit()


def look_up(base_url: str, model: str) -> ModelConfig | None:
    """The prices of a model nobody registered, from the genai-prices package, or ``None``.

    Blocks while the list is loaded: call it off the event loop. Each model is looked up once per process.
    """
    key = (base_url, model)
    with _lookup_lock:
        if key not in _looked_up:
            _looked_up[key] = _look_up(base_url, model)
        return _looked_up[key]


def _look_up(base_url: str, model: str) -> ModelConfig | None:
    from genai_prices.data_snapshot import get_snapshot

    now = datetime.now(UTC)
    try:
        provider, info = get_snapshot().find_provider_model(model, None, None, base_url)
    except LookupError:
        return None
    prices = info.get_prices(now)
    names = {
        "input_price_per_million": "input_mtok",
        "output_price_per_million": "output_mtok",
        "cached_input_price_per_million": "cache_read_mtok",
        "cache_write_price_per_million": "cache_write_mtok",
        "cache_write_1h_price_per_million": "cache_write_1h_mtok",
        "audio_input_price_per_million": "input_audio_mtok",
        "audio_output_price_per_million": "output_audio_mtok",
    }
    base: dict[str, Any] = {}
    tiers: dict[int, dict[str, Any]] = {}
    for ours, theirs in names.items():
        price: Any = getattr(prices, theirs, None)
        if price is None:
            continue
        base[ours] = getattr(price, "base", price)
        for tier in getattr(price, "tiers", ()):
            tiers.setdefault(tier.start, {})[ours] = tier.price
    searches = getattr(prices, "web_searches_kcount", None)
    return ModelConfig(
        **base,
        price_per_web_search=searches / 1000 if searches is not None else None,
        price_tiers=tuple(PriceTier(above_input_tokens=start, **fields) for start, fields in sorted(tiers.items())),
        context_window=info.context_window,
        source=next(iter(provider.pricing_urls or ()), None),
        note="from the genai-prices package",
    )
