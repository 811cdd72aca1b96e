"""What an answer cost: to the digit, or not at all."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal

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
    assert pricing.look_up("https://api.acme.invalid/v1", "large") is None
    assert pricing.look_up("https://api.openai.com/v1", "no-such-model-at-all") is None
