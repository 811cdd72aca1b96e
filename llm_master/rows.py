"""The two kinds of row: what is known of a provider, and what is known of a model.

A row is data and states only what differs from the defaults. Rows are frozen; ``attrs.evolve`` makes a changed one.
A row that is wrong says all that is wrong with it at once.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Any, TypeVar

import attrs

from llm_master.errors import ConfigurationError, PricingError
from llm_master.row_checks import Capability, capability_faults, positive_int, provider_faults

_Row = TypeVar("_Row")


def canonical(name: str) -> str:
    """A provider's name as it is compared: case does not matter, nor do ``-`` and ``_``."""
    return name.lower().replace("-", "_")


def _tuple(value: Any) -> Any:
    # A lone string stays what it is, so that the check can say what to write instead.
    return tuple(value) if isinstance(value, (list, set, frozenset)) else value


def _names(value: Any) -> Any:
    # One variable is the common case, and a lone name cannot be meant otherwise.
    return (value,) if isinstance(value, str) else _tuple(value)


def _masked(key: Any) -> str:
    return "'***'" if key else "None"


def _names_only(value: Any) -> str:
    # A value may be a key.
    return "{" + ", ".join(f"{name!r}: '***'" for name in value) + "}" if isinstance(value, Mapping) else "'***'"


