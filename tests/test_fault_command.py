"""``llm-master testing serve``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from servers.exchange import KEYS, ask

from llm_master.testing import FaultServer

ROOT = Path(__file__).resolve().parent.parent


def command(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "llm_master", "testing", "serve", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_the_command_serves_until_it_is_interrupted(tmp_path):
    (tmp_path / "faults.toml").write_text("[[script]]\nstatus = 418\n")
    with command("--script", "faults.toml", "--limit", "1/60s/all", "--key", KEYS["first"], "--model", "m") as process:
        address = process.stdout.readline().strip()
        served = FaultServer(port=int(address.removesuffix("/v1").rpartition(":")[2]))
        headers = [f"authorization: Bearer {KEYS['first']}"]
        assert [ask(served, headers=headers)[0] for _ in range(2)] == [418, 429]
        assert ask(served)[0] == 401
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=10)
    assert process.returncode == 0
    assert f"ACME_API_BASE={address}" in said
    assert "Traceback" not in said


def test_the_command_says_what_is_wrong(fault_server):
    for arguments, said in [
        (["--limit", "many"], "limit 'many'"),
        (["--script", "none.toml"], "none.toml: cannot be read"),
        (["--port", f"{fault_server.port}"], f"port {fault_server.port} of 127.0.0.1 is taken"),
    ]:
        with command(*arguments) as process:
            _, errors = process.communicate(timeout=10)
        assert process.returncode == 3
        assert errors.startswith("Error: ")
        assert said in errors
