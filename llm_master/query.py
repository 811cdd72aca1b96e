"""``QueryLLM``, the one entry point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, overload

from llm_master.asking import asked
from llm_master.background import run_in_background
from llm_master.dispatch.stream import LLMStream
from llm_master.engines import engine_for
from llm_master.errors import InvalidRequestError
from llm_master.inquiries import Inquiries
from llm_master.messages import loaded_now
from llm_master.provider_configs import LLMConfig
from llm_master.providers.base import BaseLLMProvider
from llm_master.transport import session
from llm_master.types import LLMResponse, Message, Plan

if TYPE_CHECKING:
    from llm_master.dispatch.status import KeyStatus
    from llm_master.results import CostEstimate, EmbeddingResponse, ModerationResponse, RerankResponse, TokenCount


class QueryLLM(Inquiries):
    """Asks any model of any provider.

    Objects with equal settings share one engine in this process, so that making one per query is right and cheap.
    May be used from several event loops and threads at once.

    Args:
        config: Settings; the environment and ``.env`` where it says nothing.
        **overrides: Fields of ``LLMConfig`` that win over ``config``.

    Raises:
        TypeError: An override that is no field of ``LLMConfig``.
        ConfigurationError: A key, an address or an option that cannot be one.
    """

    __slots__ = ("_config", "_engine")

    def __init__(self, config: LLMConfig | None = None, **overrides: Any) -> None:
        if config is not None and not isinstance(config, LLMConfig):
            raise TypeError(f"config is a {type(config).__name__}: give an LLMConfig, or fields by name as in QueryLLM(openai_api_key=...)")
        self._config = config if not overrides else (config or LLMConfig()).replace(overrides)
        self._engine = engine_for(self._config)

    @property
    def config(self) -> LLMConfig:
        """The settings of this object."""
        return self._config if self._config is not None else LLMConfig()

    async def __aenter__(self) -> QueryLLM:
        session.enter()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        await session.leave()

    @overload
    async def query(
        self,
        model_name: str,
        messages: Sequence[Message] | None = None,
        *,
        prompt: str | None = None,
        stream: Literal[False] = False,
        moderation: Any = False,
        response_format: Any = None,
        repair: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        timeout: float | None = None,
        deadline: float | None = None,
        fallback_model: str | Sequence[str] | None = None,
        fallback_config: Mapping[str, Any] | None = None,
        priority: int = 0,
        extra_body: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> LLMResponse: ...

    @overload
    async def query(
        self,
        model_name: str,
        messages: Sequence[Message] | None = None,
        *,
        prompt: str | None = None,
        stream: Literal[True],
        moderation: Any = False,
        response_format: Any = None,
        repair: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        timeout: float | None = None,
        deadline: float | None = None,
        fallback_model: str | Sequence[str] | None = None,
        fallback_config: Mapping[str, Any] | None = None,
        priority: int = 0,
        extra_body: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> LLMStream: ...

    async def query(
        self,
        model_name: str,
        messages: Sequence[Message] | None = None,
        *,
        prompt: str | None = None,
        stream: bool = False,
        moderation: Any = False,
        response_format: Any = None,
        repair: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        timeout: float | None = None,
        deadline: float | None = None,
        fallback_model: str | Sequence[str] | None = None,
        fallback_config: Mapping[str, Any] | None = None,
        priority: int = 0,
        extra_body: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> LLMResponse | LLMStream:
        """Ask a model.

        Args:
            model_name: ``"gpt-4.1"``, ``"groq/openai/gpt-oss-20b"``, a provider's name for its default model, ...
            messages: The conversation, as in OpenAI's chat completions; every field is kept. Or else ``prompt``.
            prompt: One user message.
            stream: Return an ``LLMStream`` after its first delta.
            moderation: ``True``: have the conversation judged first, by ``moderation_model`` of the settings; what is flagged
                is not sent. Anything else goes to the provider, as its own option of that name.
            response_format: The form of the answer, which ``answer.parsed`` then has: a pydantic model, an attrs class, a
                dataclass, another type, a JSON schema, or OpenAI's own dict. See docs/structured_output.md.
            repair: Ask once more where the answer is not of that form.
            tools: Functions that the model may call, as in OpenAI's chat completions.
            timeout: Seconds for one attempt; of a stream, to the first delta and between deltas. The row's if ``None``.
            deadline: Seconds for the query with all its waits and repetitions; that of the settings (600) if ``None``.
            fallback_model: Who answers where this model fails: a name, or several in order. See docs/limits.md.
            fallback_config: The fallbacks' options; they get none of ``options``. ``tools``, ``response_format``, ``timeout`` and
                ``extra_body`` may stand here as well, in place of the query's own.
            priority: Of those that wait for a limit, the higher goes first.
            extra_body: Added to the request's body as it is.
            **options: ``temperature``, ``max_tokens``, ...; names that are not known go to the provider as they are.
                ``images``, ``image_paths``, ``image_details``, ``audio_paths``, ``files`` and ``parts`` go with the last user
                message: see docs/media.md.

        Raises:
            InvalidRequestError: Before sending: prompt and messages both or neither, a message without role, a misspelt
                option, a file that is not there, what the model is known not to do. After: the provider refused the request.
            ContentPolicyError: ``moderation`` flagged the request, with ``.categories``; or the provider refused it.
            InvalidOutputError: The answer is not of the form of ``response_format``; ``.response`` holds it.
            LLMError: See ``llm_master.errors``; each carries ``.receipt`` once something was tried.
        """
        call = asked(
            self._engine,
            model_name,
            messages,
            prompt,
            moderation,
            response_format,
            repair,
            tools,
            timeout,
            deadline,
            fallback_model,
            fallback_config,
            priority,
            extra_body,
            options,
            stream=stream,
        )
        if stream:
            return await LLMStream(call).connect()
        if call.again is not None:
            from llm_master.dispatch.hedging import hedged

            return await hedged(call, self._engine.hedger, call.again)  # type: ignore[arg-type, no-any-return]  # both are there, or none
        return await call.answer()  # type: ignore[no-any-return]

    def stream(
        self,
        model_name: str,
        messages: Sequence[Message] | None = None,
        *,
        prompt: str | None = None,
        moderation: Any = False,
        response_format: Any = None,
        repair: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        timeout: float | None = None,
        deadline: float | None = None,
        fallback_model: str | Sequence[str] | None = None,
        fallback_config: Mapping[str, Any] | None = None,
        priority: int = 0,
        extra_body: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> LLMStream:
        """Ask a model for its answer in pieces; arguments and errors as in :meth:`query`. Connects at first iteration."""
        call = asked(
            self._engine,
            model_name,
            messages,
            prompt,
            moderation,
            response_format,
            repair,
            tools,
            timeout,
            deadline,
            fallback_model,
            fallback_config,
            priority,
            extra_body,
            options,
            stream=True,
        )
        return LLMStream(call)

    def plan(
        self,
        model_name: str,
        messages: Sequence[Message] | None = None,
        *,
        prompt: str | None = None,
        stream: bool = False,
        moderation: Any = False,
        response_format: Any = None,
        repair: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        timeout: float | None = None,
        deadline: float | None = None,
        fallback_model: str | Sequence[str] | None = None,
        fallback_config: Mapping[str, Any] | None = None,
        priority: int = 0,
        extra_body: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Plan:
        """What :meth:`query` would send with these arguments: resolved and translated, the key masked. Sends nothing.

        It need not be awaited, and may be.
        """
        call = asked(
            self._engine,
            model_name,
            messages,
            prompt,
            False if moderation is True else moderation,
            response_format,
            False,
            tools,
            timeout,
            deadline,
            fallback_model,
            fallback_config,
            priority,
            extra_body,
            options,
            stream=stream,
            sends=False,
        )
        del repair  # of what comes back
        provider: BaseLLMProvider = call.provider  # type: ignore[assignment]  # dispatch knows only what it asks of one
        if call.before is not None:
            call.messages = loaded_now(call.messages, self._engine.media_policy(call.target, provider))
        if call.target.route.generator is None:
            plan = provider.plan(call.messages, call.target.route.model, stream=stream, **call.options)
        else:
            # What a generator sends, only it knows; this is what it is given.
            plan = BaseLLMProvider.plan(provider, call.messages, call.target.route.model, stream=False, **call.options)
        receipt = call.receipt
        plan.provider, plan.model, plan.why = receipt.provider, call.target.route.model, receipt.why
        plan.renamed, plan.dropped = receipt.renamed, receipt.dropped
        plan.key = call.line.slots[0].state.name
        return plan

    def query_sync(self, model_name: str, messages: Sequence[Message] | None = None, **arguments: Any) -> LLMResponse:
        """:meth:`query` for scripts and notebooks: blocks until the answer is there, also where an event loop runs.

        The query runs on an event loop of its own thread, with the same engine.
        """
        if arguments.get("stream"):
            raise InvalidRequestError("query_sync() returns a whole answer: use stream() in an event loop for pieces")
        response = run_in_background(lambda: self.query(model_name, messages, **arguments))
        assert isinstance(response, LLMResponse)
        return response

    def key_states(self) -> list[KeyStatus]:
        """How each key stands with each model that was asked so far: available, or why not and for how long.

        Keys are called by their names; the keys themselves are shown nowhere.
        """
        return self._engine.key_states()

    async def embed(
        self,
        model_name: str,
        inputs: str | Sequence[str],
        *,
        timeout: float | None = None,
        deadline: float | None = None,
        extra_body: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> EmbeddingResponse:
        """Turn texts into vectors.

        Args:
            model_name: As ``"text-embedding-3-small"``.
            inputs: One text or many. Many are sent in batches of what the provider takes, several at once.
            timeout: Seconds for one request; the row's if ``None``.
            deadline: Seconds for all of them with their waits and repetitions.
            extra_body: Added to the requests' bodies as it is.
            **options: ``dimensions``, ``encoding_format``, and what else the provider knows.

        Returns:
            One vector per input, in the order of the inputs.

        Raises:
            InvalidRequestError: No input, or an empty one, which is named.
            LLMError: A batch failed; the receipt holds every attempt of all batches.
        """
        from llm_master import operations

        return await operations.embed(self._engine, model_name, inputs, timeout, deadline, extra_body, options)

    async def moderate(
        self,
        inputs: str | Sequence[Any],
        model_name: str | None = None,
        *,
        timeout: float | None = None,
        deadline: float | None = None,
        **options: Any,
    ) -> ModerationResponse:
        """Have texts judged against a provider's policy.

        Args:
            inputs: One text, or several; an input may also be a list of content parts, with images.
            model_name: ``moderation_model`` of the settings if ``None``.
            timeout: Seconds for one attempt; the row's if ``None``.
            deadline: Seconds for the whole.
            **options: What else the provider knows.
        """
        from llm_master import operations

        return await operations.moderate(self._engine, model_name, inputs, timeout, deadline, options)

    async def rerank(
        self,
        model_name: str,
        query: str,
        documents: Sequence[str],
        *,
        top_n: int | None = None,
        timeout: float | None = None,
        deadline: float | None = None,
        **options: Any,
    ) -> RerankResponse:
        """Order documents by how relevant they are to a query.

        Args:
            model_name: As ``"cohere/rerank-v3.5"``.
            query: What is sought.
            documents: Texts.
            top_n: Return only so many, the best.
            timeout: Seconds for one attempt; the row's if ``None``.
            deadline: Seconds for the whole.
            **options: What else the provider knows.
        """
        from llm_master import operations

        return await operations.rerank(self._engine, model_name, query, documents, timeout, deadline, {"top_n": top_n, **options})

    async def speech(
        self,
        model_name: str,
        text: str,
        *,
        voice: str | None = None,
        timeout: float | None = None,
        deadline: float | None = None,
        **options: Any,
    ) -> LLMResponse:
        """Speak a text: ``answer.audio`` has ``data``, ``media_type`` and ``save(path)``.

        Args:
            model_name: As ``"gpt-4o-mini-tts"`` or ``"gemini-2.5-flash-preview-tts"``.
            text: What to say.
            voice: By the provider's name for it.
            timeout: Seconds for one attempt; the row's if ``None``.
            deadline: Seconds for the whole.
            **options: ``format`` (``"mp3"``, ``"wav"``, ...), ``instructions``, ``speed``, and what else the provider knows.
        """
        from llm_master import operations

        return await operations.speech(self._engine, model_name, text, timeout, deadline, {"voice": voice, **options})

    async def count_tokens(
        self,
        model_name: str,
        messages: Sequence[Message] | None = None,
        *,
        prompt: str | None = None,
        response_format: Any = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        timeout: float | None = None,
        deadline: float | None = None,
        extra_body: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> TokenCount:
        """How many tokens a conversation has: by the provider's own count where it offers one without charge, else estimated."""
        from llm_master import operations

        call = self._engine.call(model_name, messages, prompt, response_format, tools, timeout, deadline, extra_body, options)
        return await operations.count_tokens(call)

    async def estimate_cost(
        self,
        model_name: str,
        messages: Sequence[Message] | None = None,
        *,
        prompt: str | None = None,
        response_format: Any = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        extra_body: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> CostEstimate:
        """What a query with these arguments would cost at most. Nothing is sent."""
        from llm_master import operations

        call = self._engine.call(model_name, messages, prompt, response_format, tools, None, None, extra_body, dict(options))
        return await operations.estimate_cost(call, options)
