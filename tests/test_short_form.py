"""``BaseProvider``: a provider that takes a text and returns one. Pasted from a guide, in a row of the table, and by itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from servers.scripted import ScriptedServer

from llm_master import (
    PROVIDER_CONFIGS,
    AuthenticationError,
    BaseProvider,
    GenerationParams,
    InvalidRequestError,
    LLMConfig,
    LLMResponse,
    ProviderConfig,
    ProviderConnectionError,
    ProviderError,
    QueryLLM,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    ToolCall,
    Usage,
)
from llm_master.testing import FakeClock


class MyProvider(BaseProvider):
    """As the guide has it, but for what ``call`` does: one step of a script."""

    DEFAULT_BASE_URL = "https://api.example.invalid/v1"
    DEFAULT_MODEL = "my-model"

    script: list[Any] = []
    asked: list[tuple[str | None, str, GenerationParams]] = []

    async def generate(self, prompt: str, params: GenerationParams | None = None) -> Any:
        params = params or GenerationParams()

        async def call() -> Any:
            MyProvider.asked.append((self.model, prompt, params))
            step = MyProvider.script.pop(0) if MyProvider.script else "An answer."
            if isinstance(step, Exception):
                raise step
            return step

        return await self._retry_with_backoff(call)

    async def health_check(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    MyProvider.script, MyProvider.asked = [], []
    yield


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(auto_advance=True)


@pytest.fixture
def llm(clock: FakeClock) -> QueryLLM:
    PROVIDER_CONFIGS["my"] = ProviderConfig(provider_class=MyProvider, requires_key=False)
    return QueryLLM(LLMConfig(environment={}, clock=clock))


@pytest.fixture
def no_waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between repetitions, which are not waited."""
    waits: list[float] = []
    monkeypatch.setattr("random.uniform", lambda low, high: waits.append(high) or 0.0)
    return waits


# By itself


def test_the_defaults_hold_where_the_row_says_nothing() -> None:
    provider = MyProvider(ProviderConfig(name="my", api_key="sk-my-0123456789"))
    assert (provider.base_url, provider.model, provider.api_key) == ("https://api.example.invalid/v1", "my-model", "sk-my-0123456789")
    assert provider.logger.name == "llm_master.providers.my"


def test_the_row_wins_over_the_defaults() -> None:
    config = ProviderConfig(name="my", base_url="https://other.invalid/v2", model="other-model")
    provider = MyProvider(config)
    assert (provider.base_url, provider.model) == ("https://other.invalid/v2", "other-model")
    assert provider.config is config and provider.config.model == "other-model"


def test_a_class_without_defaults() -> None:
    class Bare(BaseProvider):
        async def generate(self, prompt: str, params: GenerationParams | None = None) -> str:
            return prompt

    provider = Bare(ProviderConfig())
    assert (provider.base_url, provider.model, provider.api_key) == (None, None, None)
    assert asyncio.run(provider.health_check()) is True


def test_generate_must_be_there() -> None:
    class Nothing(BaseProvider):
        pass

    with pytest.raises(TypeError, match="generate"):
        Nothing(ProviderConfig())  # type: ignore[abstract]


async def test_it_answers_by_itself() -> None:
    MyProvider.script = ["Hi."]
    assert await MyProvider(ProviderConfig(name="my")).generate("Hello") == "Hi."
    assert MyProvider.asked == [("my-model", "Hello", GenerationParams(temperature=0.7, max_tokens=1000, top_p=1.0, stop=None))]


@pytest.mark.parametrize("kind", [ServerError, ProviderConnectionError, RequestTimeoutError])
async def test_by_itself_it_repeats_what_may_pass(no_waits: list[float], kind: type[ProviderError]) -> None:
    MyProvider.script = [kind("once"), kind("twice"), "Hi."]
    assert await MyProvider(ProviderConfig(name="my")).generate("Hello") == "Hi."
    assert len(MyProvider.asked) == 3
    assert len(no_waits) == 2 and no_waits[1] > no_waits[0] > 0


@pytest.mark.parametrize("retries", [0, 1, 4])
async def test_by_itself_it_repeats_as_often_as_the_row_says(no_waits: list[float], retries: int) -> None:
    MyProvider.script = [ServerError(f"no. {number}") for number in range(9)]
    with pytest.raises(ServerError, match=f"no. {retries}"):
        await MyProvider(ProviderConfig(name="my", max_retries=retries)).generate("Hello")
    assert len(MyProvider.asked) == retries + 1


@pytest.mark.parametrize("error", [AuthenticationError("no"), InvalidRequestError("no"), ValueError("no"), KeyError("choices")])
async def test_by_itself_it_does_not_repeat_what_cannot_pass(no_waits: list[float], error: Exception) -> None:
    MyProvider.script = [error, "Hi."]
    with pytest.raises(type(error)) as caught:
        await MyProvider(ProviderConfig(name="my")).generate("Hello")
    assert caught.value is error
    assert (len(MyProvider.asked), no_waits) == (1, [])


