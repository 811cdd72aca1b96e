"""A model's row: what is known of a model, its prices, limits and capabilities.

As a provider's, it is data and states only what is known; it is frozen, and says all that is wrong with it at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Any

import attrs

from llm_master.errors import ConfigurationError, PricingError
from llm_master.row_checks import Capability, capability_faults, positive_int
from llm_master.rows import RATES, from_mapping, plain_dict, report


@attrs.frozen(kw_only=True)
class PriceTier:
    """Prices that hold for a whole request with more than ``above_input_tokens`` tokens of input."""

    above_input_tokens: int
    input_price_per_million: Decimal | None = None
    output_price_per_million: Decimal | None = None
    cached_input_price_per_million: Decimal | None = None
    cache_write_price_per_million: Decimal | None = None
    cache_write_1h_price_per_million: Decimal | None = None
    audio_input_price_per_million: Decimal | None = None
    audio_output_price_per_million: Decimal | None = None
    image_input_price_per_million: Decimal | None = None


def _price(value: Any) -> Any:
    # float goes through its shortest text, so that 0.1 is a tenth and not 0.1000000000000000055.
    if value is None or isinstance(value, (Decimal, bool)):
        return value
    try:
        return Decimal(str(value))
    except InvalidOperation:
        return value


def _tiers(value: Any) -> Any:
    if not isinstance(value, (list, tuple)):
        return value
    known = {field.name for field in attrs.fields(PriceTier)}
    return tuple(
        PriceTier(**{k: v if k == "above_input_tokens" else _price(v) for k, v in tier.items()})
        if isinstance(tier, Mapping) and "above_input_tokens" in tier and tier.keys() <= known
        else tier
        for tier in value
    )


def _shown(value: Any) -> str:
    return str(value) if isinstance(value, Decimal) else repr(value)


def _is_price(value: Any) -> bool:
    return value is None or (isinstance(value, Decimal) and value.is_finite() and value >= 0)


def _is_tier(tier: Any) -> bool:
    return isinstance(tier, PriceTier) and isinstance(tier.above_input_tokens, int) and tier.above_input_tokens >= 0


def _is_day(value: Any) -> bool:
    return value is None or (isinstance(value, str) and len(value) == 10 and _is_date(value))


def _is_date(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


class _ReadOnly(dict[str, bool]):
    """A dict that stays as it was made: rows are shared. It compares, copies, pickles and encodes as a dict does."""

    def _refuse(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("the capabilities of a row do not change: make a changed row with attrs.evolve")

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse

    def __hash__(self) -> int:  # type: ignore[override]  # a dict has none, because it changes
        return hash(frozenset(self.items()))

    def __reduce__(self) -> tuple[type[_ReadOnly], tuple[dict[str, bool]]]:
        # The usual way fills an empty one item by item.
        return _ReadOnly, (dict(self),)


def _capabilities(value: Any) -> Any:
    """Accept ``{"tools": True, "vision": False}``, ``["tools"]`` for what the model does, and ``None`` for nothing known."""
    if value is None:
        return _ReadOnly()
    if isinstance(value, Mapping):
        return _ReadOnly(value)
    if isinstance(value, (list, tuple, set, frozenset)) and all(isinstance(word, str) for word in value):
        return _ReadOnly(dict.fromkeys(value, True))
    return value


PRICES = (
    "input_price_per_million",
    "output_price_per_million",
    "cached_input_price_per_million",
    "cache_write_price_per_million",
    "cache_write_1h_price_per_million",
    "price_per_image",
    "price_per_request",
    "price_per_web_search",
    "audio_input_price_per_million",
    "audio_output_price_per_million",
    "image_input_price_per_million",
    "price_per_million_characters",
    "price_per_search_unit",
)
"""Fields of a model's row, and of a tier where it has them, that are prices."""


