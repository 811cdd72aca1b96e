"""What an answer cost: to the digit, or not at all."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_master import PROVIDER_CONFIGS, BaseLLMProvider, LLMResponse, ModelConfig, ModelRegistry, ProviderConfig, QueryLLM, Usage, pricing
from llm_master.pricing import PriceList
from llm_master.types import WireAnswer

REAL_LOOK_UP = pricing._look_up


def cost(row, **usage):
    return PriceList(row).cost(Usage(**usage))


PLAIN = ModelConfig(input_price_per_million=2, output_price_per_million=8, cached_input_price_per_million="0.5")


# How a cost is known


def test_counts_and_prices_make_an_exact_cost():
    assert cost(PLAIN, input_tokens=1000, output_tokens=100, cached_tokens=400) == (Decimal("0.0022"), "exact")
    assert cost(PLAIN, input_tokens=1000, output_tokens=100, cached_tokens=0) == (Decimal("0.0028"), "exact")


def test_prices_of_a_tenth_add_up_to_the_digit():
    row = ModelConfig(input_price_per_million=0.1, output_price_per_million=0.2, cached_input_price_per_million=0.01)
    assert cost(row, input_tokens=3, output_tokens=0, cached_tokens=0) == (Decimal("0.0000003"), "exact")
    assert cost(row, input_tokens=10**12, output_tokens=10**12, cached_tokens=0) == (Decimal(300_000), "exact")


def test_what_is_not_known_is_none_and_never_nought():
    assert cost(PLAIN) == (None, "unknown")
    assert cost(PLAIN, input_tokens=10) == (None, "unknown")
    assert cost(PLAIN, output_tokens=10) == (None, "unknown")
    assert cost(ModelConfig(), input_tokens=10, output_tokens=10) == (None, "unknown")
    assert cost(ModelConfig(input_price_per_million=1), input_tokens=10, output_tokens=10) == (None, "unknown")
    assert cost(ModelConfig(output_price_per_million=1), input_tokens=10, output_tokens=10) == (None, "unknown")


def test_a_model_that_is_free_costs_nought():
    row = ModelConfig(input_price_per_million=0, output_price_per_million=0)
    assert cost(row, input_tokens=10, output_tokens=10) == (Decimal(0), "exact")


def test_an_embedding_has_no_output_to_pay():
    assert cost(ModelConfig(input_price_per_million=1), input_tokens=1_000_000, output_tokens=0) == (Decimal(1), "exact")


def test_what_is_billed_costs_where_it_is_another_number():
    row = ModelConfig(input_price_per_million=1_000_000, output_price_per_million=2_000_000)
    counts = {"input_tokens": 100, "output_tokens": 50, "cached_tokens": 90}
    assert cost(row, **counts, billed_input_tokens=7, billed_output_tokens=5) == (Decimal(17), "exact")
    assert cost(row, **counts, billed_input_tokens=7) == (None, "unknown")
    assert cost(row, **counts, billed_input_tokens=0, billed_output_tokens=0) == (Decimal(0), "exact")
    cached = attrs.evolve(row, cached_input_price_per_million=1)
    assert cost(cached, **counts, billed_input_tokens=7, billed_output_tokens=5) == (Decimal(17), "estimated"), "perhaps some were cached"
    images = attrs.evolve(row, image_input_price_per_million=3_000_000)
    assert cost(images, **counts, billed_input_tokens=7, billed_output_tokens=5, image_input_tokens=2) == (Decimal(5 + 10 + 6), "exact")


def test_cached_tokens_without_a_price_cost_the_full_one_at_most():
    row = ModelConfig(input_price_per_million=2, output_price_per_million=8)
    assert cost(row, input_tokens=1000, output_tokens=0, cached_tokens=400) == (Decimal("0.002"), "estimated")
    assert cost(row, input_tokens=1000, output_tokens=0, cached_tokens=0) == (Decimal("0.002"), "exact")
    assert cost(row, input_tokens=1000, output_tokens=0) == (Decimal("0.002"), "exact")


def test_a_cached_price_without_a_count_makes_an_estimate():
    assert cost(PLAIN, input_tokens=1000, output_tokens=0) == (Decimal("0.002"), "estimated")


def test_tokens_written_to_the_cache_have_their_own_price():
    row = ModelConfig(
        input_price_per_million=2, output_price_per_million=8, cached_input_price_per_million="0.2", cache_write_price_per_million="2.5"
    )
    found = cost(row, input_tokens=1_000_000, output_tokens=0, cached_tokens=500_000, cache_write_tokens=100_000)
    assert found == (Decimal("0.4") * 2 + Decimal("0.1") + Decimal("0.25"), "exact")


def test_tokens_written_to_the_cache_without_a_price_make_no_exact_cost():
    # A price that matters is missing, and writing may cost more than the full price.
    _, state = cost(
        ModelConfig(input_price_per_million=2, output_price_per_million=8), input_tokens=10, output_tokens=0, cache_write_tokens=5
    )
    assert state != "exact"


@pytest.mark.parametrize(
    "usage",
    [
        # Anthropic's convention, where input excludes the cached, once made a cost of -$0.45.
        {"input_tokens": 10, "output_tokens": 5, "cached_tokens": 100_000},
        {"input_tokens": 10, "output_tokens": 5, "cached_tokens": 6, "cache_write_tokens": 6},
        {"input_tokens": 0, "output_tokens": 0, "cached_tokens": 1},
    ],
)
def test_counts_that_contradict_each_other_make_no_cost(usage):
    row = ModelConfig(
        input_price_per_million=3, output_price_per_million=15, cached_input_price_per_million="0.3", cache_write_price_per_million=4
    )
    assert cost(row, **usage) == (None, "unknown")


TIERED = ModelConfig(
    input_price_per_million=1,
    output_price_per_million=10,
    cached_input_price_per_million="0.1",
    price_tiers=[
        {"above_input_tokens": 200_000, "input_price_per_million": 2, "output_price_per_million": 20},
        {"above_input_tokens": 500_000, "input_price_per_million": 4},
    ],
)


@pytest.mark.parametrize(
    ("tokens_in", "price_in", "price_out"), [(200_000, 1, 10), (200_001, 2, 20), (500_000, 2, 20), (500_001, 4, 10), (0, 1, 10)]
)
def test_the_highest_tier_passed_holds_for_the_whole_request(tokens_in, price_in, price_out):
    expected = Decimal(tokens_in * price_in + 1000 * price_out) / 1_000_000
    assert cost(TIERED, input_tokens=tokens_in, output_tokens=1000, cached_tokens=0) == (expected, "exact")


def test_what_a_tier_does_not_say_holds_from_below():
    assert cost(TIERED, input_tokens=300_000, output_tokens=0, cached_tokens=300_000) == (Decimal("0.03"), "exact")


def test_a_request_may_have_a_price_of_its_own():
    row = ModelConfig(
        input_price_per_million=1, output_price_per_million=1, price_per_request="0.005", price_tiers=[{"above_input_tokens": 10}]
    )
    assert cost(row, input_tokens=1, output_tokens=1) == (Decimal("0.005002"), "exact")
    assert cost(row, input_tokens=11, output_tokens=1) == (Decimal("0.005012"), "exact")


def test_prices_that_vary_make_an_estimate():
    row = ModelConfig(input_price_per_million=1, output_price_per_million=1, prices_vary=True, price_tiers=[{"above_input_tokens": 10}])
    assert cost(row, input_tokens=1, output_tokens=0)[1] == "estimated"
    assert cost(row, input_tokens=11, output_tokens=0)[1] == "estimated"
    assert cost(row)[0] is None


@pytest.mark.parametrize(("days", "state"), [(2, "exact"), (0, "estimated"), (-30, "estimated")])
def test_prices_past_their_day_make_an_estimate(days, state):
    day = (datetime.now(UTC) + timedelta(days=days)).date().isoformat()
    row = ModelConfig(input_price_per_million=1, output_price_per_million=1, prices_hold_until=day)
    assert cost(row, input_tokens=1, output_tokens=0)[1] == state


def test_a_cost_that_is_not_known_is_unknown_also_where_prices_vary():
    row = ModelConfig(input_price_per_million=1, output_price_per_million=1, cached_input_price_per_million="0.1", prices_vary=True)
    assert cost(row, input_tokens=1, output_tokens=1, cached_tokens=5) == (None, "unknown")


# Beside text


SPOKEN = ModelConfig(
    input_price_per_million=2, output_price_per_million=8, audio_input_price_per_million=40, audio_output_price_per_million=80
)


def test_audio_has_its_own_price():
    assert cost(SPOKEN, input_tokens=1000, output_tokens=100, audio_input_tokens=900, audio_output_tokens=60) == (
        Decimal("0.0002") + Decimal("0.036") + Decimal("0.00032") + Decimal("0.0048"),
        "exact",
    )
    assert cost(SPOKEN, input_tokens=1000, output_tokens=100, audio_input_tokens=0, audio_output_tokens=0) == (Decimal("0.0028"), "exact")
    assert cost(SPOKEN, input_tokens=1000, output_tokens=100) == (Decimal("0.0028"), "exact")


@pytest.mark.parametrize("counted", ["audio_input_tokens", "audio_output_tokens"])
def test_audio_without_a_price_never_costs_what_text_costs(counted):
    assert cost(PLAIN, input_tokens=1000, output_tokens=100, cached_tokens=0, **{counted: 1}) == (None, "unknown")
    assert cost(PLAIN, input_tokens=1000, output_tokens=100, cached_tokens=0, **{counted: 0}) == (Decimal("0.0028"), "exact")


def test_a_model_that_writes_only_audio_has_no_price_of_text_to_pay():
    row = ModelConfig(input_price_per_million=1, audio_output_price_per_million=10)
    assert cost(row, input_tokens=10, output_tokens=100, audio_output_tokens=100) == (Decimal("0.00101"), "exact")
    assert cost(row, input_tokens=10, output_tokens=100, audio_output_tokens=99) == (None, "unknown")


def test_of_audio_and_cached_tokens_together_the_full_price_is_the_most():
    # How much of the audio was cached nobody says.
    row = attrs.evolve(SPOKEN, cached_input_price_per_million=1)
    assert cost(row, input_tokens=1000, output_tokens=0, audio_input_tokens=500, cached_tokens=500) == (Decimal("0.021"), "estimated")
    assert cost(row, input_tokens=1000, output_tokens=0, audio_input_tokens=500, cached_tokens=0) == (Decimal("0.021"), "exact")


def test_of_audio_and_written_tokens_together_no_price_is_the_most():
    row = attrs.evolve(SPOKEN, cache_write_price_per_million=3)
    assert cost(row, input_tokens=1000, output_tokens=0, audio_input_tokens=500, cache_write_tokens=1) == (None, "unknown")


@pytest.mark.parametrize(
    "usage",
    [
        {"input_tokens": 10, "output_tokens": 10, "audio_input_tokens": 11},
        {"input_tokens": 10, "output_tokens": 10, "audio_output_tokens": 11},
        {"input_tokens": 10, "output_tokens": 10, "audio_input_tokens": 5, "cached_tokens": 11},
        {"output_tokens": 10, "audio_input_tokens": 5},
        {"input_tokens": 10, "audio_output_tokens": 5},
        {"input_tokens": 10, "output_tokens": 10, "audio_input_tokens": -1},
        {"input_tokens": 10, "output_tokens": 10, "audio_input_tokens": "5"},
        {"input_tokens": 10, "output_tokens": 10, "audio_output_tokens": 5.0},
    ],
)
def test_counts_of_audio_that_cannot_be_make_no_cost(usage):
    assert cost(SPOKEN, **usage) == (None, "unknown")


def test_audio_has_its_price_in_every_tier():
    row = ModelConfig(
        input_price_per_million=1,
        output_price_per_million=1,
        audio_input_price_per_million=2,
        price_tiers=[{"above_input_tokens": 100, "audio_input_price_per_million": 4}, {"above_input_tokens": 1000}],
    )
    assert cost(row, input_tokens=100, output_tokens=0, audio_input_tokens=100) == (Decimal("0.0002"), "exact")
    # The tier is chosen by all of the input.
    assert cost(row, input_tokens=200, output_tokens=0, audio_input_tokens=100) == (Decimal("0.0005"), "exact")
    assert cost(row, input_tokens=2000, output_tokens=0, audio_input_tokens=1000) == (Decimal("0.003"), "exact")
    assert cost(attrs.evolve(row, prices_vary=True), input_tokens=200, output_tokens=0, audio_input_tokens=100)[1] == "estimated"


PAINTER = ModelConfig(
    input_price_per_million=5, output_price_per_million=40, image_input_price_per_million=10, capabilities={"image_output": True}
)


def test_images_read_have_their_own_price_where_the_row_has_one():
    assert cost(PAINTER, input_tokens=300, output_tokens=1000, image_input_tokens=200, images=1) == (Decimal("0.0425"), "exact")
    assert cost(PAINTER, input_tokens=300, output_tokens=1000, image_input_tokens=0, images=1) == (Decimal("0.0415"), "exact")


def test_images_read_that_nobody_counted_cost_the_dearer_price_at_most():
    assert cost(PAINTER, input_tokens=300, output_tokens=1000, images=1) == (Decimal("0.043"), "estimated")
    cheap = attrs.evolve(PAINTER, image_input_price_per_million=1)
    assert cost(cheap, input_tokens=300, output_tokens=1000, images=1) == (Decimal("0.0415"), "estimated")
    # A model that only reads images has them counted where there are any.
    reader = attrs.evolve(PAINTER, capabilities={"embedding": True})
    assert cost(reader, input_tokens=300, output_tokens=0) == (Decimal("0.0015"), "exact")


def test_images_read_without_a_price_are_text_to_a_model_that_makes_none():
    usage = {"input_tokens": 1000, "output_tokens": 100, "cached_tokens": 0, "image_input_tokens": 900}
    assert cost(PLAIN, **usage) == (Decimal("0.0028"), "exact")
    assert cost(attrs.evolve(PLAIN, capabilities={"image_output": False}), **usage) == (Decimal("0.0028"), "exact")
    assert cost(attrs.evolve(PLAIN, capabilities={"image_output": True}), **usage) == (None, "unknown")
    assert cost(attrs.evolve(PLAIN, price_per_image=1), **usage, images=1) == (None, "unknown")


def test_images_made_are_in_the_tokens_only_of_a_model_that_makes_them():
    usage = {"input_tokens": 1000, "output_tokens": 100, "cached_tokens": 0}
    assert cost(PLAIN, **usage, images=1) == (None, "unknown")
    assert cost(PLAIN, **usage, images=0) == (Decimal("0.0028"), "exact")
    assert cost(attrs.evolve(PLAIN, capabilities={"image_output": True}), **usage, images=1) == (Decimal("0.0028"), "exact")


UNITS = [
    ("price_per_image", "images", 1),
    ("price_per_million_characters", "characters", 1_000_000),
    ("price_per_search_unit", "search_units", 1),
]


@pytest.mark.parametrize(("price", "counted", "unit"), UNITS)
def test_what_is_sold_by_the_piece_needs_no_count_of_tokens(price, counted, unit):
    row = ModelConfig(**{price: "0.04"})
    assert cost(row, **{counted: 3 * unit}) == (Decimal("0.12"), "exact")
    assert cost(row, **{counted: 0}) == (Decimal(0), "exact")
    assert cost(row, **{counted: 3 * unit}, input_tokens=50, output_tokens=0) == (Decimal("0.12"), "exact")
    assert cost(attrs.evolve(row, prices_vary=True), **{counted: 3 * unit}) == (Decimal("0.12"), "estimated")


@pytest.mark.parametrize(("price", "counted", "unit"), UNITS)
def test_what_is_sold_by_the_piece_and_was_not_counted_is_unknown(price, counted, unit):
    row = ModelConfig(**{price: "0.04"})
    for usage in ({}, {"input_tokens": 10, "output_tokens": 10}, {counted: -1}, {counted: 1.0}, {counted: "1"}):
        assert cost(row, **usage) == (None, "unknown")


@pytest.mark.parametrize(("price", "counted", "unit"), UNITS)
def test_what_is_sold_by_the_piece_and_by_tokens_costs_both(price, counted, unit):
    row = attrs.evolve(PLAIN, **{price: "0.04"})
    assert cost(row, input_tokens=1000, output_tokens=100, cached_tokens=0, **{counted: unit}) == (Decimal("0.0428"), "exact")
    assert cost(row, **{counted: unit}) == (None, "unknown")


def test_what_is_sold_by_the_piece_may_cost_something_by_the_request_too():
    assert cost(ModelConfig(price_per_image="0.04", price_per_request="0.01"), images=2) == (Decimal("0.09"), "exact")
    assert cost(ModelConfig(price_per_request=0)) == (Decimal(0), "exact")
    assert cost(ModelConfig(price_per_image="0.04"), images=2, web_searches=1) == (None, "unknown")
    assert cost(ModelConfig(price_per_image="0.04"), images=2, others_worked=True) == (None, "unknown")


def test_pieces_that_a_model_sold_by_tokens_counted_are_no_price():
    assert cost(PLAIN, input_tokens=1000, output_tokens=100, cached_tokens=0, characters=9, search_units=9) == (Decimal("0.0028"), "exact")


prices = st.none() | st.decimals(0, 1000, places=4)
counts = st.none() | st.integers(0, 10**7)
rows = st.builds(
    lambda a, b, c, d, e, tiers: ModelConfig(
        input_price_per_million=a,
        output_price_per_million=b,
        cached_input_price_per_million=c,
        cache_write_price_per_million=d,
        price_per_request=e,
        price_tiers=[{"above_input_tokens": above, "input_price_per_million": price} for above, price in tiers],
    ),
    prices,
    prices,
    prices,
    prices,
    prices,
    st.lists(st.tuples(st.integers(0, 10**6), prices), max_size=2),
)


@settings(deadline=None, max_examples=150)
@given(rows, counts, counts, counts, counts)
def test_a_cost_is_never_negative(row, tokens_in, tokens_out, cached, written):
    found, state = cost(row, input_tokens=tokens_in, output_tokens=tokens_out, cached_tokens=cached, cache_write_tokens=written)
    assert (found is None) == (state == "unknown")
    assert found is None or found >= 0


@settings(deadline=None, max_examples=150)
@given(rows, *[st.none() | st.integers(-(10**6), 10**6)] * 4)
def test_a_cost_is_never_negative_even_where_a_provider_counts_below_nought(row, tokens_in, tokens_out, cached, written):
    found, _ = cost(row, input_tokens=tokens_in, output_tokens=tokens_out, cached_tokens=cached, cache_write_tokens=written)
    assert found is None or found >= 0


BESIDE_TEXT = (
    "audio_input_price_per_million",
    "audio_output_price_per_million",
    "image_input_price_per_million",
    "price_per_image",
    "price_per_million_characters",
    "price_per_search_unit",
)
any_rows = st.builds(
    lambda row, more, makes_images: attrs.evolve(row, **more, capabilities={} if makes_images is None else {"image_output": makes_images}),
    rows,
    st.fixed_dictionaries({}, optional=dict.fromkeys(BESIDE_TEXT, prices)),
    st.none() | st.booleans(),
)
COUNTS = (
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "audio_input_tokens",
    "audio_output_tokens",
    "image_input_tokens",
    "images",
    "characters",
    "search_units",
    "web_searches",
)
counted = st.fixed_dictionaries({}, optional={name: st.none() | st.integers(-5, 10**6) for name in COUNTS})


@settings(deadline=None, max_examples=300)
@given(any_rows, counted)
def test_a_cost_of_anything_is_never_negative_and_never_known_by_halves(row, usage):
    found, state = cost(row, **usage)
    assert (found is None) == (state == "unknown")
    assert found is None or (isinstance(found, Decimal) and found >= 0)
    if found is not None:
        # What was counted and has a price of its own is not known without that price.
        assert not usage.get("audio_input_tokens") or row.audio_input_price_per_million is not None or not _has_token_price(row)
        assert not usage.get("images") or row.price_per_image is not None or row.capabilities.get("image_output")
        assert all(usage.get(name) is not None for price, name, _ in UNITS if getattr(row, price) is not None)


def _has_token_price(row):
    return row.input_price_per_million is not None or row.output_price_per_million is not None


@settings(deadline=None, max_examples=150)
@given(any_rows, counted)
def test_nothing_beside_text_and_no_price_for_it_change_nothing(row, usage):
    text = ModelConfig(**{field: getattr(row, field) for field in TEXT_PRICES})
    plain = {name: usage.get(name) for name in COUNTS[:4]}
    audio_only = attrs.evolve(text, audio_input_price_per_million=row.audio_input_price_per_million, audio_output_price_per_million=7)
    assert cost(text, **plain) == cost(audio_only, **plain, audio_input_tokens=0, audio_output_tokens=0, image_input_tokens=0, images=0)


TEXT_PRICES = (
    "input_price_per_million",
    "output_price_per_million",
    "cached_input_price_per_million",
    "cache_write_price_per_million",
    "price_per_request",
    "price_tiers",
)


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6), *[st.decimals(0, 1000, places=4)] * 4)
def test_audio_and_text_cost_the_sum_of_their_parts(text_in, audio_in, text_out, audio_out, p_in, p_audio_in, p_out, p_audio_out):
    row = ModelConfig(
        input_price_per_million=p_in,
        output_price_per_million=p_out,
        audio_input_price_per_million=p_audio_in,
        audio_output_price_per_million=p_audio_out,
    )
    found = cost(
        row,
        input_tokens=text_in + audio_in,
        output_tokens=text_out + audio_out,
        audio_input_tokens=audio_in,
        audio_output_tokens=audio_out,
    )
    assert found == ((text_in * p_in + audio_in * p_audio_in + text_out * p_out + audio_out * p_audio_out) / 1_000_000, "exact")


flat_rows = st.builds(
    lambda a, b, share: ModelConfig(
        input_price_per_million=a,
        output_price_per_million=b,
        cached_input_price_per_million=a * share / 100,
        cache_write_price_per_million=a * 2,
    ),
    st.decimals(0, 1000, places=4),
    st.decimals(0, 1000, places=4),
    st.integers(0, 100),
)


@settings(deadline=None, max_examples=150)
@given(flat_rows, st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6), st.integers(1, 10**6))
def test_more_tokens_never_cost_less(row, tokens_in, tokens_out, cached, more):
    cached = min(cached, tokens_in)
    before, _ = cost(row, input_tokens=tokens_in, output_tokens=tokens_out, cached_tokens=cached)
    more_in, _ = cost(row, input_tokens=tokens_in + more, output_tokens=tokens_out, cached_tokens=cached)
    more_out, _ = cost(row, input_tokens=tokens_in, output_tokens=tokens_out + more, cached_tokens=cached)
    less_cached, _ = cost(row, input_tokens=tokens_in, output_tokens=tokens_out, cached_tokens=cached // 2)
    assert before <= more_in
    assert before <= more_out
    assert before <= less_cached


# Through a query


class Counting(BaseLLMProvider):
    """Answers with the usage that the test set."""

    usage = Usage(input_tokens=1000, output_tokens=100, cached_tokens=0)
    tier = None

    async def generate(self, messages, model, **options):
        return LLMResponse("Hello", model, Counting.usage, wire=WireAnswer(200, "req_1", b"{}", Counting.tier))


@pytest.fixture(autouse=True)
def acme(monkeypatch):
    monkeypatch.setattr(Counting, "usage", Counting.usage)
    monkeypatch.setattr(Counting, "tier", None)
    monkeypatch.setattr(pricing, "_looked_up", {})
    monkeypatch.setattr(pricing, "_look_up", lambda base_url, model: pytest.fail("looked up"))
    put()
    ModelRegistry.register("acme/large", PLAIN)


def put(**fields):
    PROVIDER_CONFIGS["acme"] = ProviderConfig(provider_class=Counting, requires_key=False, **fields)


async def asked(model="acme/large"):
    return await QueryLLM().query(model, prompt="Hello")


async def test_an_answer_has_its_cost_and_the_receipt_says_how_it_is_known():
    answer = await asked()
    assert answer.cost == answer.receipt.cost == answer.receipt.attempts[0].cost == Decimal("0.0028")
    assert (answer.receipt.cost_state, answer.receipt.currency) == ("exact", "USD")


async def test_what_the_provider_billed_wins():
    Counting.usage = Usage(input_tokens=1000, output_tokens=100, cached_tokens=0, cost=Decimal("0.01"))
    answer = await asked()
    assert (answer.cost, answer.receipt.cost_state) == (Decimal("0.01"), "billed")


async def test_a_provider_may_bill_nought():
    Counting.usage = Usage(input_tokens=1000, output_tokens=100, cost=Decimal(0))
    answer = await asked()
    assert (answer.cost, answer.receipt.cost_state) == (Decimal(0), "billed")


@pytest.mark.parametrize("tier", ["flex", "priority", "batch"])
async def test_another_service_tier_has_another_price_that_is_not_known(tier):
    Counting.tier = tier
    answer = await asked()
    assert (answer.cost, answer.receipt.cost_state) == (None, "unknown")


@pytest.mark.parametrize("tier", [None, "", "default", "auto", "standard", "on_demand"])
async def test_the_list_price_holds_at_the_usual_tier(tier):
    Counting.tier = tier
    assert (await asked()).cost == Decimal("0.0028")


async def test_a_bill_holds_at_any_tier():
    Counting.tier = "flex"
    Counting.usage = Usage(cost=Decimal("0.01"))
    assert (await asked()).cost == Decimal("0.01")


async def test_a_row_may_skip_the_calculation_and_keeps_the_bill():
    put(skip_cost_calculation=True)
    answer = await asked()
    assert (answer.cost, answer.receipt.cost_state) == (None, "unknown")
    Counting.usage = Usage(cost=Decimal("0.01"))
    assert (await asked()).cost == Decimal("0.01")


async def test_a_cost_is_in_the_providers_currency():
    put(currency="EUR")
    assert (await asked()).receipt.currency == "EUR"


async def test_a_price_that_was_registered_later_holds_for_the_next_query():
    llm = QueryLLM()
    assert (await llm.query("acme/large", prompt="Hello")).cost == Decimal("0.0028")
    ModelRegistry.register("acme/large", ModelConfig(input_price_per_million=0, output_price_per_million=0))
    assert (await llm.query("acme/large", prompt="Hello")).cost == 0


@pytest.mark.parametrize("spelt", ["my-host", "my_host"])
async def test_a_price_is_found_however_the_provider_is_spelt(spelt):
    PROVIDER_CONFIGS["my-host"] = ProviderConfig(provider_class=Counting, requires_key=False)
    ModelRegistry.register("my-host/large", PLAIN)
    assert (await asked(f"{spelt}/large")).cost == Decimal("0.0028")


@pytest.mark.parametrize("tokens", [1000.0, "1000", True, [1000], {"total": 1000}, -1])
async def test_a_count_that_is_none_loses_the_cost_and_not_the_answer(tokens):
    Counting.usage = Usage(input_tokens=tokens, output_tokens=100, cached_tokens=0)
    answer = await asked()
    assert answer.content == "Hello"
    assert answer.cost is None or answer.cost >= 0


# A model that nobody registered


async def test_the_price_of_an_unregistered_model_is_looked_up_once_and_off_the_loop(monkeypatch):
    seen = []

    def look_up(base_url, model):
        seen.append((base_url, model, threading.current_thread()))
        return ModelConfig(input_price_per_million=1, output_price_per_million=0)

    monkeypatch.setattr(pricing, "_look_up", look_up)
    put(base_url="https://api.acme.ai/v1")
    first = await asyncio.gather(*[asked("acme/new") for _ in range(5)])
    again = await QueryLLM(max_attempts=3).query("acme/new", prompt="Hello")
    assert {answer.cost for answer in (*first, again)} == {Decimal("0.001")}
    assert [(base_url, model) for base_url, model, _ in seen] == [("https://api.acme.ai/v1", "new")]
    assert seen[0][2] is not threading.current_thread()


async def test_two_models_are_looked_up_each(monkeypatch):
    seen = []
    monkeypatch.setattr(pricing, "_look_up", lambda base_url, model: seen.append(model))
    put(base_url="https://api.acme.ai/v1")
    for model in ("acme/one", "acme/two", "acme/one", "acme/two"):
        assert (await asked(model)).cost is None
    assert seen == ["one", "two"]


@pytest.mark.parametrize(
    "base_url",
    [
        "http://localhost:8000/v1",
        "http://api.acme.ai/v1",
        "http://127.0.0.1:8000/v1",
        "https://localhost:8000/v1",
        "https://127.0.0.1:8000/v1",
        "https://[::1]:8000/v1",
        None,
    ],
)
async def test_a_server_of_ones_own_is_in_no_price_list(base_url):
    put(base_url=base_url)
    assert (await asked("acme/new")).cost is None  # and the fixture's look-up did not fail


async def test_a_row_that_skips_the_calculation_looks_nothing_up():
    put(base_url="https://api.acme.ai/v1", skip_cost_calculation=True)
    assert (await asked("acme/new")).cost is None


async def test_a_registered_model_is_not_looked_up():
    put(base_url="https://api.acme.ai/v1")
    assert (await asked()).cost == Decimal("0.0028")


async def test_a_price_list_that_fails_loses_the_cost_and_not_the_answer(monkeypatch):
    def broken(base_url, model):
        raise RuntimeError("the list cannot be read")

    monkeypatch.setattr(pricing, "_look_up", broken)
    put(base_url="https://api.acme.ai/v1")
    answer = await asked("acme/new")
    assert (answer.content, answer.cost, answer.receipt.cost_state) == ("Hello", None, "unknown")


async def test_a_stream_gets_its_price_looked_up_too(monkeypatch):
    monkeypatch.setattr(pricing, "_look_up", lambda base_url, model: ModelConfig(input_price_per_million=1, output_price_per_million=0))
    put(base_url="https://api.acme.ai/v1")
    async with QueryLLM().stream("acme/new", prompt="Hello") as stream:
        assert [text async for text in stream] == ["Hello"]
    assert stream.response.cost == Decimal("0.001")


def test_the_real_price_list_knows_a_model_of_a_real_row(monkeypatch):
    monkeypatch.setattr(pricing, "_look_up", REAL_LOOK_UP)
    row = pricing.look_up("https://api.openai.com/v1", "gpt-4-turbo")
    assert row.input_price_per_million > 0
    assert row.output_price_per_million > 0
    assert pricing.look_up("https://api.openai.com/v1", "gpt-4-turbo") is row
    heard = pricing.look_up("https://generativelanguage.googleapis.com/v1beta", "gemini-2.5-flash")
    assert heard.audio_input_price_per_million > heard.input_price_per_million
    assert pricing.look_up("https://api.acme.invalid/v1", "large") is None
    assert pricing.look_up("https://api.openai.com/v1", "no-such-model-at-all") is None
