"""What keys and limits cost a call, and what they are worth against a server that counts.

The first three ask the cheapest of servers and differ by what stands between the query and the request. The last asks
one that lets 600 requests through in any 60 seconds, for three minutes of real time.
"""

from __future__ import annotations

from statistics import median

from bench_support.processes import Process, client_processes, upstream
from bench_support.report import Row, Section
from bench_support.wire import TEXT

ROUNDS = 9
LIMIT = 20.0
LIMIT_RATIO = 1.6
LABELS = {
    "llm_master": "one key, no limits",
    "llm_master_limits": "four keys, limits of requests, tokens and calls in flight",
    "llm_master_queue": "the same, 8 at once: 24 wait in the queue",
}
AT_ONCE = {"llm_master_queue": 8}
"""With how many in flight a client's reference works: what fewer connections at a time cost is no figure of the queue's."""

REQUESTS = 2000
PER_WINDOW = 600
WINDOW = 60.0


def measure(*, full: bool) -> Section:
    """With 32 callers: ratios and differences of the same rounds."""
    count = ROUNDS * 2 + 1 if full else ROUNDS
    section = Section(
        f"Keys and limits: CPU per call with 32 callers, median of {count} interleaved rounds",
        "aiohttp + orjson with as many in flight, in the same round",
    )
    with upstream() as address, client_processes(["aiohttp", *LABELS], address) as processes:
        rounds = [_round(processes, number) for number in range(count)]
    for client, label in LABELS.items():
        at_once = AT_ONCE.get(client, 32)
        ratio = median(figures[client, 32] / figures["aiohttp", at_once] for figures in rounds)
        section.rows.append(Row(label, median(figures[client, 32] for figures in rounds), "µs", ratio=ratio, limit=LIMIT_RATIO))
        if client != "llm_master":
            over = median(figures[client, 32] - figures["llm_master", at_once] for figures in rounds)
            section.rows.append(Row("  over the bare pipeline", over, "µs", limit=LIMIT, limits="value"))
    return section


def _round(processes: dict[str, Process], number: int) -> dict[tuple[str, int], float]:
    orders = [("aiohttp", 32), ("aiohttp", 8), ("llm_master", 32), ("llm_master", 8), ("llm_master_limits", 32), ("llm_master_queue", 32)]
    figures = {}
    for name, in_flight in orders[:: -1 if number % 2 else 1]:
        found = processes[name].order("calls", count=1024, in_flight=in_flight, warm_up=64)
        if found["characters"] != len(TEXT):
            raise RuntimeError(f"{name} has not got the whole answer")
        figures[name, in_flight] = found["cpu"] * 1e6
    return figures


def measure_strict(*, full: bool) -> Section:
    """2,000 requests at once, real time, against a strict sliding window: refusals, and how long it took."""
    del full
    from llm_master.testing import FaultServer, Limit

    section = Section(f"{REQUESTS:,} requests at once, {PER_WINDOW} in any {WINDOW:g} s allowed, in real time", "")
    with (
        FaultServer(limits=[Limit(PER_WINDOW, window=WINDOW, by="model")]) as server,
        client_processes(["llm_master"], server.url) as processes,
    ):
        found = processes["llm_master"].order("limited", count=REQUESTS, rpm=PER_WINDOW)
        refused = server.counts("status").get(429, 0)
        peak = server.peak(WINDOW, by="model")
    ideal = (-(-REQUESTS // PER_WINDOW) - 1) * WINDOW
    most = max(peak.values()) if isinstance(peak, dict) else peak
    section.rows += [
        Row("answers that did not come", REQUESTS - found["answers"], "", limit=0, limits="value"),
        Row("refused with 429", refused, "", limit=0, limits="value"),
        Row("most in any window", most, "", limit=PER_WINDOW, limits="value"),
        Row("of the permitted left unused", 100 * (1 - ideal / found["seconds"]), "%", limit=2, limits="value"),
    ]
    return section
