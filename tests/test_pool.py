"""Leases, and those who wait for one: order, fairness, limits in every window, over loops and threads."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_master import ModelConfig, ProviderConfig
from llm_master.clock import SYSTEM_CLOCK, Clock
from llm_master.dispatch.keys import Key
from llm_master.dispatch.lease import Lease
from llm_master.dispatch.line import Line
from llm_master.dispatch.limits import Ask
from llm_master.dispatch.pool import NoCapacity
from llm_master.dispatch.pools import Pools
from llm_master.testing import FakeClock


def line_of(*keys: str, clock: Clock = SYSTEM_CLOCK, model: ModelConfig | None = None, name: str = "m", **row: Any) -> Line:
    """Where requests for one model of one provider with these keys queue."""
    rows = {"acme": ProviderConfig(name="acme", **row)}
    known = {"acme": tuple(Key(f"sk-{key}-0123456789", key) for key in keys)}
    return Pools(rows, known, clock, None).line("acme", "acme", name, model, lambda key: key)


async def lease_of(line: Line, ask: Ask = None, *, priority: int = 0, until: float = float("inf")) -> Lease:
    pool = line.pool
    lease = pool.lease(line, ask, frozenset())
    return lease or (await pool.wait(line, ask, frozenset(), (-priority, pool.ticket()), until))[0]


class Place:
    """One of so many places at a provider."""

    def __init__(self, limit: int) -> None:
        self.line = line_of(max_concurrent=limit)
        self.leases: list[Lease] = []

    async def enter(self) -> int:
        """Take one; return its number among all that were taken."""
        self.leases.append(lease := await lease_of(self.line))
        return lease._number

    def leave(self) -> None:
        self.leases.pop().release()


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


# How many are in flight


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 4), st.lists(st.tuples(st.sampled_from(["enter", "leave", "cancel", "turn"]), st.integers(0, 20)), max_size=60))
def test_a_gate_lets_in_so_many_in_their_order_and_loses_no_place(limit: int, steps: list[tuple[str, int]]) -> None:
    async def play() -> None:
        gate, inside, entered = Place(limit), set[int](), list[tuple[int, int]]()
        tasks: dict[int, asyncio.Task[None]] = {}
        ends: dict[int, asyncio.Event] = {}

        async def visit(number: int) -> None:
            taken = await gate.enter()
            try:
                inside.add(number)
                entered.append((taken, number))
                assert len(inside) <= limit
                await ends[number].wait()
            finally:
                inside.discard(number)
                gate.leave()

        for step, which in steps:
            if step == "enter":
                number = len(tasks)
                ends[number] = asyncio.Event()
                tasks[number] = asyncio.create_task(visit(number))
            elif step == "turn":
                await turns()
            elif tasks and step == "leave":
                ends[which % len(tasks)].set()
            elif tasks:
                tasks[which % len(tasks)].cancel()
        await turns()
        # Who was given a place runs on when the event loop lets him, which may be after one who came later and did not wait.
        order = [number for _, number in sorted(entered)]
        assert order == sorted(order), "in the order in which they came"
        waiting = [task for number, task in tasks.items() if not task.done() and number not in inside]
        assert not waiting or len(inside) == limit, "nobody waits while there is a place"
        for end in ends.values():
            end.set()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
        for _ in range(limit):
            await asyncio.wait_for(gate.enter(), 5)
        last = asyncio.ensure_future(gate.enter())
        await turns()
        assert not last.done(), "and no place more"
        last.cancel()

    asyncio.run(play())


def test_a_gate_over_two_loops_in_two_threads() -> None:
    gate, lock, inside, most, done = Place(3), threading.Lock(), 0, 0, 0

    async def visit(chance: random.Random) -> None:
        nonlocal inside, most, done
        await gate.enter()
        try:
            with lock:
                inside += 1
                most = max(most, inside)
            for _ in range(chance.randrange(3)):
                await asyncio.sleep(0)
        finally:
            with lock:
                inside -= 1
                done += 1
            gate.leave()

    async def many(seed: int) -> None:
        chance = random.Random(seed)
        tasks = [asyncio.create_task(visit(chance)) for _ in range(300)]
        for task in chance.sample(tasks, 60):
            await asyncio.sleep(0)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    threads = [threading.Thread(target=lambda seed=seed: asyncio.run(many(seed))) for seed in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads), "somebody was forgotten"
    assert most <= 3 and inside == 0 and done >= 480
    asyncio.run(asyncio.wait_for(asyncio.wait_for(gate.enter(), 5), 5))


def test_a_loop_that_is_closed_takes_no_place_with_it() -> None:
    gate = Place(1)
    asyncio.run(gate.enter())
    loops = [asyncio.new_event_loop() for _ in range(2)]
    for loop in loops:
        task = loop.create_task(gate.enter())
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # it is what is tested
        loop.run_until_complete(turns())
    del task
    loops[0].close()
    gate.leave()  # to the waiter of the second loop, which closes before it wakes
    loops[1].close()
    loops.clear()
    gc.collect()

    async def next_one() -> None:
        await asyncio.wait_for(gate.enter(), 5)

    asyncio.run(next_one())


# Timers, over loops


def test_a_window_is_kept_over_two_loops_in_two_threads() -> None:
    """In real time: each loop's waiters are woken on their own loop, whichever of them set the timer."""
    line = line_of(rps=20)
    at: list[float] = []
    lock = threading.Lock()

    async def one() -> None:
        lease = await lease_of(line)
        with lock:
            at.append(lease.at)
        await asyncio.sleep(0)
        lease.done(None, None)

    async def many() -> None:
        await asyncio.gather(*(one() for _ in range(25)))

    threads = [threading.Thread(target=lambda: asyncio.run(many())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads), "somebody was forgotten"
    at.sort()
    assert len(at) == 50
    assert all(later - sooner > 1 for sooner, later in zip(at, at[20:], strict=False))


def test_the_loop_that_was_to_wake_the_others_may_end() -> None:
    line = line_of(rps=1)
    asyncio.run(lease_of(line))
    first = asyncio.new_event_loop()

    async def begin() -> asyncio.Task[Lease]:
        task = asyncio.create_task(lease_of(line))
        await turns()
        return task

    task = first.run_until_complete(begin())  # its timer is on this loop, which stands still from here on

    async def another() -> None:
        second = asyncio.create_task(lease_of(line))
        await turns()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            first_done.append(await asyncio.to_thread(first.run_until_complete, asyncio.gather(task, return_exceptions=True)))
        first.close()
        (await asyncio.wait_for(second, 10)).release()

    first_done: list[Any] = []
    asyncio.run(another())
    assert isinstance(first_done[0][0], asyncio.CancelledError)


async def test_a_lease_that_nobody_holds_gives_itself_back() -> None:
    line = line_of(max_concurrent=1)
    lease = await lease_of(line)
    second = asyncio.create_task(lease_of(line))
    await turns()
    assert not second.done()
    del lease
    gc.collect()
    (await asyncio.wait_for(second, 5)).release()
    assert {slot.state.in_flight for slot in line.slots} == {0}


async def test_ten_thousand_who_give_up_leave_nothing_behind() -> None:
    line = line_of(max_concurrent=1)
    lease = await lease_of(line)
    tasks = [asyncio.create_task(lease_of(line)) for _ in range(10_000)]
    await turns()
    assert line.pool.waiting == 10_000
    for task in tasks[:-1]:
        task.cancel()
    await asyncio.gather(*tasks[:-1], return_exceptions=True)
    assert line.pool.waiting == 1 and len(line.queue) <= 2
    lease.release()
    (await asyncio.wait_for(tasks[-1], 5)).release()
    assert line.pool.waiting == 0


async def test_what_was_granted_and_never_sent_is_not_counted() -> None:
    clock = FakeClock()
    line = line_of(rpm=2, max_concurrent=1, clock=clock)
    lease = await lease_of(line)
    task = asyncio.create_task(lease_of(line))
    await turns()
    lease.done(None, None)
    task.cancel()  # in the moment in which it gets its lease
    await asyncio.gather(task, return_exceptions=True)
    (await asyncio.wait_for(lease_of(line), 5)).release()
    with pytest.raises(NoCapacity, match="rpm of acme is 2"):
        await lease_of(line, until=30)


async def test_of_two_keys_the_one_that_is_free_first_is_waited_for() -> None:
    clock = FakeClock()
    line = line_of("a", "b", rpm=1, clock=clock)
    first = await lease_of(line)
    await clock.advance(20)
    second = await lease_of(line)
    task = asyncio.create_task(lease_of(line))
    await clock.advance(41)
    lease = await task
    assert lease.slot is first.slot is not second.slot