@attrs.frozen(kw_only=True)
class ModelConfig:
    """One model: a row of ``ModelRegistry``. What is not known is ``None``.

    Attributes:
        provider: Name of the provider's row, for a model registered under its bare name.
        input_price_per_million: Price of a million input tokens, in the provider's currency.
        output_price_per_million: The same for output tokens, reasoning included.
        cached_input_price_per_million: The same for input tokens read from the provider's cache.
        cache_write_price_per_million: The same for input tokens written to it.
        cache_write_1h_price_per_million: The same for input tokens written to it for an hour.
        audio_input_price_per_million: The same for input tokens that are audio.
        audio_output_price_per_million: The same for output tokens that are audio.
        image_input_price_per_million: The same for input tokens that are images, where those have their own price.
        price_per_image: Price of one image made.
        price_per_million_characters: Price of a million characters spoken.
        price_per_search_unit: Price of one unit in which rankings are billed.
        price_per_request: Price of one request, beside its tokens.
        price_per_web_search: Price of one search that the provider makes for the answer.
        price_tiers: Prices of requests with longer input; the highest one passed holds for the whole request.
        prices_vary: The provider charges by time of day or by route, so that a cost by these prices is an estimate.
        prices_hold_until: ISO date of the first day on which these prices no longer hold; from then on, an estimate.
        rate_limit_rps: Requests per second of one quota; ``None`` is no limit, here and below.
        rate_limit_rpm: The same per minute.
        rate_limit_rpd: The same per day.
        rate_limit_tpm: Tokens per minute, those that come in and go out together.
        rate_limit_input_tpm: Tokens that go in, where the provider limits them apart.
        rate_limit_output_tpm: Tokens that come out.
        max_concurrent: Requests in flight with one quota.
        context_window: Tokens of input and output together.
        max_output_tokens: Tokens of output.
        supports_streaming: ``False`` only where the model is known not to stream.
        capabilities: What the model is documented to do (``True``) and not to do (``False``); what is absent is not known. Read-only.
            A list of words says that it does them. The words are those of :data:`~llm_master.row_checks.CAPABILITIES`.
        renames: Options that this model knows under another name: ours -> its.
        source: Where the prices are published.
        as_of: ISO date of the day they were read there.
        note: Anything a reader should know.
    """

    provider: str | None = None
    input_price_per_million: Decimal | None = attrs.field(default=None, converter=_price)
    output_price_per_million: Decimal | None = attrs.field(default=None, converter=_price)
    cached_input_price_per_million: Decimal | None = attrs.field(default=None, converter=_price)
    cache_write_price_per_million: Decimal | None = attrs.field(default=None, converter=_price)
    cache_write_1h_price_per_million: Decimal | None = attrs.field(default=None, converter=_price)
    audio_input_price_per_million: Decimal | None = attrs.field(default=None, converter=_price)
    audio_output_price_per_million: Decimal | None = attrs.field(default=None, converter=_price)
    image_input_price_per_million: Decimal | None = attrs.field(default=None, converter=_price)
    price_per_image: Decimal | None = attrs.field(default=None, converter=_price)
    price_per_million_characters: Decimal | None = attrs.field(default=None, converter=_price)
    price_per_search_unit: Decimal | None = attrs.field(default=None, converter=_price)
    price_per_request: Decimal | None = attrs.field(default=None, converter=_price)
    price_per_web_search: Decimal | None = attrs.field(default=None, converter=_price)
    price_tiers: tuple[PriceTier, ...] = attrs.field(default=(), converter=_tiers)
    prices_vary: bool = False
    prices_hold_until: str | None = None
    rate_limit_rps: int | None = None
    rate_limit_rpm: int | None = None
    rate_limit_rpd: int | None = None
    rate_limit_tpm: int | None = None
    rate_limit_input_tpm: int | None = None
    rate_limit_output_tpm: int | None = None
    max_concurrent: int | None = None
    context_window: int | None = None
    max_output_tokens: int | None = None
    supports_streaming: bool = True
    capabilities: Mapping[str, bool] = attrs.field(default=None, converter=_capabilities)
    renames: Mapping[str, str | None] = attrs.field(factory=dict, converter=plain_dict)
    source: str | None = None
    as_of: str | None = None
    note: str | None = None

    def __attrs_post_init__(self) -> None:
        tiers = self.price_tiers
        if not isinstance(tiers, tuple) or not all(_is_tier(tier) for tier in tiers):
            shape = '[{"above_input_tokens": 200000, "input_price_per_million": ...}]'
            raise ConfigurationError(f"model row: price_tiers is {tiers!r}: give {shape}")
        for row in (self, *tiers):
            for field in PRICES:
                value = getattr(row, field, None)
                if not _is_price(value):
                    raise PricingError(f"model row: {field} is {_shown(value)}; give a number of at least 0, or None if unknown")
        faults = [
            f"{field} is {_shown(getattr(self, field))}: give a whole number above 0, or None if there is no limit or it is unknown"
            for field in (*(f"rate_limit_{rate}" for rate in RATES), "max_concurrent", "context_window", "max_output_tokens")
            if not positive_int(getattr(self, field))
        ]
        if not _is_day(self.prices_hold_until):
            faults.append(f"prices_hold_until is {self.prices_hold_until!r}: give a day as 2026-12-01")
        faults += capability_faults(self.capabilities)
        if faults:
            raise ConfigurationError(report("model row", faults))

    def lacks(self, word: Capability) -> bool:
        """Whether the model is documented not to do this. Of what is not known the answer is ``False``."""
        return self.capabilities.get(word) is False

    @classmethod
    def from_mapping(cls, name: str, fields: Mapping[str, Any]) -> ModelConfig:
        """Make a row of its plain-dict form."""
        try:
            return from_mapping(cls, f"model row {name!r}", fields)
        except PricingError as exc:
            raise PricingError(str(exc).replace("model row", f"model row {name!r}", 1)) from exc
