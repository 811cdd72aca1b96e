"""``models.json`` of the user's folder: what is known of models, of the form of the library's own. ``registry sync`` writes it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from llm_master.settings.declared import Declared, Sourced
from llm_master.settings.document import TABLE, Document, Place, read_text
from llm_master.settings.toml_file import read_model

_KEY = re.compile(r'\s*\{?\s*("(?:[^"\\]|\\.)+")\s*:\s*\{')


def read_models(path: Path) -> Declared:
    """Read the file. All that is wrong is in ``faults``."""
    declared = Declared()
    text = read_text(path, declared)
    if text is None:
        return declared
    try:
        rows = json.loads(text.content)
    except RecursionError:
        declared.faults.append(f"{text.name}: is nested too deeply: models need no more than a few levels")
        return declared
    except json.JSONDecodeError as exc:
        declared.faults.append(f"{text.name}:{exc.lineno}: is no JSON ({exc.msg}): mend it, or remove the file")
        return declared
    if not isinstance(rows, dict):
        declared.faults.append(f'{text.name}: holds no object: write {{"acme/large": {{...}}}}, or remove the file')
        return declared
    document = Document(text.name, _lines(text.content), declared)
    for name, fields in rows.items():
        if document.fits(fields, TABLE, ("models", name)):
            read_model(document, name, fields)
    return declared


def laid_under(models: Declared, over: Declared) -> Declared:
    """Settings with the file beneath them: of a model field by field, since this file is written by a program, and those by a person."""
    total = models.beneath(over)
    for name, sourced in models.models.items():
        if (own := over.models.get(name)) is not None:
            total.models[name] = Sourced({**sourced.value, **own.value}, own.origin)
    return total


def _lines(text: str) -> dict[Place, int]:
    """The line of each row, where it begins one, as those that are written here do."""
    found: dict[Place, int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if key := _KEY.match(line):
            found.setdefault(("models", json.loads(key[1])), number)
    return found
