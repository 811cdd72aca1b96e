"""A provider's row: what is known of a provider. What is known of a model is in ``model_rows.py``.

A row is data and states only what differs from the defaults. Rows are frozen; ``attrs.evolve`` makes a changed one.
A row that is wrong says all that is wrong with it at once.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import attrs

from llm_master.errors import ConfigurationError
from llm_master.row_checks import provider_faults

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


def plain_dict(value: Any) -> Any:
    """A mapping as a dict of the row's own; what is none stays, so that the check can name it."""
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
    display_names: Mapping[str, str] = attrs.field(factory=dict, converter=plain_dict)
    host_classes: Mapping[str, str] = attrs.field(factory=dict, converter=plain_dict)
    provider_class: type | str | None = None
    client_class: Callable[..., Any] | str = "openai:AsyncOpenAI"
    enabled: bool = True
    base_url: str | None = None
    base_url_env: tuple[str, ...] = attrs.field(default=(), converter=_names)
    default_path: str = ""
    query: Mapping[str, str] = attrs.field(factory=dict, converter=plain_dict, repr=_names_only)
    headers: Mapping[str, str] = attrs.field(factory=dict, converter=plain_dict, repr=_names_only)
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
    generate_map: Mapping[str, Callable[..., Any] | str] = attrs.field(factory=dict, converter=plain_dict)
    paths: Mapping[str, str] = attrs.field(factory=dict, converter=plain_dict)
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
    key_priorities: Mapping[str, int] = attrs.field(factory=dict, converter=plain_dict)
    ignore_models: tuple[str, ...] = attrs.field(default=(), converter=_names)
    whitelist_models: tuple[str, ...] = attrs.field(default=(), converter=_names)
    quota: str | Mapping[str, str] | None = attrs.field(default=None, converter=plain_dict)
    timeout: float = 600
    max_retries: int = 2
    verify_ssl: bool = True
    ca_bundle: str | None = None
    scope: str | None = None
    folder_id: str | None = None
    region: str | None = None
    field_env: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict, converter=_lists)
    ambient_keys: Mapping[str, str] = attrs.field(factory=dict, converter=plain_dict)
    telemetry_name: str = ""
    renames: Mapping[str, str | None] = attrs.field(factory=dict, converter=plain_dict)
    returns: tuple[str, ...] = attrs.field(default=(), converter=_names)
    reasoning_tag: str = ""

    def __attrs_post_init__(self) -> None:
        if self._model is not None:
            object.__setattr__(self, "default_model", self._model)
            object.__setattr__(self, "_model", None)
        if faults := provider_faults(self):
            raise ConfigurationError(report(f"provider row {self.name!r}" if self.name else "provider row", faults))

    @property
    def model(self) -> str | None:
        """``default_model``, by the name that providers written for other libraries read."""
        return self.default_model

    @classmethod
    def from_mapping(cls, name: str, fields: Mapping[str, Any]) -> ProviderConfig:
        """Make a row of its plain-dict form, as it stands in a guide, a TOML table or a JSON file."""
        return from_mapping(cls, f"provider row {name!r}", {**fields, "name": name})


def key_attr(row: ProviderConfig) -> str:
    """The name of a provider's key among ``LLMConfig``'s attributes."""
    return row.api_key_attr or f"{canonical(row.name)}_api_key"


def key_variables(row: ProviderConfig) -> tuple[str, ...]:
    """The variables in which a provider's key is looked for, in order."""
    return tuple(dict.fromkeys((f"{canonical(row.name).upper()}_API_KEY", *row.api_key_env)))


def base_variable(row: ProviderConfig) -> str:
    """The variable that replaces a provider's address."""
    return f"{canonical(row.name).upper()}_API_BASE"


RATES: tuple[str, ...] = ("rps", "rpm", "rpd", "tpm", "input_tpm", "output_tpm")
"""Fields of a provider's row that limit a rate; a model's are called the same behind ``rate_limit_``."""


def report(what: str, faults: list[str]) -> str:
    """Everything that is wrong with a row, in one text."""
    return f"{what}: " + ("; ".join(faults) if len(faults) == 1 else "".join(f"\n  - {fault}" for fault in faults))


def from_mapping(cls: type[_Row], what: str, fields: Mapping[str, Any]) -> _Row:
    """A row of its plain-dict form.

    Raises:
        ConfigurationError: All that is wrong with it: unknown fields, and what the row says itself.
    """
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
        raise ConfigurationError(report(what, faults))
    return row
