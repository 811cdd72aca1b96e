"""What some APIs put beside the common form of chat completions, and what of it they want back in the next turn.

No provider is named: several use the same fields, and a gateway passes on those of whoever stands behind it. Sources:

* ``reasoning_details``: https://openrouter.ai/docs/guides/best-practices/reasoning-tokens
* ``reasoning_content`` with tools: https://api-docs.deepseek.com/guides/thinking_mode
* parts of type ``thinking`` and ``reference``: https://docs.mistral.ai/api/#tag/chat
* ``executed_tools``: https://console.groq.com/docs/compound
* ``reasoning_steps``, ``num_search_queries``: https://docs.perplexity.ai/api-reference
* ``cost_in_usd_ticks``: https://docs.x.ai/docs/api-reference
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from llm_master.media import Citation, Image
from llm_master.types import Message, Usage

if TYPE_CHECKING:
    from llm_master.providers.chat_format import WireMessage
    from llm_master.providers.chat_usage import WireUsage

FORMAT = "chat"
"""Under this name an answer keeps what the next turn needs."""

GAVE_UP = frozenset({"error", "insufficient_system_resource", "network_error"})
"""Finish reasons of an answer that the provider did not bring to its end: what there is of it is none."""

_TICKS_PER_USD = 10_000_000_000


# The next turn


def kept(message: WireMessage, returns: Sequence[str]) -> dict[str, Any] | None:
    """What of an answer's message goes back, as its ``native``; ``None`` for nothing."""
    return native_of({name: getattr(message, name, None) for name in returns})


def native_of(fields: Mapping[str, Any]) -> dict[str, Any] | None:
    """The ``native`` of these fields, without those that hold nothing, or nothing that our messages could not say."""
    found = {name: value for name, value in fields.items() if value}
    if "content" in found and not (isinstance(found["content"], list) and any(_is_beside_text(part) for part in found["content"])):
        del found["content"]
    if "annotations" in found:
        # A file that was read need not be read again; the sources of an answer are of no use to its author.
        found["annotations"] = [note for note in _dicts(found["annotations"]) if note.get("type") == "file"]
        if not found["annotations"]:
            del found["annotations"]
    return {"format": FORMAT, "fields": found} if found else None


def returned(message: Message, returns: Sequence[str]) -> dict[str, Any]:
    """A message as it goes out: without ``_native``, and with what of it this API wants back. What the caller wrote stays."""
    plain = {key: value for key, value in message.items() if key != "_native"}
    native = message.get("_native")
    fields = native.get("fields") if isinstance(native, Mapping) and native.get("format") == FORMAT else None
    if isinstance(fields, Mapping):
        for name in returns:
            if name in fields and (name == "content" or name not in plain):
                plain[name] = fields[name]
    return plain


