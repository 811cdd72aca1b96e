"""What goes out and comes back, and the tree of errors."""

from __future__ import annotations

import copy
import pickle
import re
from decimal import Decimal

import pytest

import llm_master
import llm_master.providers
from llm_master import (
    Attempt,
    GenerationParams,
    LLMError,
    LLMResponse,
    ProviderError,
    RateLimitError,
    Receipt,
    RequestTimeoutError,
    StreamInterruptedError,
    ToolCall,
    Usage,
    errors,
)

# Usage


@pytest.mark.parametrize(("tokens_in", "tokens_out", "total"), [(3, 4, 7), (0, 0, 0), (None, 4, None), (3, None, None), (None, None, None)])
def test_the_total_is_known_where_both_counts_are(tokens_in, tokens_out, total):
    assert Usage(input_tokens=tokens_in, output_tokens=tokens_out).total_tokens == total


def test_what_is_not_known_is_none_and_not_nought():
    usage = Usage()
    assert (usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.cache_write_tokens) == (None,) * 4
    assert (usage.reasoning_tokens, usage.cost) == (None, None)


# Tool calls


@pytest.mark.parametrize("text", ["", " ", "\n", "{}"])
def test_no_arguments_are_an_empty_object(text):
    call = ToolCall.from_text("call_1", "now", text)
    assert (call.id, call.name, call.arguments, call.error) == ("call_1", "now", {}, None)


def test_arguments_are_decoded():
    call = ToolCall.from_text("call_1", "weather", '{"city": "K\\u00f6ln", "days": [1, 2.5, null, true]}')
    assert call.arguments == {"city": "Köln", "days": [1, 2.5, None, True]}
    assert call.error is None


@pytest.mark.parametrize("text", ['{"city": ', "city=Berlin", '{"city": "Berlin"} and more', "{'city': 'Berlin'}", "NaN"])
def test_arguments_that_are_not_json_are_told_and_kept(text):
    call = ToolCall.from_text("call_1", "weather", text)
    assert call.arguments == {}
    assert "'weather'" in call.error
    assert "JSON" in call.error
    assert call.text == text


@pytest.mark.parametrize("text", ["[1]", '"Berlin"', "7", "null", "true"])
def test_arguments_that_are_no_object_are_told_and_kept(text):
    call = ToolCall.from_text("call_1", "weather", text)
    assert call.arguments == {}
    assert "not a JSON object" in call.error
    assert call.text == text


