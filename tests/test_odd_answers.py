"""Answers of which a part is missing, or of another kind than any reader expects: an error that may pass, and never a bug's own exception."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

import attrs
import pytest
from servers.formats import Call, format_of

from llm_master import PROVIDER_CONFIGS, LLMResponse, ProviderConfig, ProviderError
from llm_master.providers.http import HTTPProvider
from llm_master.providers.responses import ResponsesProvider
from llm_master.row_classes import provider_class
from llm_master.transport import Answer

CALLS: tuple[Call, ...] = (("call_1", "get_weather", {"city": "Zürich"}),)
ODD = (None, "", 0, -1, 1.5, True, [], {}, "x", [None], {"a": 1}, [1, "a"], "12")
TRIES = 150

ROWS: dict[str, ProviderConfig] = {
    format_of(name).__class__.__name__: row for name, row in PROVIDER_CONFIGS.items() if "chat" in row.capabilities and row.base_url
} | {"Responses": ProviderConfig(name="acme_responses", base_url="http://acme.invalid/v1", provider_class=ResponsesProvider)}
"""One row for each wire format."""


def provider_of(row: ProviderConfig) -> HTTPProvider:
    provider = provider_class(row)(attrs.evolve(row, api_key="sk-odd-0123456789", base_url="http://acme.invalid/v1", folder_id="b1g"))
    assert isinstance(provider, HTTPProvider)
    return provider


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[key], (*path, key))


def spoilt(value: Any, dice: random.Random) -> Any:
    """The same with one to three parts missing, or other than they were."""
    value = copy.deepcopy(value)
    for _ in range(dice.choice((1, 1, 2, 3))):
        if not (found := list(places(value))):
            break
        *way, last = dice.choice(found)
        holder = value
        for step in way:
            holder = holder[step]
        if isinstance(holder, dict) and dice.random() < 0.3:
            del holder[last]
        else:
            holder[last] = copy.deepcopy(dice.choice(ODD))
    return value


def is_an_answer(response: LLMResponse) -> bool:
    return isinstance(response.content, str) and isinstance(response.message, dict) and isinstance(response.usage.total_tokens, int | None)


@pytest.mark.parametrize("form", ROWS)
def test_a_spoilt_answer_is_an_answer_or_an_error_of_the_providers(form: str) -> None:
    provider, dice, answers = provider_of(ROWS[form]), random.Random(form), 0
    spoken = format_of(ROWS[form].name)
    for number in range(TRIES):
        whole = spoken.answer("Hello.") if number % 2 else spoken.answer("", CALLS)
        try:
            response = provider.response(Answer(200, {}, json.dumps(spoilt(whole, dice)).encode()), "m")  # type: ignore[arg-type]
        except ProviderError as exc:
            assert exc.model in (None, "m")
        else:
            assert is_an_answer(response)
            answers += 1
    assert answers > TRIES / 3  # most of what is spoilt is of no matter


@pytest.mark.parametrize("form", ROWS)
def test_a_spoilt_stream_is_an_answer_or_an_error_of_the_providers(form: str) -> None:
    provider, dice, ended = provider_of(ROWS[form]), random.Random(form), 0
    spoken = format_of(ROWS[form].name)
    for number in range(TRIES):
        events = spoken.stream("Hel", "lo.") if number % 2 else spoken.stream(calls=CALLS)
        place = dice.randrange(len(events))
        head, brace, content = events[place].partition("{")
        if not brace:
            continue
        events[place] = f"{head}{json.dumps(spoilt(json.loads(brace + content), dice))}\n\n"
        parser, reader = provider.stream_parser(), provider.reader("m", 200, None)
        try:
            reader.read([*parser.feed(spoken.wire(*events)), *parser.end()])
            if reader.failure is not None:
                raise reader.failure
            reader.ended()
            ended += 1
        except ProviderError as exc:
            assert exc.model in (None, "m")
    assert ended > TRIES / 4
