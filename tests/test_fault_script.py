"""What the fault server is told: steps, limits and files, and all that can be wrong with them."""

from __future__ import annotations

import json
import math

import pytest
from servers.exchange import KEYS, ask

from llm_master import ConfigurationError
from llm_master.testing import Fault, Limit
from llm_master.testing.scenario import Scenario, added, read_scenario


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"staus": 429}, ["'staus' is no field: did you mean 'status'?"]),
        ({"status": 99, "delay": -1, "times": 0}, ["status is 99", "delay is -1", "times is 0"]),
        ({"reset_after": -1, "stal": 1}, ["reset_after is -1", "did you mean 'stall'?"]),
        ({"stall_after": 5}, ["give stall too"]),
        ({"garbage": "xml"}, ["give http or json"]),
        ({"body": "x", "answer": "y"}, ["keep one of them"]),
        ({"reset_after": 1, "close_after": 1}, ["keep one of them"]),
        ({"status": 500, "answer": "y", "usage": {}}, ["answer belongs", "usage belongs"]),
        ({"headers": {"a": "b\r\nc"}}, ["headers is"]),
        ({"headers": {"Content-Length": "5"}}, ["the server's own affair"]),
        ({"stream": 1, "path": "x", "every": 0}, ["stream is 1", "path is 'x'", "every is 0"]),
        ({"body": float("inf"), "usage": [], "key": 5}, ["usage is []", "key is a int"]),
    ],
)
def test_all_that_is_wrong_with_a_step_is_said_at_once(fields, said):
    with pytest.raises(ConfigurationError) as failed:
        Fault.from_mapping(fields)
    assert [text for text in said if text not in str(failed.value)] == []


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"limit": 0, "window": -1, "what": "words", "by": ["user"]}, ["limit is 0", "window is -1", "what is 'words'", "by is ('user',)"]),
        ({"windw": 5}, ["did you mean 'window'?", "limit is missing"]),
        ({"limit": 4, "what": "concurrency", "window": 5}, ["window has no meaning"]),
        ({"limit": 4, "by": 5}, ["by is (5,)"]),
    ],
)
def test_all_that_is_wrong_with_a_limit_is_said_at_once(fields, said):
    with pytest.raises(ConfigurationError) as failed:
        Limit.from_mapping(fields)
    assert [text for text in said if text not in str(failed.value)] == []


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("600/60s", Limit(600)),
        ("600/1m", Limit(600)),
        ("10/0.5/model", Limit(10, window=0.5, by="model")),
        ("90000 tokens/1h/key+model", Limit(90000, window=3600, what="tokens", by=("key", "model"))),
        ("5 output_tokens/250ms/all", Limit(5, window=0.25, what="output_tokens", by=())),
        ("4 concurrency", Limit(4, what="concurrency")),
        ("4 concurrency/model", Limit(4, what="concurrency", by="model")),
    ],
)
def test_a_limit_as_text(text, limit):
    assert Limit.from_text(text) == limit


@pytest.mark.parametrize("text", ["600", "600/", "600/60d", "many/60s", "4 concurrency/60s", "0/60s", "5/0s", "5/1s/user", "4 words/1s"])
def test_no_limit_as_text(text):
    with pytest.raises(ConfigurationError, match=f"limit '{text}'"):
        Limit.from_text(text)


def test_steps_and_limits_survive_their_plain_form():
    for fault in (
        Fault(),
        Fault(429, headers={"a": "b"}, times=None),
        Fault(delay="forever", stall=math.inf, stall_after=3, key="k"),
        Fault(usage={}),
    ):
        assert Fault.from_mapping(json.loads(json.dumps(fault.to_mapping()))) == fault
    for limit in (Limit(5), Limit(5, window=0.1, by=(), what="tokens", model="m")):
        assert Limit.from_mapping(json.loads(json.dumps(limit.to_mapping()))) == limit


def test_no_key_is_shown():
    made = [Fault(key=KEYS["first"]), Limit(5, key=KEYS["first"]), Scenario(keys=list(KEYS.values()))]
    assert not any(key in repr(made) for key in KEYS.values())
    assert list(Scenario(keys=["sk-a-01234567", "sk-b-01234567"]).keys) == ["…4567", "…4567 (1)"]


def test_a_scenario_from_a_file(tmp_path):
    (tmp_path / "faults.toml").write_text(
        'limits = ["5/1s"]\nkeys = ["sk-first-0123456789"]\n[[script]]\nstatus = 429\n[[script]]\ndelay = "forever"\n'
    )
    scenario = read_scenario(tmp_path / "faults.toml")
    assert scenario.script == (Fault(429), Fault(delay=math.inf))
    more = added(scenario, limits=[Limit(7)], keys=["sk-other-0123456789", "sk-first-0123456789"], models=["m"])
    assert (more.limits, list(more.keys), more.models) == ((Limit(5, window=1), Limit(7)), ["…6789", "…6789 (1)"], ("m",))
    (tmp_path / "faults.json").write_text('[{"status": 429}]')
    assert read_scenario(tmp_path / "faults.json") == Scenario(script=[Fault(429)])


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        (
            "a.toml",
            "[[script]]\nstaus = 5\n[[limits]]\nlimit = 0\n[[script]]\nstatus = 5",
            ["script[0]: 'staus'", "script[1]: status is 5", "limits[0]: limit"],
        ),
        ("a.toml", 'scrip = []\nmodels = "m"\nkeys = 5', ["did you mean 'script'?", "models must be", "keys must be"]),
        ("a.toml", "script = ", ["is no TOML"]),
        ("a.json", "{", ["is no JSON"]),
        ("a.json", "5", ["give {"]),
        ("a.json", '{"script": {"status": 5}, "limits": ["5"]}', ["script is", "limit '5': write it as"]),
        ("none.json", None, ["cannot be read (No such file"]),
    ],
)
def test_all_that_is_wrong_with_a_file_is_said_at_once(tmp_path, name, text, said):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigurationError) as failed:
        read_scenario(tmp_path / name)
    assert [part for part in [name, *said] if part not in str(failed.value)] == []


def test_what_the_control_paths_refuse(fault_server):
    for what, told in [
        ("scenario", {"script": [{"staus": 5}]}),
        ("counts", {"by": "colour"}),
        ("peak", {"window": 0}),
        ("peak", {}),
        ("nowhere", {}),
    ]:
        status, _, body = ask(fault_server, told, path=f"/_faults/{what}")
        assert status in (400, 404)
        assert json.loads(body)["faults"]
    with pytest.raises(ConfigurationError, match="by"):
        fault_server.counts("colour")
    assert fault_server.requests == []
    assert json.loads(ask(fault_server, b"", path="/_faults/peak?window=60&by=key", method="GET")[2]) == 0