def test_a_tool_call_goes_back_exactly_as_the_model_wrote_it():
    text = '{"b": 1,   "a": 2.50}'
    call = ToolCall.from_text("call_1", "f", text)
    assert call.to_message_part() == {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": text}}


def test_a_tool_call_made_by_hand_goes_back_as_json():
    part = ToolCall("call_1", "f", {"a": 1}).to_message_part()
    assert part["function"] == {"name": "f", "arguments": '{"a":1}'}


# Answers


def test_four_things_make_an_answer():
    answer = LLMResponse("Hello", "acme/large", Usage(input_tokens=1, output_tokens=1), 0.5)
    assert (answer.content, answer.model_name, answer.usage.total_tokens, answer.latency) == ("Hello", "acme/large", 2, 0.5)
    assert answer == LLMResponse(content="Hello", model_name="acme/large", usage=Usage(input_tokens=1, output_tokens=1), latency=0.5)
    assert (answer.cost, answer.provider, answer.receipt, answer.raw, answer.tool_calls) == (None, None, None, None, [])


def test_an_answer_reads_as_its_content():
    answer = LLMResponse("Hello", "acme/large")
    assert str(answer) == "Hello"
    assert f"{answer}" == "Hello"
    assert str(LLMResponse("", "acme/large")) == ""


def test_two_answers_share_nothing():
    first, second = LLMResponse("a", "m"), LLMResponse("b", "m")
    first.tool_calls.append(ToolCall("1", "f", {}))
    first.usage.input_tokens = 5
    assert second.tool_calls == []
    assert second.usage.input_tokens is None


def test_an_answer_goes_on_with_the_conversation():
    assert LLMResponse("Hello", "m").message == {"role": "assistant", "content": "Hello"}
    assert LLMResponse("", "m").message == {"role": "assistant", "content": ""}


def test_tool_calls_survive_the_round_trip_through_a_message():
    calls = [ToolCall.from_text("call_1", "weather", '{"city":"Berlin"}'), ToolCall.from_text("call_2", "now", "")]
    message = LLMResponse("", "m", tool_calls=calls).message
    assert message["content"] is None
    again = [ToolCall.from_text(part["id"], part["function"]["name"], part["function"]["arguments"]) for part in message["tool_calls"]]
    assert again == calls
    assert all(part["type"] == "function" for part in message["tool_calls"])


def test_an_answer_can_be_pickled_with_its_receipt():
    receipt = Receipt(model_name="m", provider="acme", why="asked", attempts=[Attempt(provider="acme", model="m", cost=Decimal("0.1"))])
    answer = LLMResponse("Hello", "m", tool_calls=[ToolCall("1", "f", {})], receipt=receipt)
    again = pickle.loads(pickle.dumps(answer))
    assert again == answer
    assert again.receipt.attempts[0].cost == Decimal("0.1")


def test_generation_params_have_the_defaults_that_guides_state():
    params = GenerationParams()
    assert (params.temperature, params.max_tokens, params.top_p, params.stop) == (0.7, 1000, 1.0, None)


# Errors


def drawn_tree() -> dict[str, str]:
    """Class -> base class, as the docstring of errors.py draws them."""
    parents: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in errors.__doc__.splitlines():
        found = re.match(r"    ([│├└─ ]*)([A-Z]\w+Error|LLMError)\b", line)
        if not found or (found[1] and "─" not in found[1]):
            continue
        depth, name = len(found[1]), found[2]
        while above and above[-1][0] >= depth:
            above.pop()
        parents[name] = above[-1][1] if above else "Exception"
        above.append((depth, name))
    return parents


ERRORS = {name: cls for name, cls in vars(errors).items() if isinstance(cls, type) and issubclass(cls, Exception)}


def test_the_tree_is_the_one_that_is_drawn():
    assert drawn_tree() == {name: cls.__bases__[0].__name__ for name, cls in ERRORS.items()}


def test_every_error_is_public():
    assert set(ERRORS) <= set(llm_master.__all__)


def test_a_timeout_is_what_code_around_us_catches():
    assert issubclass(RequestTimeoutError, TimeoutError)
    assert llm_master.providers.TimeoutError is RequestTimeoutError
    with pytest.raises(TimeoutError):
        raise RequestTimeoutError("too slow", status=408)


@pytest.mark.parametrize("cls", ERRORS.values(), ids=ERRORS)
@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))], ids=["copy", "deepcopy", "pickle"]
)
def test_an_error_can_be_copied_and_pickled(cls, again):
    fields = {}
    if issubclass(cls, ProviderError):
        fields = {"status": 429, "provider": "acme", "model": "large", "request_id": "req_1", "retry_after": 1.5, "code": "rate_limit"}
    error = cls("what went wrong", **fields)
    error.receipt = Receipt(model_name="large", provider="acme", why="asked")
    if cls is StreamInterruptedError:
        error.response = LLMResponse("par", "large")
    other = again(error)
    assert type(other) is cls
    assert str(other) == "what went wrong"
    assert other.receipt == error.receipt
    assert {name: getattr(other, name) for name in fields} == fields
    if cls is StreamInterruptedError:
        assert other.response == error.response


@pytest.mark.parametrize("cls", ERRORS.values(), ids=ERRORS)
def test_an_error_has_no_receipt_before_anything_was_tried(cls):
    assert cls("no").receipt is None
    assert issubclass(cls, LLMError)


def test_a_providers_error_says_nothing_that_it_does_not_know():
    error = RateLimitError("slow down")
    assert (error.status, error.provider, error.model, error.request_id, error.retry_after, error.code) == (None,) * 6