def _dict(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


def _lists(value: Any) -> Any:
    return {name: _names(listed) for name, listed in value.items()} if isinstance(value, Mapping) else value


def _models(value: Any) -> Any:
    """Accept ``["a", "b"]``, ``{"a": "id"}`` and ``{"a": {"id": ..., "options": {...}}}``."""
    if isinstance(value, (list, tuple)):
        return {name: {} for name in value}
    if isinstance(value, Mapping):
        return {k: {"id": v} if isinstance(v, str) else dict(v) if isinstance(v, Mapping) else v for k, v in value.items()}
    return value


@attrs.frozen(kw_only=True)
class ProviderConfig:
    """One provider: a row of ``PROVIDER_CONFIGS``.

    Attributes:
        name: Key of the row; filled in by the table.
        display_name: For people; the name if empty.
        display_names: Host -> what the provider is called where settings put it there.
        host_classes: Host -> the ``provider_class`` of the row where settings put it there.
        provider_class: A ``BaseLLMProvider`` subclass, or ``"package.module:Class"``; ``UnifiedProvider`` if ``None``.
        client_class: The SDK class behind ``provider.client``, or ``"package.module:Class"``.
        enabled: ``False`` takes the provider out: nothing is sent to it.
        base_url: The API's address up to and without ``/chat/completions``. ``None``: must be set by ``<NAME>_API_BASE``.
        base_url_env: Variables in which the address is looked for after ``<NAME>_API_BASE`` and ``<NAME>_BASE_URL``.
        default_path: Added to an address that settings give without a path.
        query: Added to every URL.
        headers: Added to every request; one of them may replace ours.
        prefixes: Model names that begin so belong here, where the prefix is the longest of the table.
        models: Declared models: name -> ``{"id": wire id, "options": {...}}``, both optional.
        aliases: Other names of this provider.
        default_model: Wire id used where only the provider is named. ``model`` is accepted for it.
        api_key: A key given directly. It is shown nowhere.
        api_key_env: Variables looked at after ``<NAME>_API_KEY``, in order.
        api_key_attr: The key's name among ``LLMConfig``'s attributes; ``<name>_api_key`` if empty.
        key_url: Page on which a key is made.
        start_command: What starts it, of a server on the user's own machine; said where nothing answers.
        requires_key: Whether a call without a key is refused before it is sent.
        generate_map: Model name -> async function ``(provider, messages, model, **options)``; the name of such a method of
            the provider's class; a provider class, for a model that speaks another wire format under the same key; or
            ``"package.module:name"`` of a function or class. A name may end in ``*``, which stands for any rest, or in
            ``{model}``, where the rest is the wire id.
        paths: Where an operation is, where that is not OpenAI's place: a path below ``base_url``, or a whole URL. Of ``embed``,
            ``moderate``, ``rerank``, ``models`` (the list), ``key`` (anything that a ``GET`` shows, free of charge, to a valid key only),
            ``oauth`` (where tokens are fetched).
        embed_batch_size: Inputs that one embedding request may hold.
        embed_batch_tokens: Tokens that they may have together. They are estimated, so leave room.
        takes_urls: Which kinds of media the API fetches by itself: of ``image``, ``audio``, ``file``. Others are fetched here.
        structured_output: How an answer of a wanted form is asked for, of models of which that is not known: ``json_schema``,
            ``tool``, ``json_object`` or ``prompt``.
        capabilities: What works over this row: some or other of its models does it, and the library carries it. It is what
            docs/providers.md says and the tests check; what a model does is its own row's matter, and nothing is refused by this.
        supports_caching: Whether the provider caches prompts.
        skip_cost_calculation: Cost is never calculated (what the provider bills itself still counts).
        currency: ISO 4217 code of the provider's prices.
        rps: Requests per second of one quota, over all models; ``None`` is no limit, here and below.
        rpm: The same per minute.
        rpd: The same per day.
        tpm: Tokens per minute, those that come in and go out together.
        input_tpm: Tokens that go in, where the provider limits them apart.
        output_tpm: Tokens that come out.
        max_concurrent: Requests in flight to this provider.
        max_concurrent_per_key: The same for each key.
        rotation_mode: How keys are used: ``balanced``, or ``sequential``, one until it fails, for the provider's cache.
        key_priorities: Name of a key's variable -> its priority, 0 if it is not named: keys of a higher one are used before others.
        ignore_models: Globs of models that are not to be asked.
        whitelist_models: Globs of models that are to be asked although ``ignore_models`` names them.
        quota: Name of the quota that all keys share, also with other rows that name it; or name of a key's variable -> name of
            its quota. Keys that are not named have each a quota of their own. A limit, or a 429, holds for a quota.
        timeout: Seconds for one attempt; of a stream, to the first delta and between deltas.
        max_retries: Repetitions after a failure that may pass; 0 means one send.
        verify_ssl: Whether the server's certificate is checked.
        ca_bundle: Path of a PEM file with the authorities to trust.
        scope: OAuth scope, where the provider has one.
        folder_id: Cloud folder, where the provider has one.
        region: Cloud region, where the provider has one; it takes the place of ``{region}`` in ``base_url``.
        field_env: Field of the row -> variables that set it, the first that is set: ``{"region": ("ACME_REGION",)}``. ``query.NAME``
            is a parameter of ``query``, and may also stand behind a ``?`` in an address that settings give.
        ambient_keys: Variable -> the key that its being set stands for, where no key is given: ``{"ACME_ID": "{ACME_ID}:{ACME_SECRET}"}``.
            ``{VARIABLE}`` is replaced by what that variable holds; ``[...]`` around it is left out where it holds nothing.
        telemetry_name: What OpenTelemetry's conventions call the provider (``gen_ai.provider.name``); the name if empty.
        renames: Options that this API knows under another name: ours -> its. ``None``: the API refuses it.
        returns: Fields of an answer's message that the API wants back in the next turn, of those that our messages have no
            word for: ``reasoning``, ``reasoning_content``, ``reasoning_details``; ``content``, where it holds more than text;
            ``annotations``, of which only those on files go back. ``answer.message`` carries them.
        reasoning_tag: In which tag the API leaves the reasoning at the beginning of the text, as ``think``: it becomes
            ``answer.reasoning``, and the text begins behind it.
    """

    name: str = ""
    display_name: str = ""
    display_names: Mapping[str, str] = attrs.field(factory=dict, converter=_dict)
    host_classes: Mapping[str, str] = attrs.field(factory=dict, converter=_dict)
    provider_class: type | str | None = None
    client_class: Callable[..., Any] | str = "openai:AsyncOpenAI"
    enabled: bool = True
    base_url: str | None = None
    base_url_env: tuple[str, ...] = attrs.field(default=(), converter=_names)
    default_path: str = ""
    query: Mapping[str, str] = attrs.field(factory=dict, converter=_dict, repr=_names_only)
    headers: Mapping[str, str] = attrs.field(factory=dict, converter=_dict, repr=_names_only)
    prefixes: tuple[str, ...] = attrs.field(default=(), converter=_tuple)
    models: Mapping[str, Mapping[str, Any]] = attrs.field(factory=dict, converter=_models)
    aliases: tuple[str, ...] = attrs.field(default=(), converter=_tuple)
    default_model: str | None = None
    _model: str | None = attrs.field(default=None, alias="model", repr=False, eq=False)
    api_key: str | None = attrs.field(default=None, repr=_masked)
    api_key_env: tuple[str, ...] = attrs.field(default=(), converter=_names)
    api_key_attr: str = ""
    key_url: str = ""
    start_command: str = ""
    requires_key: bool = True
    generate_map: Mapping[str, Callable[..., Any] | str] = attrs.field(factory=dict, converter=_dict)
    paths: Mapping[str, str] = attrs.field(factory=dict, converter=_dict)
    embed_batch_size: int = 2048
    embed_batch_tokens: int = 100_000
    takes_urls: tuple[str, ...] = attrs.field(default=("image",), converter=_tuple)
    structured_output: str = "json_schema"
    capabilities: tuple[str, ...] = attrs.field(default=("chat", "streaming"), converter=_tuple)
    supports_caching: bool = False
    skip_cost_calculation: bool = False
    currency: str = "USD"
    rps: int | None = None
    rpm: int | None = None
    rpd: int | None = None
    tpm: int | None = None
    input_tpm: int | None = None
    output_tpm: int | None = None
    max_concurrent: int | None = None
    max_concurrent_per_key: int | None = None
    rotation_mode: str = "balanced"
    key_priorities: Mapping[str, int] = attrs.field(factory=dict, converter=_dict)
    ignore_models: tuple[str, ...] = attrs.field(default=(), converter=_names)
    whitelist_models: tuple[str, ...] = attrs.field(default=(), converter=_names)
    quota: str | Mapping[str, str] | None = attrs.field(default=None, converter=_dict)
    timeout: float = 600
    max_retries: int = 2
    verify_ssl: bool = True
    ca_bundle: str | None = None
    scope: str | None = None
    folder_id: str | None = None
    region: str | None = None
    field_env: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict, converter=_lists)
    ambient_keys: Mapping[str, str] = attrs.field(factory=dict, converter=_dict)
    telemetry_name: str = ""
    renames: Mapping[str, str | None] = attrs.field(factory=dict, converter=_dict)
    returns: tuple[str, ...] = attrs.field(default=(), converter=_names)
    reasoning_tag: str = ""

    def __attrs_post_init__(self) -> None:
        if self._model is not None:
            object.__setattr__(self, "default_model", self._model)
            object.__setattr__(self, "_model", None)
        if faults := provider_faults(self):
            raise ConfigurationError(_report(f"provider row {self.name!r}" if self.name else "provider row", faults))

    @property
    def model(self) -> str | None:
        """``default_model``, by the name that providers written for other libraries read."""
        return self.default_model

    @classmethod
    def from_mapping(cls, name: str, fields: Mapping[str, Any]) -> ProviderConfig:
        """Make a row of its plain-dict form, as it stands in a guide, a TOML table or a JSON file."""
        return _from_mapping(cls, f"provider row {name!r}", {**fields, "name": name})