async def test_by_itself_it_may_be_cancelled() -> None:
    class Slow(BaseProvider):
        async def generate(self, prompt: str, params: GenerationParams | None = None) -> str:
            return await self._retry_with_backoff(asyncio.Event().wait)  # type: ignore[return-value]

    task = asyncio.create_task(Slow(ProviderConfig()).generate("Hello"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# In a row


async def test_a_row_needs_no_more_than_the_class(llm: QueryLLM) -> None:
    MyProvider.script = ["Hi."]
    answer = await llm.query("my/any-model", prompt="Hello")
    assert isinstance(answer, LLMResponse)
    assert (answer.content, answer.provider, answer.model_name) == ("Hi.", "my", "my/any-model")
    assert MyProvider.asked[0][:2] == ("any-model", "Hello")
    assert answer.usage == Usage() and answer.cost is None
    assert len(answer.receipt.attempts) == 1


async def test_the_default_model_of_the_class_holds(llm: QueryLLM) -> None:
    """Where only the provider is named."""
    answer = await llm.query("my", prompt="Hello")
    assert (answer.content, MyProvider.asked[0][0]) == ("An answer.", "my-model")


async def test_key_address_and_model_come_from_the_settings(clock: FakeClock) -> None:
    seen = []

    class Seeing(MyProvider):
        async def generate(self, prompt: str, params: GenerationParams | None = None) -> Any:
            seen.append((self.api_key, self.config.api_key, self.base_url, self.model))
            return await super().generate(prompt, params)

    PROVIDER_CONFIGS["my"] = ProviderConfig(provider_class=Seeing, default_model="row-model")
    environment = {"MY_API_KEY": "sk-my-0123456789", "MY_API_BASE": "https://mine.invalid/v3"}
    llm = QueryLLM(LLMConfig(environment=environment, clock=clock))
    for name in ("my", "my/other"):
        await llm.query(name, prompt="Hello")
    assert seen == [("sk-my-0123456789", "sk-my-0123456789", "https://mine.invalid/v3", model) for model in ("row-model", "other")]


async def test_many_models_at_once_do_not_mix(llm: QueryLLM) -> None:
    names = [f"model-{number % 3}" for number in range(12)]
    await asyncio.gather(*(llm.query(f"my/{name}", prompt=name) for name in names))
    assert sorted((model, prompt) for model, prompt, _ in MyProvider.asked) == sorted((name, name) for name in names)


async def test_a_response_with_usage_may_be_returned(llm: QueryLLM) -> None:
    MyProvider.script = [LLMResponse("Hi.", "my-model-2026", Usage(3, 2))]
    answer = await llm.query("my/any", prompt="Hello")
    assert (answer.content, answer.usage.total_tokens, answer.receipt.attempts[0].model_served) == ("Hi.", 5, "my-model-2026")


# Options


async def test_params_are_filled_from_the_options(llm: QueryLLM) -> None:
    await llm.query("my/any", prompt="Hello", temperature=0.1, max_tokens=5, top_p=0.5, stop=["END"])
    await llm.query("my/any", prompt="Hello", max_tokens=7)
    assert [params for *_, params in MyProvider.asked] == [
        GenerationParams(temperature=0.1, max_tokens=5, top_p=0.5, stop=["END"]),
        GenerationParams(temperature=0.7, max_tokens=7, top_p=1.0, stop=None),
    ]


async def test_one_stop_is_a_list_of_one(llm: QueryLLM) -> None:
    """``stop`` of the params is a sequence of texts; a text would be one of letters."""
    await llm.query("my/any", prompt="Hello", stop="END")
    assert list(MyProvider.asked[0][2].stop or ()) == ["END"]


async def test_max_completion_tokens_are_max_tokens(llm: QueryLLM) -> None:
    answer = await llm.query("my/any", prompt="Hello", max_completion_tokens=9)
    assert MyProvider.asked[0][2].max_tokens == 9
    assert answer.receipt.renamed == {"max_completion_tokens": "max_tokens"}


REFUSED: dict[str, Any] = {
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
    "response_format": {"type": "json_object"},
    "seed": 7,
    "reasoning_effort": "high",
    "logit_bias": {"1": 2},
}


@pytest.mark.parametrize("option", REFUSED)
async def test_an_option_that_params_do_not_have_is_refused_by_name(llm: QueryLLM, option: str) -> None:
    with pytest.raises(InvalidRequestError, match=repr(option)) as caught:
        await llm.query("my/any", prompt="Hello", **{option: REFUSED[option]})
    assert "my" in str(caught.value) and MyProvider.asked == []


async def test_it_is_dropped_where_that_was_agreed(llm: QueryLLM) -> None:
    answer = await llm.query("my/any", prompt="Hello", seed=7, temperature=0.1, on_unsupported="drop")
    assert answer.content == "An answer."
    assert answer.receipt.dropped == ("seed",)


async def test_a_field_of_a_body_has_no_body_to_go_into(llm: QueryLLM) -> None:
    with pytest.raises(InvalidRequestError, match="top_k"):
        await llm.query("my/any", prompt="Hello", extra_body={"top_k": 40})
    assert MyProvider.asked == []


async def test_none_means_not_given(llm: QueryLLM) -> None:
    await llm.query("my/any", prompt="Hello", temperature=None, max_tokens=None, stop=None, seed=None)
    assert MyProvider.asked[0][2] == GenerationParams()


# A conversation


async def prompt_of(llm: QueryLLM, *messages: dict[str, Any]) -> str:
    await llm.query("my/any", list(messages))
    return MyProvider.asked[-1][1]


async def test_a_question_is_the_prompt_as_it_is(llm: QueryLLM) -> None:
    question = "  Was heißt „日本“?\n\n- 🗾 "
    assert await prompt_of(llm, {"role": "user", "content": question}) == question
    assert await prompt_of(llm, {"role": "user", "content": [{"type": "text", "text": question}]}) == question


async def test_a_system_message_stands_before_it(llm: QueryLLM) -> None:
    prompt = await prompt_of(llm, {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"})
    assert prompt.startswith("Be brief.") and prompt.endswith("Hello")


async def test_of_a_conversation_nothing_is_lost(llm: QueryLLM) -> None:
    call = ToolCall("c1", "get_weather", {"city": "Zürich"}).to_message_part()
    prompt = await prompt_of(
        llm,
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "first"}, {"type": "text", "text": "part"}]},
        {"role": "assistant", "content": "second"},
        {"role": "user", "content": "third"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "18 degrees"},
        {"role": "developer", "content": "In French."},
        {"role": "user", "content": "last"},
    )
    said = ["Be brief.", "first", "part", "second", "third", "get_weather", "Zürich", "18 degrees", "In French.", "last"]
    assert [word for word in said if word not in prompt] == []
    turns = ["first", "part", "second", "third", "get_weather", "18 degrees", "last"]
    assert [prompt.index(word) for word in turns] == sorted(prompt.index(word) for word in turns)
    assert "user" in prompt and "assistant" in prompt


async def test_what_a_text_cannot_say_is_refused(llm: QueryLLM) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    with pytest.raises(InvalidRequestError, match="image"):
        await prompt_of(llm, {"role": "user", "content": [picture, {"type": "text", "text": "What is this?"}]})
    assert MyProvider.asked == []


# Errors: one who repeats, and not two


@pytest.mark.parametrize("retries", [0, 2, 4])
async def test_under_the_engine_only_the_engine_repeats(clock: FakeClock, no_waits: list[float], retries: int) -> None:
    PROVIDER_CONFIGS["my"] = ProviderConfig(provider_class=MyProvider, requires_key=False, max_retries=retries)
    MyProvider.script = [ServerError("down", status=503) for _ in range(30)]
    for name in ("my/any", "my/my-model"):
        MyProvider.asked.clear()
        with pytest.raises(ServerError) as caught:
            await QueryLLM(LLMConfig(environment={}, clock=clock)).query(name, prompt="Hello")
        assert len(MyProvider.asked) == retries + 1 == len(caught.value.receipt.attempts)
    assert len(clock.sleeps) == 2 * retries


async def test_a_rate_limit_waits_on_the_engines_clock(llm: QueryLLM, clock: FakeClock) -> None:
    MyProvider.script = [RateLimitError("slow", status=429, retry_after=7), "Hi."]
    answer = await llm.query("my/any", prompt="Hello")
    assert (answer.content, clock.sleeps, len(MyProvider.asked)) == ("Hi.", [7], 2)


async def test_an_error_names_the_provider(llm: QueryLLM) -> None:
    MyProvider.script = [AuthenticationError("no such key", status=401)]
    with pytest.raises(AuthenticationError, match="my: no such key") as caught:
        await llm.query("my/any", prompt="Hello")
    assert (caught.value.provider, caught.value.model) == ("my", "any")


async def test_a_fault_of_its_own_is_no_failure_of_the_provider(llm: QueryLLM) -> None:
    MyProvider.script = [KeyError("choices"), "Hi."]
    with pytest.raises(KeyError):
        await llm.query("my/any", prompt="Hello")
    assert len(MyProvider.asked) == 1


@pytest.mark.parametrize(("status", "kind"), [(401, AuthenticationError), (500, ServerError), (429, RateLimitError)])
@pytest.mark.parametrize("direct", [True, False])
async def test_errors_of_the_sdk_are_translated(
    server: ScriptedServer, clock: FakeClock, no_waits: list[float], status: int, kind: type[ProviderError], *, direct: bool
) -> None:
    class ThroughTheSdk(BaseProvider):
        async def generate(self, prompt: str, params: GenerationParams | None = None) -> str:
            async def call() -> str:
                async with openai.AsyncOpenAI(api_key=self.api_key, base_url=self.base_url, max_retries=0) as client:
                    done = await client.chat.completions.create(model=self.model or "", messages=[{"role": "user", "content": prompt}])
                    return done.choices[0].message.content or ""

            return await self._retry_with_backoff(call)

    server.answer_json({"error": {"message": "so it is"}}, status=status, times=None)
    row = ProviderConfig(
        name="my", provider_class=ThroughTheSdk, api_key="sk-my-0123456789", base_url=server.base_url, model="large", max_retries=1
    )
    PROVIDER_CONFIGS["my"] = row
    with pytest.raises(kind, match="so it is") as caught:
        if direct:
            await ThroughTheSdk(row).generate("Hello")
        else:
            await QueryLLM(LLMConfig(environment={}, clock=clock)).query("my/large", prompt="Hello", deadline=5)
    assert caught.value.status == status
    assert len(server.requests) == (2 if kind is ServerError else 1)


# Streams and health


async def test_a_stream_comes_as_one_piece(llm: QueryLLM) -> None:
    MyProvider.script = ["One piece of text."]
    async with llm.stream("my/any", prompt="Hello", max_tokens=5) as stream:
        assert [piece async for piece in stream] == ["One piece of text."]
    assert stream.response.content == "One piece of text."
    assert (stream.response.provider, stream.response.receipt.attempts[0].error) == ("my", None)
    assert MyProvider.asked[0][2].max_tokens == 5


async def test_a_stream_that_fails_is_repeated_by_the_engine(llm: QueryLLM, clock: FakeClock) -> None:
    MyProvider.script = [ServerError("down"), "Hi."]
    async with llm.stream("my/any", prompt="Hello") as stream:
        assert [piece async for piece in stream] == ["Hi."]
    assert len(MyProvider.asked) == 2 == len(stream.response.receipt.attempts)


@pytest.mark.parametrize("healthy", [True, False])
async def test_health_is_what_the_provider_says(healthy: bool) -> None:  # noqa: FBT001
    from llm_master.providers.short import ShortForm

    class Frail(MyProvider):
        async def health_check(self) -> bool:
            return healthy

    assert await Frail(ProviderConfig()).health_check() is healthy
    assert await ShortForm(ProviderConfig(), Frail).health_check() is healthy


# The guide, pasted


GUIDE = """
from llm_master import BaseProvider, GenerationParams

class GuideProvider(BaseProvider):
    DEFAULT_BASE_URL = "https://api.example.com/v1"
    DEFAULT_MODEL = "my-model"

    async def generate(self, prompt, params=None):
        params = params or GenerationParams()

        async def call():
            return f"{self.model} at {self.base_url} for {prompt!r}, {params.max_tokens} tokens"

        return await self._retry_with_backoff(call)

    async def health_check(self):
        return True
"""


async def test_the_guides_code_runs_with_only_the_import_changed(clock: FakeClock) -> None:
    names: dict[str, Any] = {"__name__": "guide"}
    exec(GUIDE, names)
    guide = names["GuideProvider"]
    assert await guide(ProviderConfig()).generate("Hi") == "my-model at https://api.example.com/v1 for 'Hi', 1000 tokens"
    PROVIDER_CONFIGS["guide"] = {"provider_class": guide, "requires_key": False, "model": "table-model"}
    answer = await QueryLLM(LLMConfig(environment={}, clock=clock)).query("guide", prompt="Hi", max_tokens=9)
    assert answer.content == "table-model at https://api.example.com/v1 for 'Hi', 9 tokens"


async def test_a_row_as_plain_data_and_the_class_by_name(clock: FakeClock, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "guide_of_a_user.py").write_text(GUIDE)
    monkeypatch.syspath_prepend(tmp_path)
    row = json.loads('{"provider_class": "guide_of_a_user:GuideProvider", "requires_key": false, "prefixes": ["guide-"]}')
    PROVIDER_CONFIGS["guide"] = row
    answer = await QueryLLM(LLMConfig(environment={}, clock=clock)).query("guide-1", prompt="Hi")
    assert answer.content.startswith("guide-1 at https://api.example.com/v1")
    # Its defaults hold as they do where the class itself stands in the row.
    answer = await QueryLLM(LLMConfig(environment={}, clock=clock)).query("guide", prompt="Hi")
    assert answer.content.startswith("my-model at https://api.example.com/v1")
