"""What is counted, read by Prometheus' own parser; the keys' states; the log's fields."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import subprocess
import sys
import threading
from decimal import Decimal
from typing import Any

import pytest

from llm_master import PROVIDER_CONFIGS, ConfigurationError, LLMError, ModelConfig, ModelRegistry, ProviderConfig, QueryLLM, metrics
from llm_master.dispatch import hooks as hooks_module
from llm_master.testing import FakeClock, Fault, FaultServer

parser = pytest.importorskip("prometheus_client.parser", reason="prometheus_client, whose parser reads the metrics, is not installed")

FIRST, SECOND = "sk-first-0123456789", "sk-second-0123456780"
NAMES = {FIRST: "api_keys['trial'][0] …6789", SECOND: "api_keys['trial'][1] …6780"}


def trial(server: FaultServer, *, keys: list[str] | None = None, **settings: Any) -> QueryLLM:
    PROVIDER_CONFIGS["trial"] = ProviderConfig(base_url=server.base_url)
    ModelRegistry.register("trial/large", ModelConfig(input_price_per_million=2, output_price_per_million=8))
    return QueryLLM(api_keys={"trial": keys or [FIRST]}, **{"metrics": True, **settings})


def read() -> dict[tuple[str, ...], float]:
    """All samples, as Prometheus' own client reads them: the name and the labels' values -> the value."""
    found = {}
    for family in parser.text_string_to_metric_families(metrics.text()):
        assert family.documentation and family.type in ("counter", "gauge", "histogram")
        for sample in family.samples:
            key = (sample.name.removeprefix("llm_master_"), *sample.labels.values())
            assert key not in found
            found[key] = sample.value
    return found


async def test_an_answer_is_counted_with_its_time_its_tokens_and_its_cost(fault_server: FaultServer) -> None:
    answer = await trial(fault_server).query("trial/large", prompt="Hello")
    found = read()
    trial_large = ("trial", "large")
    assert found["queries_total", *trial_large, ""] == 1
    assert found["requests_total", *trial_large, "200", ""] == 1
    assert found["request_duration_seconds_count", *trial_large] == 1
    assert found["request_duration_seconds_sum", *trial_large] == pytest.approx(answer.latency)
    assert found["request_duration_seconds_bucket", *trial_large, "+Inf"] == 1
    assert found["tokens_total", *trial_large, "input"] == answer.usage.input_tokens
    assert found["tokens_total", *trial_large, "output"] == answer.usage.output_tokens
    assert answer.cost is not None
    assert found["cost_total", *trial_large, "USD"] == pytest.approx(float(answer.cost))
    assert isinstance(metrics.snapshot()["llm_master_cost_total"][0]["value"], Decimal)
    assert not any(name.startswith("time_to_first") for name, *_ in found)


async def test_without_it_nothing_is_counted_and_nothing_listens(fault_server: FaultServer) -> None:
    llm = trial(fault_server, metrics=False, telemetry=False)
    await llm.query("trial/large", prompt="Hello")
    assert metrics.text() == ""
    assert llm._engine.hooks is None


async def test_every_attempt_is_counted_by_what_became_of_it(fault_server: FaultServer) -> None:
    fault_server.accept(keys={"second": SECOND})
    fault_server.script(Fault(503), Fault(200))
    await trial(fault_server, keys=[FIRST, SECOND]).query("trial/large", prompt="Hello")
    found = read()
    counted = {labels[2:]: value for labels, value in found.items() if labels[0] == "requests_total" for labels in [labels[1:]]}
    assert sum(counted.values()) == fault_server.counts("status")[200] + 1 + fault_server.counts("status").get(401, 0)
    assert counted["200", ""] == 1
    assert counted["503", "ServerError"] == 1
    assert found["queries_total", "trial", "large", ""] == 1
    assert found["waits_total", "trial", "large", "failure"] == 1
    assert found["wait_seconds_total", "trial", "large", "failure"] > 0


async def test_what_is_not_known_is_not_counted_as_nothing(fault_server: FaultServer) -> None:
    llm = trial(fault_server)
    await llm.query("trial/unpriced", prompt="Hello")
    assert not [key for key in read() if key[0] == "cost_total"]


async def test_failures_are_counted_also_those_before_anything_is_sent(fault_server: FaultServer) -> None:
    llm = trial(fault_server)
    fault_server.script(Fault(400))
    for name, options in [("trial/large", {}), ("nobody-knows-this", {}), ("trial/large", {"temprature": 1})]:
        with pytest.raises(LLMError):
            await llm.query(name, prompt="Hello", **options)
    ModelRegistry.register("trial/rare", ModelConfig(rate_limit_rpm=1))
    await llm.query("trial/rare", prompt="Hello")
    with pytest.raises(LLMError):
        await llm.query("trial/rare", prompt="Hello", deadline=1)
    found = read()
    assert found["queries_total", "trial", "large", "InvalidRequestError"] == 1
    assert found["queries_total", "", "", "UnknownModelError"] == 1
    assert found["queries_total", "", "", "InvalidRequestError"] == 1
    assert found["queries_total", "trial", "rare", "DeadlineExceededError"] == 1
    assert found["requests_total", "trial", "rare", "200", ""] == 1
    llm.plan("trial/large", prompt="Hello")
    with pytest.raises(LLMError):
        llm.plan("nobody-knows-this", prompt="Hello")
    assert read() == found


async def test_a_cancelled_query_is_counted(fault_server: FaultServer) -> None:
    fault_server.script(Fault(stall=30))
    llm = trial(fault_server)
    task = asyncio.create_task(llm.query("trial/large", prompt="Hello"))
    while not fault_server.requests:
        await asyncio.sleep(0.01)
    (key,) = {status.key for status in llm.key_states()}
    assert read()["in_flight", "trial", key] == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    found = read()
    assert found["queries_total", "trial", "large", "cancelled"] == 1
    assert found["requests_total", "trial", "large", "", "cancelled"] == 1
    assert found["in_flight", "trial", key] == 0


async def test_streams_are_counted_to_their_end_stopped_or_abandoned(fault_server: FaultServer) -> None:
    llm = trial(fault_server)
    async with llm.stream("trial/large", prompt="Hello") as stream:
        async for _ in stream:
            pass
    stopped = llm.stream("trial/large", prompt="one two three four")
    await anext(stopped)
    await stopped.stop()
    abandoned = llm.stream("trial/large", prompt="one two three four")
    await anext(abandoned)
    del abandoned
    gc.collect()
    never = llm.stream("trial/large", prompt="never asked")
    await never.stop()
    found = read()
    assert found["time_to_first_token_seconds_count", "trial", "large"] == 3
    assert [found["queries_total", "trial", "large", end] for end in ("", "stopped", "abandoned")] == [1, 1, 1]
    assert [
        found["requests_total", "trial", "large", status, end] for status, end in (("200", ""), ("", "stopped"), ("", "abandoned"))
    ] == [
        1,
        1,
        1,
    ]
    assert found["tokens_total", "trial", "large", "output"] == stream.response.usage.output_tokens
    await asyncio.sleep(0.05)  # the abandoned connection closes


async def test_keys_are_told_by_their_states_and_never_shown(fault_server: FaultServer) -> None:
    clock = FakeClock()
    llm = trial(fault_server, keys=[FIRST, SECOND], clock=clock)
    fault_server.script(
        Fault(401),
        Fault(429, headers={"retry-after": "700"}),
    )
    with pytest.raises(LLMError):
        await llm.query("trial/large", prompt="Hello", deadline=100)
    states = {status.condition: status for status in llm.key_states()}
    assert set(states) == {"invalid", "exhausted"}
    assert 290 < states["invalid"].seconds <= 300
    assert 690 < states["exhausted"].seconds <= 700
    assert states["invalid"].key in NAMES.values()
    assert FIRST not in metrics.text() + str(states) and SECOND not in metrics.text() + str(states)
    found = read()
    for condition, status in states.items():
        told = {state: found["key_state", "trial", status.key or "", state] for state in ("available", "invalid", "exhausted", "cooling")}
        assert told == {"available": 0, "invalid": 0, "exhausted": 0, "cooling": 0, condition: 1}
    assert found["queue_length", "trial"] == 0


@pytest.mark.parametrize(
    ("fault", "condition", "seconds"),
    [
        (Fault(402), "no_funds", 3600),
        (Fault(403), "denied", 300),
        (Fault(429, headers={"retry-after": "30"}), "cooling", 30),
    ],
)
async def test_a_key_is_in_each_condition_for_its_time(fault: Fault, condition: str, seconds: float, fault_server: FaultServer) -> None:
    clock = FakeClock()
    llm = trial(fault_server, clock=clock)
    other = trial(fault_server, clock=clock, max_attempts=3)  # another engine, whose key is the same and well
    await other.query("trial/large", prompt="Hello")
    fault_server.script(fault)
    with pytest.raises(LLMError):
        await llm.query("trial/large", prompt="Hello", deadline=1)
    (status,) = llm.key_states()
    assert (status.condition, status.model, status.uses) == (condition, "large", 1)
    assert status.seconds == pytest.approx(seconds, abs=5)
    found = read()
    assert found["key_state", "trial", status.key or "", condition] == 1
    assert found["key_state", "trial", status.key or "", "available"] == 0
    await clock.advance(seconds + 1)
    (status,) = llm.key_states()
    assert (status.condition, status.seconds) == ("available", 0)
    assert read()["key_state", "trial", status.key or "", "available"] == 1


async def test_who_waits_is_told(fault_server: FaultServer) -> None:
    PROVIDER_CONFIGS["trial"] = ProviderConfig(base_url=fault_server.base_url, max_concurrent=1)
    llm = QueryLLM(api_keys={"trial": [FIRST]}, metrics=True)
    fault_server.script(Fault(stall=30))
    tasks = [asyncio.create_task(llm.query("trial/large", prompt="Hello")) for _ in range(3)]
    while not fault_server.requests:
        await asyncio.sleep(0.01)
    assert read()["queue_length", "trial"] == 2
    assert [status.waiting for status in llm.key_states()] == [2]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert read()["queue_length", "trial"] == 0


async def test_labels_are_escaped_and_models_bounded(fault_server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    name = 'a "quoted"\nback\\slash'
    llm = trial(fault_server)
    await llm.query(f"trial/{name}", prompt="Hello")
    assert ("requests_total", "trial", name, "200", "") in read()
    monkeypatch.setattr(metrics, "MODELS", 3)
    for number in range(9):
        await llm.query(f"trial/model-{number}", prompt="Hello")
    found = read()
    counted = {key[1:3] for key in found if key[0] == "requests_total"}
    assert counted == {("trial", name), ("trial", "model-0"), ("trial", "model-1"), ("other", "other")}
    assert found["requests_total", "other", "other", "200", ""] == 7


def test_nothing_is_lost_between_threads() -> None:
    llm = QueryLLM(metrics=True)

    def work() -> None:
        async def many() -> None:
            for _ in range(50):
                await llm.query("mock/echo", prompt="Hello")

        asyncio.run(many())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        read()
    for thread in threads:
        thread.join()
    assert read()["queries_total", "mock", "echo", ""] == 200


async def test_an_observer_that_fails_breaks_nothing_and_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("a fault of the observer's")

    monkeypatch.setattr(hooks_module, "_warned", set())
    for method in ("began", "left", "attempt", "ended", "refused"):
        with monkeypatch.context() as patched:
            patched.setattr(metrics.Metrics, method, fail)
            for _ in range(2):
                assert (await QueryLLM(metrics=True).query("mock/echo", prompt="Hello")).content
            with pytest.raises(ConfigurationError):
                await QueryLLM(metrics=True).query("nobody-knows-this", prompt="Hello")
    assert len([record for record in caplog.records if record.name == "llm_master.hooks"]) == 1


def test_the_log_has_fields(fault_server: FaultServer, tmp_path: Any) -> None:
    fault_server.script(Fault(401))
    env = {**os.environ, "ACME_API_BASE": fault_server.base_url, "ACME_API_KEY_1": FIRST, "ACME_API_KEY_2": SECOND}
    env |= {"LOG_LEVEL": "DEBUG", "LLM_MASTER_LOG_FORMAT": "json"}
    done = subprocess.run(
        [sys.executable, "-m", "llm_master", "query", "-m", "acme/large", "Hello"], env=env, capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    refused, answered = (line for line in lines if "attempt" in line)
    assert (refused["attempt"], refused["provider"], refused["model"]) == (1, "acme", "large")
    assert (refused["status"], refused["error_type"], refused["level"]) == (401, "AuthenticationError", "DEBUG")
    assert refused["key"].startswith("ACME_API_KEY_")
    assert (answered["attempt"], answered["status"], answered["wait"]) == (2, 200, 0.0)
    assert "error_type" not in answered and 0 < answered["latency"] < 50
    assert answered["message"].startswith("attempt 2: acme large with ACME_API_KEY_")
    assert FIRST not in done.stderr and SECOND not in done.stderr


async def test_at_info_nothing_is_said_of_a_call(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "llm_master")
    await QueryLLM().query("mock/echo", prompt="Hello")
    assert caplog.records == []


@pytest.mark.parametrize(
    ("setting", "value"), [("metrics", "yes"), ("telemetry", "all"), ("telemetry", 1), ("log_format", "xml")], ids=lambda value: str(value)
)
def test_settings_that_cannot_be(setting: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=setting):
        QueryLLM(**{setting: value})


def test_settings_from_variables_and_files(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_MASTER_METRICS", "true")
    monkeypatch.setenv("LLM_MASTER_TELEMETRY", "false")
    config = QueryLLM().config
    assert (config.metrics, config.telemetry, config.log_format) == (True, False, "text")
    monkeypatch.setenv("LLM_MASTER_TELEMETRY", "Content")
    monkeypatch.delenv("LLM_MASTER_METRICS")
    (tmp_path / "llm_master.toml").write_text('metrics = true\ntelemetry = false\nlog_format = "json"\n')
    from llm_master import LLMConfig

    config = LLMConfig()
    assert (config.metrics, config.telemetry, config.log_format) == (True, "content", "json")