def key_attr(row: ProviderConfig) -> str:
    """The name of a provider's key among ``LLMConfig``'s attributes."""
    return row.api_key_attr or f"{canonical(row.name)}_api_key"


def key_variables(row: ProviderConfig) -> tuple[str, ...]:
    """The variables in which a provider's key is looked for, in order."""
    return tuple(dict.fromkeys((f"{canonical(row.name).upper()}_API_KEY", *row.api_key_env)))


def base_variable(row: ProviderConfig) -> str:
    """The variable that replaces a provider's address."""
    return f"{canonical(row.name).upper()}_API_BASE"


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


RATES: tuple[str, ...] = ("rps", "rpm", "rpd", "tpm", "input_tpm", "output_tpm")
"""Fields of a provider's row that limit a rate; a model's are called the same behind ``rate_limit_``."""

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
    renames: Mapping[str, str | None] = attrs.field(factory=dict, converter=_dict)
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
                    raise PricingError(f"model row: {field} is {value!r}; give a number of at least 0, or None if unknown")
        faults = [
            f"{field} is {getattr(self, field)!r}: give a whole number above 0, or None if there is no limit or it is unknown"
            for field in (*(f"rate_limit_{rate}" for rate in RATES), "max_concurrent", "context_window", "max_output_tokens")
            if not positive_int(getattr(self, field))
        ]
        if not _is_day(self.prices_hold_until):
            faults.append(f"prices_hold_until is {self.prices_hold_until!r}: give a day as 2026-12-01")
        faults += capability_faults(self.capabilities)
        if faults:
            raise ConfigurationError(_report("model row", faults))

    def lacks(self, word: Capability) -> bool:
        """Whether the model is documented not to do this. Of what is not known the answer is ``False``."""
        return self.capabilities.get(word) is False

    @classmethod
    def from_mapping(cls, name: str, fields: Mapping[str, Any]) -> ModelConfig:
        """Make a row of its plain-dict form."""
        try:
            return _from_mapping(cls, f"model row {name!r}", fields)
        except PricingError as exc:
            raise PricingError(str(exc).replace("model row", f"model row {name!r}", 1)) from exc


def _report(what: str, faults: list[str]) -> str:
    return f"{what}: " + ("; ".join(faults) if len(faults) == 1 else "".join(f"\n  - {fault}" for fault in faults))


def _from_mapping(cls: type[_Row], what: str, fields: Mapping[str, Any]) -> _Row:
    known = [a.alias or a.name for a in attrs.fields(cls)]  # type: ignore[arg-type]  # both kinds of row are attrs classes
    faults = []
    for key in fields:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            faults.append(f"{key!r} is no field" + (f": did you mean {near[0]!r}?" if near else f"; the fields are {', '.join(known)}"))
    try:
        row = cls(**{k: v for k, v in fields.items() if k in known})
    except ConfigurationError as exc:
        # The row's own faults and the unknown keys are one report.
        faults += [line.strip("- ").strip() for line in str(exc).partition(": ")[2].split("\n") if line.strip()]
    if faults:
        raise ConfigurationError(_report(what, faults))
    return row
