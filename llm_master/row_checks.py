"""What a provider's row must be: each fault with its field and a remedy."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias, get_args

Capability: TypeAlias = Literal[
    "chat",
    "tools",
    "vision",
    "audio_input",
    "video_input",
    "pdf",
    "json_schema",
    "json_mode",
    "reasoning",
    "web_search",
    "embedding",
    "rerank",
    "moderation",
    "image_output",
    "audio_output",
    "speech",
]
"""What a model can be documented to do. ``vision``, ``audio_input``, ``video_input`` and ``pdf`` are what it takes beside
text; ``json_schema`` is an answer held to a schema, ``json_mode`` one held to JSON; ``web_search`` is a search that the
provider makes; ``audio_output`` is a spoken answer, ``speech`` a given text read aloud."""

CAPABILITIES: tuple[str, ...] = get_args(Capability)
"""The words of ``ModelConfig.capabilities``."""

PROVIDER_CAPABILITIES: tuple[str, ...] = (*CAPABILITIES, "streaming", "parallel_tools", "list_models", "count_tokens")
"""The words of ``ProviderConfig.capabilities``. ``parallel_tools`` are several calls in one answer."""


def positive_int(value: Any) -> bool:
    """Whether a value is a whole number above 0, or ``None`` for no limit."""
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and value > 0)


def _is_text_map(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(k, str) and isinstance(v, str) for k, v in value.items())


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_text_or_none(value: Any) -> bool:
    return value is None or (isinstance(value, str) and bool(value.strip()))


def _is_texts(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(item, str) and item for item in value)


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_class(value: Any) -> bool:
    if isinstance(value, str):
        return value.count(":") == 1 and all(value.split(":"))
    return value is None or callable(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_generate_map(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(k, str) and k and (callable(v) or (isinstance(v, str) and v)) and _is_pattern(k) for k, v in value.items()
    )


def _is_pattern(key: str) -> bool:
    head = key.removesuffix("*") if key.endswith("*") else key.removesuffix("{model}")
    return bool(head) and "*" not in head and "{" not in head


def _is_paths(value: Any) -> bool:
    return _is_text_map(value) and value.keys() <= PATHS and all(path.startswith(("/", "https://", "http://")) for path in value.values())


def _is_renames(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(k, str) and (v is None or isinstance(v, str)) for k, v in value.items())


def _is_field_env(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(field, str) and (field in _FROM_VARIABLES or field.startswith("query.")) and _is_texts(names)
        for field, names in value.items()
    )


_FROM_VARIABLES = frozenset({"region", "folder_id", "scope"})

PATHS = frozenset({"embed", "key", "models", "moderate", "oauth", "rerank"})
"""What ``paths`` may say where it is."""

RETURNS = ("content", "reasoning", "reasoning_content", "reasoning_details", "annotations")
"""Which fields of an answer's message a row may ask to be kept for the next turn."""

STRUCTURED = ("json_schema", "tool", "json_object", "prompt")
"""How an answer of a wanted form can be asked for, the surest first."""

_CHECKS: tuple[tuple[tuple[str, ...], Callable[[Any], bool], str], ...] = (
    (
        ("name", "display_name", "api_key_attr", "key_url", "start_command", "currency", "telemetry_name", "reasoning_tag"),
        _is_text,
        "give a string",
    ),
    (("default_model", "ca_bundle", "scope", "folder_id", "region"), _is_text_or_none, "give a string, or leave it out"),
    (
        ("quota",),
        lambda value: _is_text_or_none(value) or _is_text_map(value),
        'give one name if all keys share a quota, or {"ACME_API_KEY_1": "name"}',
    ),
    (
        ("key_priorities",),
        lambda value: isinstance(value, Mapping) and all(isinstance(k, str) and type(v) is int for k, v in value.items()),
        'give {"ACME_API_KEY_1": 1}, a whole number for the name of a key\'s variable',
    ),
    (("provider_class", "client_class"), _is_class, 'give the class itself or "package.module:Class"'),
    (("query", "headers", "display_names", "ambient_keys"), _is_text_map, 'give {"name": "value"}, both strings'),
    (
        ("host_classes",),
        lambda value: _is_text_map(value) and all(map(_is_class, value.values())),
        'give {"acme.ai": "package.module:Class"}',
    ),
    (("field_env",), _is_field_env, 'give {"region": ("ACME_REGION",)}, of region, folder_id, scope or query.NAME'),
    (
        ("prefixes", "api_key_env", "aliases", "base_url_env", "ignore_models", "whitelist_models"),
        _is_texts,
        'give a tuple of non-empty strings, as ("acme-",)',
    ),
    (
        ("generate_map",),
        _is_generate_map,
        (
            'give {"model": async function (provider, messages, model, **options), a method\'s name, a provider class, or '
            '"package.module:name" of one}; a model may end in "*", or in "{model}" where the rest is the wire id'
        ),
    ),
    (("paths",), _is_paths, f'give {{"rerank": "/rerank"}}, a path below base_url or a whole URL, of {", ".join(sorted(PATHS))}'),
    (
        ("takes_urls",),
        lambda value: _is_texts(value) and set(value) <= {"image", "audio", "file"},
        'give a tuple of "image", "audio", "file"',
    ),
    (
        ("capabilities",),
        lambda value: _is_texts(value) and set(value) <= set(PROVIDER_CAPABILITIES),
        f"give a tuple of {', '.join(PROVIDER_CAPABILITIES)}",
    ),
    (("returns",), lambda value: _is_texts(value) and set(value) <= set(RETURNS), f"give a tuple of {', '.join(RETURNS)}"),
    (("rotation_mode",), lambda value: value in ("balanced", "sequential"), "give balanced or sequential"),
    (("default_path",), lambda value: _is_text(value) and (not value or value.startswith("/")), 'give a path, as "/v1"'),
    (("structured_output",), lambda value: value in STRUCTURED, f"give one of {', '.join(STRUCTURED)}"),
    (("embed_batch_size", "embed_batch_tokens"), lambda value: value is not None and positive_int(value), "give a whole number above 0"),
    (("renames",), _is_renames, 'give {"our name": "its name"}, or None for its name where the API refuses the option'),
    (("enabled", "requires_key", "supports_caching", "skip_cost_calculation", "verify_ssl"), _is_bool, "give True or False"),
    (
        ("rps", "rpm", "rpd", "tpm", "input_tpm", "output_tpm", "max_concurrent", "max_concurrent_per_key"),
        positive_int,
        "give a whole number above 0, or None for no limit",
    ),
    (("timeout",), lambda value: _is_number(value) and value > 0, "give seconds above 0"),
    (
        ("max_retries",),
        lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= 0,
        "give a whole number of at least 0 (0 means one send)",
    ),
)
"""Fields of a provider's row, what they must be, and what to do where they are not."""


