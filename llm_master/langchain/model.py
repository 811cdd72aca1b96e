"""``ChatLLMMaster``: ``QueryLLM`` as a chat model of LangChain."""

from __future__ import annotations

import difflib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import Field, model_validator

from llm_master.background import iterate_in_background, run_in_background
from llm_master.errors import InvalidOutputError, InvalidRequestError
from llm_master.langchain.answers import INTEGRATION, to_chunks, to_message
from llm_master.langchain.messages import to_conversation
from llm_master.langchain.structured import KEEP_INVALID, Method, structured
from llm_master.provider_configs import LLMConfig
from llm_master.query import QueryLLM
from llm_master.types import LLMResponse


class ChatLLMMaster(BaseChatModel):
    """Any model of any provider as a LangChain chat model.

    ::

        model = ChatLLMMaster(model="gpt-4.1", fallback_model="claude-sonnet-4-5", temperature=0)
        model.invoke("Hello").content

    Keys, limits, retries, fallbacks and prices are those of ``QueryLLM`` with the same ``config``, and shared with it; the
    errors are those of ``llm_master.errors``. What is given at a call or by ``bind`` wins over the fields: the arguments of
    ``QueryLLM.query``, the model's options, and ``model``.

    Attributes:
        model: ``"gpt-4.1"``, ``"groq/openai/gpt-oss-20b"``, a provider's name for its default model, ...
        fallback_model: Who answers where this model fails: a name, or several in order.
        fallback_config: The fallbacks' options; they get none of the others.
        temperature: As the provider counts it; its default if ``None``.
        max_tokens: The most that the answer may have; the provider's default if ``None``.
        stop: Texts before which the answer ends.
        timeout: Seconds for one attempt; of a stream, to the first delta and between deltas. The row's if ``None``.
        deadline: Seconds for a query with all its waits and repetitions; that of the settings if ``None``.
        options: Any other argument of ``QueryLLM.query``, or option of the model: ``{"reasoning_effort": "low"}``.
        streaming: Whether ``invoke`` streams, too, so that callbacks see each token.
        config: Keys and settings; the environment and the settings files where it says nothing.
    """

    model: str
    fallback_model: str | list[str] | None = None
    fallback_config: dict[str, Any] | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    stop: list[str] | None = None
    timeout: float | None = None
    deadline: float | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    streaming: bool = False
    config: LLMConfig | None = Field(default=None, exclude=True)  # it may hold keys, which no dump of a model should

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_fields(cls, values: Any) -> Any:
        # LangChain's base class would drop a misspelt field in silence.
        for name in values if isinstance(values, Mapping) else ():
            if name not in cls.model_fields and name not in {field.alias for field in cls.model_fields.values()}:
                near = difflib.get_close_matches(name, cls.model_fields, 1)
                hint = f"did you mean {near[0]!r}? Else" if near else "So"
                raise TypeError(
                    f"ChatLLMMaster has no field {name!r}: {hint} give the model's options as options={{{name!r}: ...}}, "
                    "and keys and addresses as config=LLMConfig(...)"
                )
        return values

    @property
    def _llm_type(self) -> str:
        return INTEGRATION

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """What tells this model's answers from another's, for LangChain's caches and traces."""
        fields = {name: getattr(self, name) for name in ("model", "fallback_model", "fallback_config", "temperature", "max_tokens", "stop")}
        return {**fields, **self.options}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return {**super()._get_ls_params(stop=stop or self.stop, **kwargs), "ls_provider": INTEGRATION}

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | Any],
        *,
        tool_choice: str | bool | dict[str, Any] | None = None,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """The same model with tools.

        Args:
            tools: Functions, pydantic classes, LangChain tools, or dicts, which go to the provider as they are where they
                are none of a function.
            tool_choice: ``"auto"``, ``"none"``, ``"any"`` (``"required"`` and ``True`` are the same), a tool's name, or a dict in
                the form of OpenAI's chat completions.
            strict: Whether the provider is asked to hold strictly to the schemas of the arguments.
            **kwargs: Other arguments of each call.

        Raises:
            InvalidRequestError: ``tool_choice`` names none of the tools.
        """
        formatted = [convert_to_openai_tool(tool, strict=strict) for tool in tools]
        if tool_choice is not None and tool_choice is not False:
            kwargs["tool_choice"] = _tool_choice(tool_choice, formatted)
        return self.bind(tools=formatted, **kwargs)

    def with_structured_output(
        self,
        schema: dict[str, Any] | type,
        *,
        method: Method = "json_schema",
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """A runnable whose output is an object of ``schema``.

        Args:
            schema: A pydantic class, of which it returns an object; or a ``TypedDict``, a JSON schema or OpenAI's form of a
                function: then it returns a dict.
            method: ``json_schema``: by our ``response_format``, which finds the way that the model knows, and checks the answer.
                ``function_calling``: as the arguments of a tool. ``json_mode``: any JSON object; the prompt must say which.
            include_raw: Return ``{"raw": AIMessage, "parsed": ..., "parsing_error": ...}``, and raise nothing where the
                answer does not fit.
            strict: Whether the provider is asked to hold strictly to the schema; as suits it if ``None``.
            **kwargs: Other arguments of each call, as ``repair=True``.

        Raises:
            InvalidRequestError: There is no such method.
        """
        return structured(self, schema, method, include_raw=include_raw, strict=strict, arguments=kwargs)

    def _generate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: CallbackManagerForLLMRun | None = None, **kwargs: Any
    ) -> ChatResult:
        return run_in_background(lambda: self._answer(messages, stop, kwargs))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return await self._answer(messages, stop, kwargs)

    def _stream(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: CallbackManagerForLLMRun | None = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        # Tokens are reported to the callbacks by LangChain's own loop around this one.
        return iterate_in_background(lambda: self._chunks(messages, stop, kwargs))

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        async with aclosing(self._chunks(messages, stop, kwargs)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _answer(self, messages: list[BaseMessage], stop: list[str] | None, given: dict[str, Any]) -> ChatResult:
        arguments = self._arguments(stop, given)
        keep = arguments.pop(KEEP_INVALID, False)
        try:
            response = await QueryLLM(self.config).query(messages=to_conversation(messages), **arguments)
        except InvalidOutputError as exc:
            if not keep or exc.response is None:
                raise
            response = exc.response
        assert isinstance(response, LLMResponse)
        return ChatResult(generations=[ChatGeneration(message=to_message(response))])

    def _chunks(
        self, messages: list[BaseMessage], stop: list[str] | None, given: dict[str, Any]
    ) -> AsyncGenerator[ChatGenerationChunk, None]:
        arguments = self._arguments(stop, given)
        keep = arguments.pop(KEEP_INVALID, False)
        stream = QueryLLM(self.config).stream(messages=to_conversation(messages), **arguments)
        return to_chunks(stream, keep_invalid=keep)

    def _arguments(self, stop: list[str] | None, given: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of ``QueryLLM.query``: those of the call over the fields, and the fields over ``options``."""
        own = ("fallback_model", "fallback_config", "temperature", "max_tokens", "stop", "timeout", "deadline")
        fields = {name: value for name in own if (value := getattr(self, name)) is not None}
        arguments = {**self.options, **fields, **given}
        arguments["model_name"] = arguments.pop("model", self.model)
        # Whether to stream has been decided where this is called.
        arguments.pop("stream", None)
        if stop is not None:
            arguments["stop"] = stop
        return arguments


def _tool_choice(choice: Any, tools: Sequence[Mapping[str, Any]]) -> Any:
    if choice is True or choice == "any":
        return "required"
    if not isinstance(choice, str) or choice in ("auto", "none", "required"):
        return choice
    names = [tool["function"]["name"] for tool in tools if "function" in tool]
    if choice in names:
        return {"type": "function", "function": {"name": choice}}
    raise InvalidRequestError(
        f"tool_choice is {choice!r}, and the tools are {', '.join(names) or 'none'}: give one of their names, "
        '"auto", "any", "none", or a dict'
    )
