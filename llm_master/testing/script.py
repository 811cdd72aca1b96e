"""What the fault server is told: one :class:`Fault` per step of its script, and the :class:`Limit` it holds clients to.

Both say all that is wrong with them at once, whether they are made in Python or come from a file.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypeVar, get_args

import attrs

from llm_master.errors import ConfigurationError

_Made = TypeVar("_Made", "Fault", "Limit")

Garbage = Literal["http", "json"]
Counted = Literal["requests", "tokens", "input_tokens", "output_tokens", "concurrency"]

COUNTED: tuple[str, ...] = get_args(Counted)
"""The words of ``Limit.what``."""

GROUPS = ("key", "model")
"""The words of ``Limit.by``."""

_LONG = 8
"""Characters of a key from which the last four may be shown."""


class ScriptError(ConfigurationError):
    """A script, or what it is read from, is wrong.

    Attributes:
        what: The thing that is wrong, as ``Fault`` or ``faults.toml: script[2]``.
        faults: Each fault, with its field and the remedy.
    """

    def __init__(self, what: str, faults: Iterable[str]) -> None:
        self.what = what
        self.faults = tuple(faults)
        super().__init__(what, self.faults)

    def __str__(self) -> str:
        if len(self.faults) == 1:
            return f"{self.what}: {self.faults[0]}"
        return f"{self.what}:" + "".join(f"\n  - {fault}" for fault in self.faults)


def masked(key: str | None) -> str | None:
    """A key as it may be shown: its last four characters, and nothing of a short one."""
    if key is None:
        return None
    return f"…{key[-4:]}" if len(key) >= _LONG else "…"


def _shown(key: Any) -> str:
    return repr(masked(key)) if key is None or isinstance(key, str) else "…"


def _words(value: Any) -> tuple[Any, ...]:
    return (value,) if isinstance(value, str) or not isinstance(value, Iterable) else tuple(value)


def _seconds(value: Any) -> Any:
    return math.inf if value == "forever" else value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)


def _is_seconds(value: Any) -> bool:
    return _is_number(value) and value >= 0


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _or_none(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or check(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_headers(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(name, str) and re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) and isinstance(text, str) and _fits_a_header(text)
        for name, text in value.items()
    )


def _fits_a_header(text: str) -> bool:
    return all(character == "\t" or (character.isprintable() and ord(character) < 256) for character in text)


def _is_json(value: Any) -> bool:
    import msgspec

    try:
        msgspec.json.encode(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


@attrs.frozen
class Fault:
    """One step of the script: how a request is answered.

    With nothing set it is the server's own answer, so ``[Fault(times=2), Fault(429)]`` is two good answers and a refusal.

    Attributes:
        status: HTTP status, 200 to 599. From 400 on the body is an error that fits it, unless ``body`` says otherwise.
        headers: Headers of the answer, beside the server's own or instead of them.
        body: The body instead of the server's own: a JSON value, or a text that is sent as it is (as ``text/plain`` unless
            ``headers`` say otherwise). ``None`` is the server's own.
        answer: Text of the model's answer instead of the echo.
        usage: The answer's ``usage`` as it is to stand there; ``{}`` for none at all.
        delay: Seconds before the first byte; ``math.inf`` or ``"forever"`` for none ever.
        chunk_delay: Seconds between the events of a stream.
        stall: Seconds of silence in the middle of the answer, its head having been sent; ``"forever"`` for no more byte.
        stall_after: Bytes of a plain body, or events of a stream, that come before ``stall``.
        reset_after: Bytes of the body after which the connection is reset (RST); 0 is before any byte of the answer.
        close_after: The same, but that the connection is closed in order (FIN).
        garbage: ``"http"`` answers with bytes that are no HTTP, ``"json"`` with a body, or a stream's event, that is no JSON.
        times: How many requests the step is for; ``None`` for all further ones.
        every: Of the requests that come to the step it answers each nth only; the others go on to the next step.
        model: Only requests for this model.
        key: Only requests with this API key, or with the key of this name.
        stream: Only requests for a stream (``True``), or only others (``False``).
        path: Only requests whose path ends so, as ``"/embeddings"``. ``None`` is every POST request.

    Raises:
        ConfigurationError: With everything that is wrong.
    """

    status: int = 200
    headers: Mapping[str, str] = attrs.field(factory=dict, kw_only=True)
    body: Any = attrs.field(default=None, kw_only=True)
    answer: str | None = attrs.field(default=None, kw_only=True)
    usage: Mapping[str, Any] | None = attrs.field(default=None, kw_only=True)
    delay: float = attrs.field(default=0.0, converter=_seconds, kw_only=True)
    chunk_delay: float = attrs.field(default=0.0, converter=_seconds, kw_only=True)
    stall: float = attrs.field(default=0.0, converter=_seconds, kw_only=True)
    stall_after: int = attrs.field(default=0, kw_only=True)
    reset_after: int | None = attrs.field(default=None, kw_only=True)
    close_after: int | None = attrs.field(default=None, kw_only=True)
    garbage: Garbage | None = attrs.field(default=None, kw_only=True)
    times: int | None = attrs.field(default=1, kw_only=True)
    every: int = attrs.field(default=1, kw_only=True)
    model: str | None = attrs.field(default=None, kw_only=True)
    key: str | None = attrs.field(default=None, repr=_shown, kw_only=True)
    stream: bool | None = attrs.field(default=None, kw_only=True)
    path: str | None = attrs.field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if faults := [*_wrong(self, _FAULT_CHECKS), *_contradictions(self)]:
            raise ScriptError("Fault", faults)

    def to_mapping(self) -> dict[str, Any]:
        """What differs from the defaults, as a file would have it."""
        return _mapping(self)

    @classmethod
    def from_mapping(cls, fields: Mapping[str, Any], *, where: str = "Fault") -> Fault:
        """Make a step of its plain form.

        Args:
            fields: By name; seconds may be ``"forever"``.
            where: The place that an error names.

        Raises:
            ConfigurationError: With everything that is wrong, unknown fields among it.
        """
        return _from_mapping(cls, fields, where)


@attrs.frozen
class Limit:
    """What the server lets through: never more than ``limit`` in any ``window`` that one could lay, by its own clock.

    A window is (t - window, t]. A request counts when it has arrived; one that is refused gets a 429 and does not count.

    Attributes:
        limit: The most that is let through, above 0.
        window: Seconds. Of ``what="concurrency"`` it has no meaning.
        what: ``requests``; ``input_tokens``, ``output_tokens`` or both as ``tokens``, as the answer's usage will count them;
            ``concurrency`` is requests in flight.
        by: ``"key"``, ``"model"``, both or neither: what has a count of its own.
        key: Only requests with this API key, or with the key of this name.
        model: Only requests for this model.

    Raises:
        ConfigurationError: With everything that is wrong.
    """

    limit: int
    window: float = attrs.field(default=60.0, kw_only=True)
    what: Counted = attrs.field(default="requests", kw_only=True)
    by: tuple[str, ...] = attrs.field(default=("key",), converter=_words, kw_only=True)
    key: str | None = attrs.field(default=None, repr=_shown, kw_only=True)
    model: str | None = attrs.field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        faults = _wrong(self, _LIMIT_CHECKS)
        if self.what == "concurrency" and self.window != _WINDOW:
            faults.append("window has no meaning for concurrency, which counts what is in flight: leave it out")
        if faults:
            raise ScriptError("Limit", faults)

    def to_mapping(self) -> dict[str, Any]:
        """What differs from the defaults, as a file would have it."""
        return {"limit": self.limit, **_mapping(self)}

    @classmethod
    def from_mapping(cls, fields: Mapping[str, Any], *, where: str = "Limit") -> Limit:
        """Make a limit of its plain form.

        Raises:
            ConfigurationError: With everything that is wrong, unknown fields among it.
        """
        return _from_mapping(cls, fields, where)

    @classmethod
    def from_text(cls, text: str) -> Limit:
        """Make a limit of ``600/60s``, ``90000 tokens/1m/model``, ``4 concurrency`` or ``100/1h/key+model``.

        Without a unit of time it is seconds. What has a count of its own is the key, unless it says ``key``, ``model``,
        ``key+model`` or ``all``.

        Raises:
            ConfigurationError: It is none of these.
        """
        found = _LIMIT_TEXT.fullmatch(text.strip())
        if found is None or (found["time"] is None) != (found["what"] == "concurrency"):
            raise ScriptError(f"limit {text!r}", ["write it as 600/60s, 90000 tokens/1m/model, 100/1h/key+model or 4 concurrency"])
        fields: dict[str, Any] = {"limit": int(found["limit"])}
        if found["what"]:
            fields["what"] = found["what"]
        if found["time"]:
            fields["window"] = float(found["time"]) * _UNITS[found["unit"] or "s"]
        if found["by"]:
            fields["by"] = () if found["by"] == "all" else tuple(found["by"].split("+"))
        return cls.from_mapping(fields, where=f"limit {text!r}")


_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
_LIMIT_TEXT = re.compile(
    rf"(?P<limit>\d+)(?: *(?P<what>{'|'.join(COUNTED)}))?"
    r"(?:/(?P<time>\d+(?:\.\d+)?)(?P<unit>ms|s|m|h)?)?(?:/(?P<by>key|model|key\+model|all))?"
)
_WINDOW = 60.0

_Checks = tuple[tuple[tuple[str, ...], Callable[[Any], bool], str], ...]

_FAULT_CHECKS: _Checks = (
    (("status",), lambda value: _is_count(value) and 200 <= value <= 599, "give an HTTP status from 200 to 599"),
    (("headers",), _is_headers, 'give {"name": "value"}, both strings without line breaks'),
    (("body",), _is_json, "give a text, or what JSON can hold"),
    (("answer",), _or_none(lambda value: isinstance(value, str)), "give a string, or leave it out for the echo"),
    (
        ("usage",),
        _or_none(lambda value: isinstance(value, Mapping) and _is_json(value)),
        'give a mapping, as {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}, or {} for none',
    ),
    (("delay", "chunk_delay", "stall"), _is_seconds, 'give seconds of at least 0, or "forever"'),
    (("stall_after",), _is_count, "give a whole number of at least 0: bytes of a body, or events of a stream"),
    (("reset_after", "close_after"), _or_none(_is_count), "give a whole number of bytes of at least 0, or leave it out"),
    (("garbage",), lambda value: value in (None, *get_args(Garbage)), "give http or json, or leave it out"),
    (("times",), _or_none(lambda value: _is_count(value) and value > 0), "give a whole number above 0, or None for all further requests"),
    (("every",), lambda value: _is_count(value) and value > 0, "give a whole number above 0"),
    (("model", "key"), _or_none(_is_text), "give a string, or leave it out for any"),
    (("stream",), _or_none(lambda value: isinstance(value, bool)), "give True, False or None"),
    (
        ("path",),
        _or_none(lambda value: _is_text(value) and value.startswith("/")),
        "give the end of a path, as /embeddings, or leave it out",
    ),
)

_LIMIT_CHECKS: _Checks = (
    (("limit",), lambda value: _is_count(value) and value > 0, "give a whole number above 0"),
    (("window",), lambda value: _is_number(value) and 0 < value < math.inf, "give seconds above 0"),
    (("what",), lambda value: value in COUNTED, f"give one of {', '.join(COUNTED)}"),
    (("by",), lambda value: all(word in GROUPS for word in value), 'give "key", "model", ("key", "model") or ()'),
    (("key", "model"), _or_none(_is_text), "give a string, or leave it out for any"),
)


def _wrong(made: Any, checks: _Checks) -> list[str]:
    return [
        # Of a key not even what it is not.
        (
            f"key is a {type(getattr(made, field)).__name__}: {remedy}"
            if field == "key"
            else f"{field} is {getattr(made, field)!r}: {remedy}"
        )
        for fields, holds, remedy in checks
        for field in fields
        if not holds(getattr(made, field))
    ]


def _contradictions(fault: Fault) -> list[str]:
    found = []
    bodies = [name for name in ("body", "answer", "garbage") if getattr(fault, name) is not None]
    if len(bodies) > 1:
        found.append(f"{' and '.join(bodies)} say each what comes back: keep one of them")
    if isinstance(fault.headers, Mapping):
        found += [
            f"headers: {name!r} is the server's own affair: leave it out"
            for name in fault.headers
            if str(name).lower() in {"content-length", "transfer-encoding"}
        ]
    if fault.reset_after is not None and fault.close_after is not None:
        found.append("reset_after and close_after end the answer both: keep one of them")
    if fault.stall_after and not fault.stall:
        found.append('stall_after says where to fall silent, and not for how long: give stall too, in seconds or "forever"')
    if isinstance(fault.status, int) and fault.status >= 400:
        found += [
            f"{name} belongs to an answer, and status {fault.status} is none: leave one of them out"
            for name in ("answer", "usage")
            if getattr(fault, name) is not None
        ]
    return found


def _mapping(made: Fault | Limit) -> dict[str, Any]:
    fields: Any = attrs.fields(type(made))
    found = {}
    for field in fields:
        value = getattr(made, field.name)
        default = field.default.factory() if isinstance(field.default, attrs.Factory) else field.default  # type: ignore[arg-type]
        if value != default:
            found[field.name] = "forever" if value == math.inf else list(value) if isinstance(value, tuple) else value
    return found


def _from_mapping(cls: type[_Made], fields: Mapping[str, Any], where: str) -> _Made:
    if not isinstance(fields, Mapping):
        raise ScriptError(where, [f"it is {fields!r}: give a table of fields"])
    known = [field.name for field in attrs.fields(cls)]
    faults = unknown_fields(fields, known)
    missing = [field.name for field in attrs.fields(cls) if field.default is attrs.NOTHING and field.name not in fields]
    faults += [f"{name} is missing: give it" for name in missing]
    if not missing:
        try:
            made = cls(**{name: value for name, value in fields.items() if name in known})
        except ScriptError as exc:
            faults += exc.faults
    if faults:
        raise ScriptError(where, faults)
    return made


def unknown_fields(fields: Mapping[str, Any], known: list[str]) -> list[str]:
    """A fault for each name that is none of these, with the nearest one that is."""
    faults = []
    for name in fields:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 1)
            faults.append(f"{name!r} is no field" + (f": did you mean {near[0]!r}?" if near else f"; the fields are {', '.join(known)}"))
    return faults