def _is_beside_text(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") != "text"


def add_details(details: list[dict[str, Any]], more: Any) -> None:
    """Join pieces of ``reasoning_details``: texts of one kind and index are one; whatever is signed or encrypted comes whole."""
    for piece in _dicts(more):
        kind, index = piece.get("type"), piece.get("index")
        field = {"reasoning.text": "text", "reasoning.summary": "summary"}.get(str(kind))
        last = None
        if field is not None:
            alike = (one for one in reversed(details) if one.get("type") == kind and one.get("index") == index)
            last = next(alike, None) if index is not None else (details[-1] if details and details[-1].get("type") == kind else None)
        if last is None or field is None:
            details.append(dict(piece))
            continue
        for key, value in piece.items():
            if key == field and isinstance(value, str) and isinstance(last.get(key), str):
                last[key] += value
            elif value not in (None, "") or key not in last:
                last[key] = value


# Citations and images


def references(parts: Any) -> list[Citation]:
    """Sources among the parts of a content: ids of what the caller gave, or pages that a tool of the provider found."""
    found = []
    for part in _dicts(parts):
        if part.get("type") == "reference":
            ids = part.get("reference_ids")
            found += [Citation(None, str(one), raw=part) for one in (ids if isinstance(ids, list) else ())]
        elif part.get("type") == "tool_reference":
            found.append(Citation(_text(part.get("url")), _text(part.get("title")), text=_text(part.get("description")), raw=part))
    return found


class ExecutedTools:
    """Tools that the provider ran by itself for the answer; in a stream each comes as it begins, and again as it ends."""

    def __init__(self) -> None:
        self._tools: dict[Any, dict[str, Any]] = {}

    def add(self, tools: Any) -> None:
        """Take in what a message, or a piece of one, says of them."""
        for position, tool in enumerate(_dicts(tools)):
            index = tool.get("index")
            place = index if isinstance(index, int) else position
            self._tools[place] = {**self._tools.get(place, {}), **{key: value for key, value in tool.items() if value is not None}}

    def citations(self) -> list[Citation]:
        """What they found, each page once."""
        found: dict[str, Citation] = {}
        for tool in self._tools.values():
            results = tool.get("search_results")
            pages = _dicts(results.get("results")) if isinstance(results, dict) else []
            for page in [*pages, *_dicts(tool.get("browser_results"))]:
                if (url := _text(page.get("url"))) is not None:
                    found.setdefault(url, Citation(url, _text(page.get("title")), text=_text(page.get("content")), raw=page))
        return list(found.values())

    def images(self) -> list[Image]:
        """What their code drew, and what their searches found."""
        found: list[Image] = []
        for tool in self._tools.values():
            drawn = (_decoded(result.get("png")) for result in _dicts(tool.get("code_results")))
            found += [Image(png, None, "image/png") for png in drawn if png is not None]
            results = tool.get("search_results")
            links = results.get("images") if isinstance(results, dict) else None
            found += [Image.from_url(link) for link in (links if isinstance(links, list) else ()) if isinstance(link, str) and link]
        return found


def thoughts(steps: Any) -> str | None:
    """What the model thought at each step of its research."""
    return "\n\n".join(thought for step in _dicts(steps) if (thought := _text(step.get("thought")))) or None


# Usage


def has_more(wire: WireUsage) -> bool:
    """Whether :func:`add_usage` would find anything."""
    return bool(
        wire.cost_in_usd_ticks is not None
        or wire.num_search_queries
        or wire.server_tool_use_details is not None
        or wire.num_sources_used
        or wire.prompt_audio_seconds
        or wire.is_byok
    )


def add_usage(usage: Usage, wire: WireUsage) -> None:
    """What few say of usage: searches, costs in other units, what is billed beside the tokens."""
    if usage.cost is None and (ticks := number(wire.cost_in_usd_ticks)) is not None:
        usage.cost = ticks / _TICKS_PER_USD
    if wire.is_byok is True and usage.cost is not None and isinstance(wire.cost_details, dict):
        # Paid with a key of the user's own, so that the gateway bills its fee, and the model's provider the rest.
        usage.cost += number(wire.cost_details.get("upstream_inference_cost")) or 0
    tools = wire.server_tool_use_details
    searches = wire.num_search_queries or (tools.get("web_search_requests") if isinstance(tools, dict) else None)
    if isinstance(searches, int) and searches > 0:
        usage.web_searches = searches
    if wire.num_sources_used or wire.prompt_audio_seconds:
        usage.others_worked = True  # billed by the source, and by the second, which no row has a price for


def number(value: Any) -> Decimal | None:
    """A number, however it is written; ``None`` for whatever is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        found = Decimal(str(value))
    except ArithmeticError:
        return None
    return found if found.is_finite() else None


def _dicts(values: Any) -> Iterable[dict[str, Any]]:
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _decoded(value: Any) -> bytes | None:
    try:
        return base64.b64decode(value, validate=True) if isinstance(value, str) and value else None
    except ValueError:
        return None
