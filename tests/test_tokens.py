"""Short-lived tokens: who fetches them, how often, and who waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest

from llm_master import AuthenticationError, ProviderConnectionError
from llm_master.providers.tokens import EARLY, FETCH_TIMEOUT, PATIENCE, PAUSE, Token, TokenKeeper, lifetime
from llm_master.testing import FakeClock

LIFE = 1800.0


class Endpoint:
    """A token endpoint: it numbers what it gives, and answers when its gate is open."""

    def __init__(self, life: float | None = LIFE) -> None:
        self.life = life
        self.fetches = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.fails: Exception | None = None

    async def __call__(self) -> Token:
        self.fetches += 1
        number = self.fetches
        await self.gate.wait()
        if self.fails is not None:
            raise self.fails
        return Token(f"token-{number}", self.life)


def keeper(fetch: Callable[[], Awaitable[Token]], clock: FakeClock) -> TokenKeeper:
    return TokenKeeper(fetch, lambda: clock, "the token")


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_many_at_once_make_one_fetch() -> None:
    endpoint, clock = Endpoint(), FakeClock()
    tokens = keeper(endpoint, clock)
    assert tokens.ready() is None
    assert set(await asyncio.gather(*(tokens.get() for _ in range(100)))) == {"token-1"}
    assert (endpoint.fetches, tokens.ready(), await tokens.get()) == (1, "token-1", "token-1")


async def test_it_is_renewed_a_minute_early_by_one_while_the_others_use_it() -> None:
    endpoint, clock = Endpoint(), FakeClock()
    tokens = keeper(endpoint, clock)
    await tokens.get()
    await clock.advance(LIFE - EARLY - 1)
    assert tokens.ready() == "token-1"
    await clock.advance(1)
    endpoint.gate.clear()
    assert tokens.ready() is None
    first, *others = [asyncio.create_task(tokens.get()) for _ in range(50)]
    assert set(await asyncio.gather(*others)) == {"token-1"}
    assert await tokens.get() == "token-1"
    assert not first.done()
    endpoint.gate.set()
    assert (await first, tokens.ready(), endpoint.fetches) == ("token-2", "token-2", 2)


async def test_one_that_has_ended_is_waited_for() -> None:
    endpoint, clock = Endpoint(), FakeClock()
    tokens = keeper(endpoint, clock)
    await tokens.get()
    await clock.advance(LIFE)
    assert set(await asyncio.gather(*(tokens.get() for _ in range(5)))) == {"token-2"}


async def test_a_renewal_that_is_on_its_way_when_the_token_ends_is_waited_for() -> None:
    endpoint, clock = Endpoint(), FakeClock()
    tokens = keeper(endpoint, clock)
    await tokens.get()
    await clock.advance(LIFE - 10)
    endpoint.gate.clear()
    first = asyncio.create_task(tokens.get())
    await turns()
    await clock.advance(10)
    waiting = asyncio.create_task(tokens.get())
    await turns()
    endpoint.gate.set()
    # The first gave up waiting while the old token held.
    assert (await first, await waiting, endpoint.fetches) == ("token-1", "token-2", 2)


async def test_who_renews_it_does_not_wait_for_ever_while_the_old_one_holds() -> None:
    endpoint, clock = Endpoint(), FakeClock()
    tokens = keeper(endpoint, clock)
    await tokens.get()
    await clock.advance(LIFE - EARLY)
    endpoint.gate.clear()
    first = asyncio.create_task(tokens.get())
    await turns()
    await clock.advance(PATIENCE)
    assert await first == "token-1"
    endpoint.gate.set()
    await turns()
    assert (tokens.ready(), endpoint.fetches) == ("token-2", 2)


async def test_who_renews_it_may_leave() -> None:
    endpoint, clock = Endpoint(), FakeClock()
    tokens = keeper(endpoint, clock)
    await tokens.get()
    await clock.advance(LIFE - EARLY)
    endpoint.gate.clear()
    first = asyncio.create_task(tokens.get())
    await turns()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    endpoint.gate.set()
    await turns()
    assert (tokens.ready(), endpoint.fetches) == ("token-2", 2)


async def test_one_that_lives_less_than_a_minute_is_renewed_by_each_call() -> None:
    endpoint = Endpoint(life=30)
    tokens = keeper(endpoint, FakeClock())
    assert [await tokens.get() for _ in range(3)] == ["token-1", "token-2", "token-3"]


async def test_one_of_unknown_life_holds_until_it_is_refused() -> None:
    endpoint, clock = Endpoint(life=None), FakeClock()
    tokens = keeper(endpoint, clock)
    await tokens.get()
    await clock.advance(1e9)
    assert tokens.ready() == "token-1"
    tokens.discard("token-1")
    assert await tokens.get() == "token-2"


async def test_many_that_were_refused_with_one_token_make_one_fetch() -> None:
    endpoint, clock = Endpoint(), FakeClock()
    tokens = keeper(endpoint, clock)
    await tokens.get()

    async def refused() -> str:
        tokens.discard("token-1")
        return await tokens.get()

    assert set(await asyncio.gather(*(refused() for _ in range(20)))) == {"token-2"}
    tokens.discard("token-1")  # whoever comes late
    assert (tokens.ready(), endpoint.fetches) == ("token-2", 2)


async def test_what_went_wrong_is_told_to_all_who_wait_and_is_not_kept() -> None:
    endpoint, clock = Endpoint(), FakeClock()
    tokens = keeper(endpoint, clock)
    endpoint.fails = AuthenticationError("refused", status=401)
    errors = await asyncio.gather(*(tokens.get() for _ in range(5)), return_exceptions=True)
    assert [(type(error), str(error), error.status) for error in errors] == [(AuthenticationError, "refused", 401)] * 5
    assert len({id(error) for error in errors}) == 5, "each call writes its own receipt into its error"
    endpoint.fails = None
    assert await tokens.get() == "token-2"


async def test_a_renewal_that_fails_is_logged_and_tried_again_after_a_pause(caplog: pytest.LogCaptureFixture) -> None:
    endpoint, clock = Endpoint(), FakeClock()
    tokens = keeper(endpoint, clock)
    await tokens.get()
    await clock.advance(LIFE - EARLY)
    endpoint.fails = ProviderConnectionError("it is down")
    for _ in range(5):
        assert await tokens.get() == "token-1"
        await turns()
    assert endpoint.fetches == 2
    assert "it is down" in caplog.text and "token-1" not in caplog.text
    await clock.advance(PAUSE)
    endpoint.fails = None
    assert await tokens.get() == tokens.ready() == "token-3"


async def test_one_who_leaves_does_not_end_the_fetch_of_the_others() -> None:
    endpoint, clock = Endpoint(), FakeClock()
    tokens = keeper(endpoint, clock)
    endpoint.gate.clear()
    first, second = asyncio.create_task(tokens.get()), asyncio.create_task(tokens.get())
    await turns()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    endpoint.gate.set()
    assert (await second, endpoint.fetches) == ("token-1", 1)


async def test_when_all_have_left_the_fetch_ends() -> None:
    endpoint, clock = Endpoint(), FakeClock()
    tokens = keeper(endpoint, clock)
    endpoint.gate.clear()
    waiting = [asyncio.create_task(tokens.get()) for _ in range(3)]
    await turns()
    before = asyncio.all_tasks() - set(waiting) - {asyncio.current_task()}
    assert len(before) == 1
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    await turns()
    assert all(task.cancelled() for task in before)
    endpoint.gate.set()
    assert await tokens.get() == "token-2"


async def test_a_fetch_that_hangs_is_given_up() -> None:
    endpoint, clock = Endpoint(), FakeClock()
    tokens = keeper(endpoint, clock)
    endpoint.gate.clear()
    waiting = asyncio.create_task(tokens.get())
    await turns()
    await clock.advance(FETCH_TIMEOUT)
    with pytest.raises(ProviderConnectionError, match="the token did not answer within 30 s"):
        await waiting


def test_one_fetch_serves_many_loops() -> None:
    clock, started, go_on = FakeClock(), threading.Event(), threading.Event()
    fetches = []

    async def fetch() -> Token:
        fetches.append(threading.get_ident())
        started.set()
        await asyncio.to_thread(go_on.wait, 10)
        return Token("token-1", LIFE)

    tokens = keeper(fetch, clock)
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(asyncio.run(tokens.get()))) for _ in range(8)]
    threads[0].start()
    assert started.wait(10)
    for thread in threads[1:]:
        thread.start()
    while tokens._run is None or len(tokens._run.waiters) < 8:
        threading.Event().wait(0.001)
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert (found, len(fetches)) == (["token-1"] * 8, 1)


def test_a_loop_that_ends_in_the_middle_of_its_fetch_leaves_it_to_the_others() -> None:
    clock, started = FakeClock(), threading.Event()
    endless = [True]

    async def fetch() -> Token:
        if endless.pop() if endless else False:
            started.set()
            await asyncio.Event().wait()
        return Token("token-2", LIFE)

    tokens = keeper(fetch, clock)

    async def leaves() -> None:
        tokens._begin(renews=True)
        while tokens._run is not None and not tokens._run.waiters:
            await asyncio.sleep(0.001)

    thread = threading.Thread(target=lambda: asyncio.run(leaves()))
    thread.start()
    assert started.wait(10)
    assert asyncio.run(tokens.get()) == "token-2"
    thread.join(10)


def test_a_waiter_whose_loop_is_gone_disturbs_nobody(caplog: pytest.LogCaptureFixture) -> None:
    clock, go_on = FakeClock(), threading.Event()

    async def fetch() -> Token:
        await asyncio.to_thread(go_on.wait, 10)
        return Token("token-1", LIFE)

    tokens = keeper(fetch, clock)
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(asyncio.run(tokens.get())))
    thread.start()
    while tokens._run is None or not tokens._run.waiters:
        threading.Event().wait(0.001)
    loop = asyncio.new_event_loop()
    waiting = loop.create_task(tokens.get())
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()  # with a task that waits
    go_on.set()
    thread.join(10)
    assert (found, caplog.text) == (["token-1"], "")
    waiting._log_destroy_pending = False  # asyncio would tell of it, rightly


async def test_a_fetch_of_a_loop_that_stands_still_is_lost() -> None:
    clock = FakeClock()
    endpoint = Endpoint()
    tokens = keeper(endpoint, clock)
    loop = asyncio.new_event_loop()
    try:
        endpoint.gate = asyncio.Event()

        async def begins() -> None:
            tokens._begin(renews=False)

        await asyncio.to_thread(loop.run_until_complete, begins())
        await clock.advance(2 * FETCH_TIMEOUT + 1)
        endpoint.gate.set()
        assert await tokens.get() == "token-2"
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        await asyncio.to_thread(loop.run_until_complete, asyncio.sleep(0))
        loop.close()


async def test_the_token_is_shown_nowhere() -> None:
    tokens = keeper(Endpoint(), FakeClock())
    await tokens.get()
    assert "token-1" not in repr([tokens, tokens._held, Token("token-1", 5.0)])


def test_what_an_end_means() -> None:
    clock = FakeClock(epoch=1_800_000_000)
    assert lifetime(1_800_001_800, {}, clock) == 1800
    assert lifetime(1_800_001_800_000, {}, clock) == 1800
    assert lifetime("1800001800", {}, clock) == 1800
    assert lifetime(1_800_001_800.5, {}, clock) == 1800.5
    assert lifetime(None, {}, clock) is None
    assert lifetime("soon", {}, clock) is None
    # This clock is two weeks ahead: what was just given has not ended, and the server knows better what time it is.
    date = {"date": "Sat, 02 Jan 2027 00:00:00 GMT"}
    assert lifetime(1_798_848_000 + 1800, date, clock) == 1800
    assert lifetime(5, {"date": "Sat, 02 Jan 2027 00:00:00 GMT"}, clock) is None
