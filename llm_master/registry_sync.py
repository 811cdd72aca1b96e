"""What other lists say of models that ``ModelRegistry`` has: the differences, and what is taken over of them.

Nothing is downloaded. A list is the genai-prices package that is installed, or a file: of the form of ``models.json``, or LiteLLM's
``model_prices_and_context_window.json`` (https://github.com/BerriAI/litellm/blob/main/model_prices_and_context_window.json).
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import attrs

from llm_master import pricing
from llm_master.errors import ConfigurationError
from llm_master.model_registry import ModelRegistry
from llm_master.model_rows import PRICES, ModelConfig, PriceTier
from llm_master.registry_check import read_json, row_faults
from llm_master.rows import ProviderConfig, canonical

MOST = 10
"""The factor beyond which a move is not believed."""

FIELDS = (*PRICES, "price_tiers", "context_window", "max_output_tokens")
"""What is compared."""


@attrs.frozen
class Listed:
    """What a list says of a model.

    Attributes:
        row: Prices and sizes; what the list does not know is ``None``.
        through: The list, for a row's ``note``: its prices are of ``row.source``, read through it.
        called: The list's own name of the model, where it is another.
    """

    row: ModelConfig
    through: str
    called: str | None = None


@attrs.frozen
class Change:
    """One field that differs.

    Attributes:
        field: Field of ``ModelConfig``.
        ours: What stands here; ``None`` if it is not known.
        theirs: What the list says.
        far: It moves by more than the factor that is believed, or from or to 0.
    """

    field: str
    ours: Any
    theirs: Any
    far: bool

    @property
    def percent(self) -> Decimal | None:
        """By how many percent it moves; ``None`` where that says nothing."""
        if not self.ours or isinstance(self.ours, tuple):
            return None
        return round((Decimal(self.theirs) / Decimal(self.ours) - 1) * 100, 1)


@attrs.frozen
class Difference:
    """All that differs of one model.

    Attributes:
        name: The model's key.
        ours: The row here; ``None`` if there is none yet.
        theirs: What the list says.
        changes: The fields that differ.
    """

    name: str
    ours: ModelConfig | None
    theirs: Listed
    changes: tuple[Change, ...]

    @property
    def far(self) -> bool:
        """Whether a field moves so far that all of it is to be looked at first."""
        return any(change.far for change in self.changes)


def known_with(path: Path | None) -> dict[str, ModelConfig]:
    """What is known here, with what a file says laid over it; a file that there is not says nothing.

    Raises:
        ConfigurationError: The file cannot be read, or has rows that are wrong.
    """
    known = dict(ModelRegistry.CONFIGS)
    if path is None or not path.exists():
        return known
    written = read_json(path)
    _refuse(path, [f"{name!r} {fault}" for name, fields in written.items() for fault in row_faults(fields)])
    for name, fields in written.items():
        row = ModelConfig.from_mapping(name, fields)
        own = {field.name: getattr(row, field.name) for field in attrs.fields(ModelConfig) if field.name in fields}
        known[name] = attrs.evolve(known[name], **own) if name in known else row
    return known


def differences(ours: Mapping[str, ModelConfig], theirs: Mapping[str, Listed], *, new: bool = False) -> list[Difference]:
    """What another list says otherwise, model by model. What it does not know is no difference.

    Args:
        ours: The rows here, by name.
        theirs: What the list says, by the same names.
        new: Also the models that are not here.
    """
    found = []
    for name in sorted(theirs):
        row, listed = ours.get(name), theirs[name]
        if row is None and not new:
            continue
        changes = tuple(change for field in FIELDS if (change := _change(field, row, listed.row)) is not None)
        if changes or row is None:
            found.append(Difference(name, row, listed, changes))
    return found


def _change(field: str, row: ModelConfig | None, other: ModelConfig) -> Change | None:
    ours, theirs = getattr(row, field, None), getattr(other, field)
    if field == "price_tiers":
        ours = ours or ()
        theirs = _laid_over(ours, theirs)
        far = row is not None and any(_is_far(a, b) for a, b in _tier_moves(row, theirs))
    else:
        far = theirs is not None and _is_far(ours, theirs)
    return Change(field, ours, theirs, far) if theirs not in (None, (), ours) else None


def _laid_over(ours: tuple[PriceTier, ...], theirs: tuple[PriceTier, ...]) -> tuple[PriceTier, ...]:
    """Their tiers, each with what only ours says of it. A list without tiers knows nothing of them."""
    known = {tier.above_input_tokens: tier for tier in ours}
    return tuple(
        attrs.evolve(known.get(tier.above_input_tokens, tier), **{k: v for k, v in attrs.asdict(tier).items() if v is not None})
        for tier in theirs
    )


def _tier_moves(row: ModelConfig, theirs: Iterable[PriceTier]) -> Iterable[tuple[Any, Any]]:
    """Each price of a tier with the one here; of a new tier with that of shorter requests."""
    known = {tier.above_input_tokens: tier for tier in row.price_tiers}
    for tier in theirs:
        ours = known.get(tier.above_input_tokens, row)
        for field in PRICES:
            if (price := getattr(tier, field, None)) is not None:
                yield getattr(ours, field), price


def _is_far(ours: Decimal | int | None, theirs: Decimal | int) -> bool:
    if ours is None or ours == theirs:
        return False
    return not ours or not theirs or max(ours, theirs) > MOST * min(ours, theirs)


def from_genai_prices(names: Iterable[str], providers: Mapping[str, ProviderConfig], today: str, *, new: bool = False) -> dict[str, Listed]:
    """What the genai-prices package says of models. Its prices have no date, so they are of the day on which it is read.

    Args:
        names: Keys of models, as ``"provider/model"``; others are passed over.
        providers: The rows by name: their addresses say who is meant.
        today: ISO date.
        new: Also all other models that the package has of these providers.
    """
    from importlib.metadata import version

    from genai_prices.data_snapshot import get_snapshot

    snapshot = get_snapshot()
    through = f"genai-prices {version('genai-prices')}"
    asked = {name.partition("/")[::2]: name for name in names if "/" in name}
    called: dict[str, str] = {}
    for provider, row in providers.items():
        if not _is_listed(row):
            continue
        for (owner, model), name in asked.items():
            if owner == provider and (match := _match(snapshot, model, row)) is not None:
                called[name] = match.id
        if new:
            taken = set(called.values())
            for other in _models_at(snapshot, row):
                if other not in taken:
                    called.setdefault(f"{provider}/{other}", other)
    found = {}
    for name, theirs in called.items():
        provider, _, model = name.partition("/")
        listed = pricing.look_up(providers[provider].base_url or "", model)
        if listed is not None:
            found[name] = Listed(
                attrs.evolve(listed, source=listed.source or through, as_of=today, note=None), through, theirs if theirs != model else None
            )
    return found


def _is_listed(row: ProviderConfig) -> bool:
    # The list is in dollars.
    return row.currency == "USD" and pricing.may_look_up(row.base_url)


def _match(snapshot: Any, model: str, row: ProviderConfig) -> Any:
    try:
        return snapshot.find_provider_model(model, None, None, row.base_url)[1]
    except LookupError:
        return None


def _models_at(snapshot: Any, row: ProviderConfig) -> list[str]:
    try:
        return [model.id for model in snapshot.find_provider(None, None, row.base_url).models]
    except LookupError:
        return []


def from_file(path: Path, providers: Mapping[str, ProviderConfig], today: str) -> dict[str, Listed]:
    """What a file says of models.

    Raises:
        ConfigurationError: It cannot be read, is no such list, or has rows that are wrong; all faults at once.
    """
    data = read_json(path)
    if any(isinstance(fields, Mapping) and "litellm_provider" in fields for fields in data.values()):
        return _from_litellm(path, data, providers, today)
    _refuse(path, [f"{name!r} {fault}" for name, fields in data.items() for fault in row_faults(fields)])
    found = {}
    for name, fields in data.items():
        row = ModelConfig.from_mapping(name, fields)
        own = attrs.evolve(row, source=row.source or path.name, as_of=row.as_of or today)
        head, slash, rest = name.partition("/")
        found[f"{canonical(head)}/{rest}" if slash and canonical(head) in providers else name] = Listed(own, path.name)
    return found


def _refuse(path: Path, faults: list[str]) -> None:
    if faults:
        raise ConfigurationError(f"{path}: " + (faults[0] if len(faults) == 1 else "".join(f"\n  - {fault}" for fault in faults)))


_LITELLM = {
    "input_price_per_million": "input_cost_per_token",
    "output_price_per_million": "output_cost_per_token",
    "cached_input_price_per_million": "cache_read_input_token_cost",
    "cache_write_price_per_million": "cache_creation_input_token_cost",
    "audio_input_price_per_million": "input_cost_per_audio_token",
    "audio_output_price_per_million": "output_cost_per_audio_token",
}
_TIER = re.compile(r"(.+)_above_(\d+)k_tokens")


def _from_litellm(path: Path, data: Mapping[str, Any], providers: Mapping[str, ProviderConfig], today: str) -> dict[str, Listed]:
    owners = {canonical(called): name for name, row in providers.items() for called in (name, *row.aliases)}
    found, faults = {}, []
    for called, fields in data.items():
        if not isinstance(fields, Mapping) or not isinstance(fields.get("litellm_provider"), str):
            continue
        theirs = canonical(fields["litellm_provider"])
        owner = owners.get(theirs, owners.get(theirs.removesuffix("_ai")))
        if owner is None or providers[owner].currency != "USD":
            continue
        model = called.partition("/")[2] if called.startswith(f"{fields['litellm_provider']}/") else called
        row = _litellm_row(fields)
        faults += [f"{called!r} {fault}" for fault in row_faults(row)]
        if not faults:
            found[f"{owner}/{model}"] = Listed(
                ModelConfig(**row, as_of=today), "LiteLLM's list", called if called not in (model, f"{owner}/{model}") else None
            )
    _refuse(path, faults)
    return found


def _litellm_row(fields: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {ours: _per_million(fields.get(theirs)) for ours, theirs in _LITELLM.items()}
    if fields.get("mode") not in ("chat", "responses", "completion"):
        row = {name: price or None for name, price in row.items()}  # 0 stands there for what there is not
    tiers: dict[int, dict[str, Any]] = {}
    for key, value in fields.items():
        if (tier := _TIER.fullmatch(key)) and (ours := next((o for o, t in _LITELLM.items() if t == tier[1]), None)):
            tiers.setdefault(int(tier[2]) * 1000, {})[ours] = _per_million(value)
    row["price_tiers"] = [{"above_input_tokens": above, **own} for above, own in sorted(tiers.items())]
    row["context_window"] = _count(fields.get("max_input_tokens"))
    row["max_output_tokens"] = _count(fields.get("max_output_tokens"))
    row["source"] = fields["source"] if isinstance(fields.get("source"), str) else "LiteLLM's list"
    return row


def _per_million(per_token: Any) -> Decimal | None:
    if isinstance(per_token, bool) or not isinstance(per_token, (int, Decimal)):
        return None
    return per_token * Decimal(1_000_000)


def _count(value: Any) -> int | None:
    return value if type(value) is int and value > 0 else None


def write(path: Path, taken: Iterable[Difference]) -> int:
    """Put what is taken over into a file of the form of ``models.json``, which then says where the prices are from, and when.

    Rows that stand there keep what does not change.

    Returns:
        How many rows were written.

    Raises:
        ConfigurationError: The file cannot be read or written.
    """
    rows = read_json(path) if path.exists() else {}
    count = 0
    for difference in taken:
        row = rows.setdefault(difference.name, {})
        if not isinstance(row, dict):
            raise ConfigurationError(f"{path}: model row {difference.name!r} is no object of fields: mend it first")
        row.update({change.field: _plain(change.theirs) for change in difference.changes})
        if difference.ours is None or any(change.field in PRICES or change.field == "price_tiers" for change in difference.changes):
            listed = difference.theirs
            row.update(source=listed.row.source, as_of=listed.row.as_of, note=_note(difference))
        count += 1
    # A row a line, so that a difference between two versions shows which.
    lines = [
        f"{json.dumps(name, ensure_ascii=False)}: {json.dumps(rows[name], ensure_ascii=False, default=_plain)}" for name in sorted(rows)
    ]
    _replace(path, "{\n" + ",\n".join(lines) + "\n}\n")
    return count


def _note(difference: Difference) -> str:
    """What was noted before, and through which list the prices were read."""
    before = (difference.ours.note if difference.ours is not None else None) or difference.theirs.row.note or ""
    before = re.sub(r"(; )?prices read through [^;]*", "", before)
    return "; ".join(part for part in (before, f"prices read through {difference.theirs.through}") if part)


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return f"{value.normalize():f}"
    if isinstance(value, tuple):
        return [{name: _plain(price) for name, price in attrs.asdict(tier).items() if price is not None} for tier in value]
    return value


def _replace(path: Path, text: str) -> None:
    """Write a file whole, or leave it as it is."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
        handle, made = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with open(handle, "w", encoding="utf-8", newline="\n") as file:
                file.write(text)
            os.chmod(made, mode)
            os.replace(made, path)
        except BaseException:
            os.unlink(made)
            raise
    except OSError as exc:
        raise ConfigurationError(
            f"{path} cannot be written ({exc.strerror or exc}): make it writable, or name another by --output"
        ) from exc
