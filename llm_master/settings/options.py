"""The options of an engine: what settings say beside keys and addresses."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import attrs

from llm_master.clock import SYSTEM_CLOCK, Clock
from llm_master.errors import ConfigurationError
from llm_master.settings.routes import RouteSettings, routes_of

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def _positive(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0):
        raise ConfigurationError(f"{attribute.name} is {value!r}: give a number above 0")


def _whole(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ConfigurationError(f"{attribute.name} is {value!r}: give a whole number of at least 1")


def _share(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1):
        raise ConfigurationError(f"{attribute.name} is {value!r}: give a share above 0 and up to 1, as 0.05 for five of a hundred")


def _flag(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, bool):
        raise ConfigurationError(f"{attribute.name} is {value!r}: give True or False")


def _manner(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value not in ("error", "drop"):
        raise ConfigurationError(f'{attribute.name} is {value!r}: give "error" or "drop"')


def _name(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value is not None and (not isinstance(value, str) or not value.strip()):
        raise ConfigurationError(f"{attribute.name} is {value!r}: give a name")


def _level(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value is not None and (not isinstance(value, str) or value.upper() not in LEVELS):
        raise ConfigurationError(f"{attribute.name} is {value!r}: give one of {', '.join(LEVELS)}")


def _telemetry(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value is not None and not isinstance(value, bool) and value != "content":
        raise ConfigurationError(f'{attribute.name} is {value!r}: give True, False or "content", or leave it out')


def _format(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value not in ("text", "json"):
        raise ConfigurationError(f'{attribute.name} is {value!r}: give "text" or "json"')


def _hook(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value is not None and not callable(value):
        raise ConfigurationError(f"{attribute.name} is {value!r}: give a function")


def _address(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value is None:
        return
    # It may hold a password, so that it is not repeated.
    remedy = "give redis://:password@host:6379/0, rediss:// for TLS, or unix:///path/of/the/socket; encode what is special in a password"
    if not isinstance(value, str):
        raise ConfigurationError(f"{attribute.name} is a {type(value).__name__}: {remedy}")
    try:
        parts = urlsplit(value)
        place = parts.path if parts.scheme == "unix" else parts.hostname
        fits = parts.scheme in ("redis", "rediss", "unix") and bool(place) and parts.port != 0
    except ValueError:
        fits = False
    if not fits:
        raise ConfigurationError(f"{attribute.name} is no address of a Redis: {remedy}")
    if parts.scheme != "unix" and not re.fullmatch(r"/?\d*", parts.path):
        raise ConfigurationError(f"{attribute.name} names the database {parts.path[1:]!r}, and Redis's have numbers: end it with /0")


def _prefix(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, str) or not re.fullmatch(r"[!-~]{1,64}", value):
        raise ConfigurationError(f"{attribute.name} is {value!r}: give up to 64 letters, without spaces")


def _path(value: Any) -> Any:
    return os.path.expanduser(os.fspath(value)) if isinstance(value, (str, os.PathLike)) else value


@attrs.frozen(kw_only=True)
class Options:
    """What ``LLMConfig`` holds beside keys and addresses."""

    preferred_provider: str | None = attrs.field(default=None, validator=_name)
    default_model: str | None = attrs.field(default=None, validator=_name)
    max_attempts: int = attrs.field(default=10, validator=_whole)
    deadline: float = attrs.field(default=600.0, validator=_positive)
    on_unsupported: str = attrs.field(default="error", validator=_manner)
    max_concurrent: int | None = attrs.field(default=None, validator=_whole)
    enable_fallback: bool = attrs.field(default=False, validator=_flag)
    moderation_model: str | None = attrs.field(default=None, validator=_name)
    max_media_bytes: int = attrs.field(default=20 * 2**20, validator=_whole)
    allow_private_urls: bool = attrs.field(default=False, validator=_flag)
    log_level: str | None = attrs.field(default=None, validator=_level)
    hedge: float | None = attrs.field(default=None, validator=_share)
    routes: tuple[tuple[str, RouteSettings], ...] = attrs.field(default=(), converter=routes_of)
    log_format: str = attrs.field(default="text", validator=_format)
    metrics: bool = attrs.field(default=False, validator=_flag)
    # None: where the program has OpenTelemetry set up.
    telemetry: bool | str | None = attrs.field(default=None, validator=_telemetry)
    on_attempt: Callable[..., Any] | None = attrs.field(default=None, validator=_hook)
    on_response: Callable[..., Any] | None = attrs.field(default=None, validator=_hook)
    redis_url: str | None = attrs.field(default=None, validator=_address, repr=False)
    redis_prefix: str = attrs.field(default="llm_master", validator=_prefix)
    state: str | None = attrs.field(default=None, converter=_path, validator=_name)
    models_file: str | None = attrs.field(default=None, converter=_path, validator=_name)
    models_ttl: float = attrs.field(default=3600.0, validator=_positive)
    clock: Clock = SYSTEM_CLOCK