def provider_faults(row: Any) -> list[str]:
    """Everything that is wrong with a row, each with its field and a remedy."""
    faults = [
        f"{field} is {getattr(row, field)!r}: {remedy}"
        for fields, holds, remedy in _CHECKS
        for field in fields
        if not holds(getattr(row, field))
    ]
    if _is_text(row.name) and any(c in "/:" or c.isspace() for c in row.name):
        faults.append(f"name is {row.name!r}: leave out '/', ':' and spaces, which part a model's name")
    if row.api_key is not None and not isinstance(row.api_key, str):
        # Not its value: whatever it is, it was meant to be secret.
        faults.append(f"api_key is a {type(row.api_key).__name__}: give a string, or leave it out")
    if row.base_url is not None:
        faults += base_url_faults(row.base_url)
    if _is_text_map(row.headers):
        bad = [name for name, value in row.headers.items() if not name or not (name + value).isascii() or not (name + value).isprintable()]
        if bad:
            faults.append(f"headers: {', '.join(map(repr, bad))} may not hold line breaks or non-ASCII characters: take them out")
    return faults + _models_faults(row.models)


def base_url_faults(url: Any, field: str = "base_url") -> list[str]:
    """What is wrong with an address; ``field`` names where it stands. A password in it is not repeated."""
    if isinstance(url, str) and "@" in url:
        return [f"{field} holds a user or password: put it into headers={{'Authorization': ...}}"]
    if not isinstance(url, str) or not url.startswith(("http://", "https://")) or not url.split("/")[2]:
        return [f"{field} is {url!r}: begin with https:// (or http://) and a host, as in https://api.acme.ai/v1"]
    faults = []
    if url.rstrip("/").endswith("/chat/completions"):
        faults.append(f"{field} is {url!r}: leave out /chat/completions, which is added")
    if "?" in url:
        faults.append(f"{field} is {url!r}: put what follows '?' into query={{...}}")
    return faults


def _models_faults(models: Any) -> list[str]:
    shape = 'give ["name", ...] or {"name": {"id": "wire id", "options": {...}}}'
    if not isinstance(models, Mapping) or not all(isinstance(k, str) and k and isinstance(v, Mapping) for k, v in models.items()):
        return [f"models is {models!r}: {shape}"]
    faults = []
    for name, entry in models.items():
        faults += [
            f"models: {name!r} has {key!r}, and may have 'id' and 'options': the call's options go into 'options'"
            for key in entry
            if key not in {"id", "options"}
        ]
        if not isinstance(entry.get("id", ""), str) or not isinstance(entry.get("options", {}), Mapping):
            faults.append(f"models: {name!r} needs a string as 'id' and a mapping as 'options'")
    return faults


def capability_faults(value: Any) -> list[str]:
    """What is wrong with a model's capabilities."""
    shape = '{"tools": True, "vision": False}, a list of what the model does, or None if nothing is known'
    if not isinstance(value, Mapping):
        return [f"capabilities is {value!r}: give {shape}"]
    faults = []
    for word, does in value.items():
        if word not in CAPABILITIES:
            near = difflib.get_close_matches(str(word), CAPABILITIES, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"the words are {', '.join(CAPABILITIES)}"
            faults.append(f"capabilities: {word!r} is no capability: {hint}")
        elif not isinstance(does, bool):
            faults.append(f"capabilities: {word!r} is {does!r}: give True or False, or leave it out if it is not known")
    return faults
