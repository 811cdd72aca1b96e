"""The benchmark's ``config.yaml``, of which every query may read how models are asked and how many at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llm_master.rows import canonical
from llm_master.settings.declared import Declared, ModelSettings
from llm_master.settings.document import (
    COUNT,
    FLAG,
    NAME,
    NUMBER,
    SECONDS,
    TABLE,
    TEXT,
    TEXTS,
    WHOLE,
    Document,
    Kind,
    Place,
    kind_of,
    read_text,
    spelt,
)
from llm_master.settings.yaml_nodes import BrokenError, Reading, told

_AT_LEAST_0 = Kind(lambda value: WHOLE.fits(value) and value >= 0, "give a whole number of at least 0", numeric=True)
_PORT = Kind(lambda value: WHOLE.fits(value) and 0 < value < 65536, "give a whole number from 1 to 65535", numeric=True)

BENCHMARK: Mapping[str, Kind | Mapping[str, Kind]] = {
    "models": TEXTS,
    "model_display_names": TABLE,
    "judge_model": NAME,
    "judge_models": TEXTS,
    "fixer_model": TEXT,
    "categories": TEXTS,
    "question_ids": TEXTS,
    "num_runs": COUNT,
    "retry_settings": {"max_retries_per_key": _AT_LEAST_0, "global_timeout": SECONDS},
    "evaluation": {"pass_threshold": NUMBER, "code_timeout": SECONDS},
    "code_formatting_instructions": {"enabled": FLAG, "instruction": TEXT},
    "viewer": {"host": NAME, "port": _PORT},
    "questions_dir": NAME,
    "results_dir": NAME,
}
"""The benchmark's own keys and what they hold. Only their form is checked: what they mean is the benchmark's business."""

_OURS: Mapping[str, Kind] = {
    "model_configs": TABLE,
    "model_system_instructions": TABLE,
    "max_concurrent": COUNT,
    "provider_concurrency": TABLE,
}
_TOP: Mapping[str, Kind] = {**_OURS, **{key: kind if isinstance(kind, Kind) else TABLE for key, kind in BENCHMARK.items()}}
_MODEL: Mapping[str, Kind] = {
    "system_instruction": TEXT,
    "system_instruction_position": Kind(lambda value: value in ("prepend", "append"), 'give "prepend" or "append"'),
    "options": TABLE,
}


def read_yaml(path: Path) -> Declared:
    """Read a file of the benchmark's form. All that is wrong is in ``faults``; ``null`` counts as not given."""
    declared = Declared()
    text = read_text(path, declared)
    if text is None:
        return declared
    try:
        reading = Reading(text.content)
    except BrokenError as exc:
        declared.faults.append(f"{text.name}{f':{exc.line}' if exc.line else ''}: {exc.what}")
        return declared
    declared.faults += [told(text.name, fault) for fault in reading.faults]
    if isinstance(reading.data, dict):
        _top(Document(text.name, reading.lines, declared), reading.data)
    elif reading.data is not None:
        declared.faults.append(f"{text.name}:1: is {kind_of(reading.data)}: begin with names of settings, as max_concurrent: 10")
    return declared


def _top(document: Document, data: dict[str, Any]) -> None:
    declared = document.declared
    fields = document.fields(data, _TOP, (), what="setting")
    if "max_concurrent" in fields:
        declared.options["max_concurrent"] = fields["max_concurrent"]
    if "provider_concurrency" in fields:
        _concurrency(document, fields["provider_concurrency"].value)
    # The older form first, because the newer is laid over it.
    if "model_system_instructions" in fields:
        _legacy(document, fields["model_system_instructions"].value)
    if "model_configs" in fields:
        for model, table in document.tables(fields["model_configs"].value, ("model_configs",)).items():
            _model(document, model, table)
    for key, kind in BENCHMARK.items():
        if key not in fields:
            continue
        value = fields[key].value
        if not isinstance(kind, Kind):
            value = {name: field.value for name, field in document.fields(value, kind, (key,)).items()}
        elif kind is TABLE:
            value = {name: text for name, text in value.items() if text is not None and document.fits(text, TEXT, (key, name))}
        declared.benchmark[key] = value


def _concurrency(document: Document, table: dict[str, Any]) -> None:
    written: dict[str, str] = {}
    for name, value in table.items():
        place: Place = ("provider_concurrency", name)
        if value is None or not document.fits(value, COUNT, place):
            continue
        if (other := written.setdefault(canonical(name), name)) != name:
            document.fault(place, f"is the provider of {spelt((*place[:1], other))} (case, - and _ do not matter): leave one out")
        document.declared.provider(name)["max_concurrent"] = document.sourced(value, place)


def _legacy(document: Document, table: dict[str, Any]) -> None:
    for model, text in table.items():
        place: Place = ("model_system_instructions", model)
        if text is not None and document.fits(text, TEXT, place):
            document.declared.model_settings[model] = ModelSettings(
                system_instruction=text, position="prepend", origin=document.origin(place)
            )


def _model(document: Document, model: str, table: dict[str, Any]) -> None:
    place: Place = ("model_configs", model)
    fields = document.fields(table, _MODEL, place)
    values = {key: field.value for key, field in fields.items()}
    legacy = document.declared.model_settings.get(model)
    if legacy is not None and "system_instruction" not in values:
        values = {"system_instruction": legacy.system_instruction, "system_instruction_position": legacy.position, **values}
    document.declared.model_settings[model] = ModelSettings(
        system_instruction=values.get("system_instruction"),
        position=values.get("system_instruction_position", "append"),
        options=values.get("options", {}),
        origin=document.origin(place),
    )
