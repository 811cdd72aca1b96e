"""What is wrong with a file of models, and what looks wrong. Asks nobody."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import attrs

from llm_master.errors import ConfigurationError, PricingError
from llm_master.model_rows import PRICES, ModelConfig
from llm_master.rows import canonical

OLD = timedelta(days=365)
"""After so long a price is worth reading again."""


@attrs.frozen
class Finding:
    """One thing that is wrong, or looks so.

    Attributes:
        model: The row's key; empty where it is of the file.
        fault: Whether it is wrong; else it is worth a look.
        text: What it is, and what to do.
    """

    model: str
    fault: bool
    text: str


class _Rows(dict[str, Any]):
    """An object of JSON that remembers the keys that it has twice."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        seen: set[str] = set()
        self.twice = [key for key, _ in pairs if key in seen or seen.add(key)]  # type: ignore[func-returns-value]  # add() says None


def read_json(path: Path) -> dict[str, Any]:
    """A file that is one JSON object, with its numbers as they are written.

    Raises:
        ConfigurationError: It cannot be read, or is no such file.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"), parse_float=Decimal, object_pairs_hook=_Rows)
    except OSError as exc:
        raise ConfigurationError(f"{path} cannot be read ({exc.strerror or exc}): name a file of models") from exc
    except RecursionError:
        raise ConfigurationError(f"{path} is nested too deeply: name a file of models") from None
    except ValueError as exc:
        raise ConfigurationError(f'{path} is no JSON ({exc}): name a file of models, as {{"acme/large": {{...}}}}') from exc
    if not isinstance(data, dict):
        raise ConfigurationError(f'{path} holds no object: name a file of models, as {{"acme/large": {{...}}}}')
    return data


def row_faults(fields: Any) -> list[str]:
    """All that a row must not be, field by field; empty where ``ModelConfig`` takes it."""
    if not isinstance(fields, Mapping):
        return [f"is a {type(fields).__name__}: write an object with its fields"]
    faults = []
    for field, value in fields.items():
        if value is not None and (wanted := _wanted(field, value)) is not None:
            faults.append(f"{field} is {value!r}: give {wanted}")
            continue
        try:
            ModelConfig.from_mapping("", {field: value})
        except (ConfigurationError, PricingError) as exc:
            faults += [
                line.removeprefix("  - ").removeprefix("model row '': ") for line in str(exc).split("\n") if line != "model row '': "
            ]
    return faults


def _wanted(field: str, value: Any) -> str | None:
    """What to give instead of a value of a field that the row itself does not look at; ``None`` where it is right."""
    if field in ("provider", "source", "note") and not isinstance(value, str):
        return "a string"
    if field in ("prices_vary", "supports_streaming") and not isinstance(value, bool):
        return "true or false"
    if field == "as_of" and not _is_day(value):
        return "a day, as 2026-11-21"
    return None


def _is_day(value: Any) -> bool:
    try:
        date.fromisoformat(value)
    except (TypeError, ValueError):
        return False
    return True


def check(rows: Mapping[str, Any], providers: Iterable[str], today: date) -> list[Finding]:
    """Everything that is wrong with rows, and what looks wrong.

    Args:
        rows: Name -> fields, as a file has them.
        providers: The names of all providers, however they are spelt.
        today: The day that it is.
    """
    found = [Finding(name, True, "stands there twice: take one out") for name in getattr(rows, "twice", ())]
    known = set(map(canonical, providers))
    spelt: dict[str, str] = {}
    for name, fields in rows.items():
        found += [Finding(name, True, text) for text in row_faults(fields)]
        found += [Finding(name, True, f"{field} stands there twice: take one out") for field in getattr(fields, "twice", ())]
        head, slash, rest = name.partition("/")
        one = f"{canonical(head)}/{rest}" if slash else name
        if spelt.setdefault(one, name) != name:
            found.append(
                Finding(name, True, f"is {spelt[one]!r}, spelt otherwise (case, - and _ of a provider do not matter): take one out")
            )
        owner = fields.get("provider") if isinstance(fields, Mapping) else None
        owner = owner if isinstance(owner, str) else head if slash else None
        if owner is not None and canonical(owner) not in known:
            found.append(Finding(name, True, f"is of {owner!r}, which is no provider: correct it, or declare that provider"))
        if isinstance(fields, Mapping):
            found += [Finding(name, fault, text) for fault, text in _of_row(_sound(fields), fields, today)]
    return found


def _sound(fields: Mapping[str, Any]) -> ModelConfig:
    """The row of those fields that are right."""
    return ModelConfig.from_mapping("", {field: value for field, value in fields.items() if not row_faults({field: value})})


def _of_row(row: ModelConfig, fields: Mapping[str, Any], today: date) -> list[tuple[bool, str]]:
    found: list[tuple[bool, str]] = []
    for where, prices in (("", row), *((f" above {tier.above_input_tokens} tokens", tier) for tier in row.price_tiers)):
        full, cached, output = (getattr(prices, f"{kind}_price_per_million") for kind in ("input", "cached_input", "output"))
        if full is not None and cached is not None and cached > full:
            found.append((True, f"cached input{where} is dearer ({cached}) than input ({full}): correct one of the two"))
        if full and output is not None and 0 < output < full:
            found.append((False, f"output{where} is cheaper ({output}) than input ({full}): is that so?"))
    steps = [tier.above_input_tokens for tier in row.price_tiers]
    if steps != sorted(set(steps)):
        found.append((True, f"price_tiers begin above {', '.join(map(str, steps))} tokens: put each once, the lowest first"))
    # What is spoken is counted apart from what is read.
    sized = row.context_window is not None and row.max_output_tokens is not None and row.capabilities.get("speech") is not True
    if sized and row.max_output_tokens > row.context_window:  # type: ignore[operator]  # neither is None
        found.append(
            (
                True,
                f"max_output_tokens ({row.max_output_tokens}) is more than context_window ({row.context_window}): correct one of the two",
            )
        )
    priced = row.price_tiers or any(getattr(row, field) is not None for field in PRICES)
    if priced and (fields.get("source") is None or row.source is not None) and not (row.source or "").strip():
        found.append((True, "its prices have no source: say where they are published"))
    if priced and fields.get("as_of") is None:
        found.append((True, "its prices have no as_of: say on which day they were read, as 2026-11-21"))
    return found + _of_days(row, today)


def _of_days(row: ModelConfig, today: date) -> list[tuple[bool, str]]:
    found: list[tuple[bool, str]] = []
    read = date.fromisoformat(row.as_of) if row.as_of is not None else today
    if read > today:
        found.append((True, f"as_of is {read}, which is yet to come: correct it"))
    elif today - read > OLD:
        found.append((False, f"its prices were read on {read}, over a year ago: read them again"))
    if row.prices_hold_until is not None and date.fromisoformat(row.prices_hold_until) <= today:
        found.append((False, f"its prices held until {row.prices_hold_until}, and costs are estimates since: read them again"))
    return found
