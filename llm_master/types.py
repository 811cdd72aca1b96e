"""What goes out and what comes back: the value types that users see."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal, TypeAlias

import attrs
import msgspec

from llm_master.media import Audio, Citation, Image

Message: TypeAlias = Mapping[str, Any]
"""One message as in OpenAI's chat completions; every field is kept."""

CostState: TypeAlias = Literal["billed", "exact", "estimated", "unknown"]
"""How a cost is known: ``billed`` by the provider itself, ``exact`` by price and counted tokens,
``estimated`` (a price or a count that matters is missing and an upper bound stands in), ``unknown``."""


@attrs.define(repr=False)
class Usage:
    """Tokens of one answer. A count that the provider did not state is ``None``.

    Attributes:
        input_tokens: All tokens of the prompt, the cached ones included.
        output_tokens: All tokens that the model wrote, its reasoning included.
        cached_tokens: How many of ``input_tokens`` were read from the provider's cache.
        cache_write_tokens: How many of ``input_tokens`` were written to it.
        reasoning_tokens: How many of ``output_tokens`` were reasoning.
        cache_write_1h_tokens: How many of ``cache_write_tokens`` were written for an hour, at another price.
        web_searches: Searches that the provider made and bills.
        others_worked: Other models worked inside the answer, whose tokens these counts do not hold.
        audio_input_tokens: How many of ``input_tokens`` were audio, which has its own price.
        audio_output_tokens: How many of ``output_tokens`` were audio.
        image_input_tokens: How many of ``input_tokens`` were images, where those have their own price.
        images: Images made.
        characters: Characters that were spoken.
        search_units: Units in which rankings are billed.
        billed_input_tokens: How many tokens of input the provider charges for, where it says another number than ``input_tokens``.
        billed_output_tokens: The same of output.
        cost: What the provider itself billed, in its row's currency.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost: Decimal | None = None
    cache_write_1h_tokens: int | None = attrs.field(default=None, kw_only=True)
    web_searches: int | None = attrs.field(default=None, kw_only=True)
    others_worked: bool = attrs.field(default=False, kw_only=True)
    audio_input_tokens: int | None = attrs.field(default=None, kw_only=True)
    audio_output_tokens: int | None = attrs.field(default=None, kw_only=True)
    image_input_tokens: int | None = attrs.field(default=None, kw_only=True)
    images: int | None = attrs.field(default=None, kw_only=True)
    characters: int | None = attrs.field(default=None, kw_only=True)
    search_units: int | None = attrs.field(default=None, kw_only=True)
    billed_input_tokens: int | None = attrs.field(default=None, kw_only=True)
    billed_output_tokens: int | None = attrs.field(default=None, kw_only=True)

    def __repr__(self) -> str:
        # What is not known of an answer is most of what there could be.
        said = ((field.name, getattr(self, field.name)) for field in attrs.fields(type(self)))
        return f"Usage({', '.join(f'{name}={value!r}' for name, value in said if value is not None and value is not False)})"

    @property
    def total_tokens(self) -> int | None:
        """Input and output together; ``None`` if either is unknown."""
        if self.input_tokens is None or self.output_tokens is None:
            return None
        return self.input_tokens + self.output_tokens


@attrs.define
class ToolCall:
    """A function that the model wants called.

    Attributes:
        id: What the tool's result must name as its ``tool_call_id``.
        name: The function's name.
        arguments: Its arguments, decoded.
        error: Why ``arguments`` is empty although the model wrote something: it was not a JSON object.
        text: The arguments exactly as the model wrote them.
    """

    id: str
    name: str
    arguments: dict[str, Any]
    error: str | None = attrs.field(default=None, kw_only=True)
    text: str | None = attrs.field(default=None, kw_only=True, repr=False, eq=False)

    @classmethod
    def from_text(cls, id: str, name: str, text: str) -> ToolCall:
        """Decode ``text``, which is JSON in every provider's wire format; an empty one means no arguments."""
        error = None
        arguments: Any = {}
        if text.strip():
            try:
                arguments = msgspec.json.decode(text)
            except msgspec.DecodeError as exc:
                error = f"the model's arguments for {name!r} are not JSON: {exc}"
            if not isinstance(arguments, dict):
                error = f"the model's arguments for {name!r} are not a JSON object but {type(arguments).__name__}"
                arguments = {}
        return cls(id, name, arguments, error=error, text=text)

    def to_message_part(self) -> dict[str, Any]:
        """As it stands in the ``tool_calls`` of an assistant message."""
        text = self.text if self.text is not None else msgspec.json.encode(self.arguments).decode()
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": text}}


@attrs.define
class GenerationParams:
    """Generation settings of the short provider form (``BaseProvider``)."""

    temperature: float = 0.7
    max_tokens: int = 1000
    top_p: float = 1.0
    stop: Sequence[str] | None = None


@attrs.define(kw_only=True)
class Attempt:
    """One request that was sent, or tried to be.

    Attributes:
        provider: Name of the provider's row.
        model: The model as it was asked for on the wire.
        why: Why this target.
        model_served: The model that the provider says answered.
        key: The key's name and last four characters, never the key; ``None`` if none was used.
        wait: Seconds waited before sending.
        wait_reason: Why it waited.
        latency: Seconds from sending to the whole answer or the error; of a stream, to its end.
        first_delta: Of a stream, seconds from sending to its first delta.
        status: HTTP status, or ``None`` where there was none.
        request_id: The provider's own id of the request.
        error: Class and message of what went wrong; ``None`` for an answer.
        then: What was decided after an error.
        options: The options that were sent, by their names on the wire.
        cost: What this attempt cost, or ``None`` if that is not known.
        cost_state: How ``cost`` is known.
    """

    provider: str
    model: str
    why: str = ""
    model_served: str | None = None
    key: str | None = None
    wait: float = 0.0
    wait_reason: str | None = None
    latency: float | None = None
    first_delta: float | None = None
    status: int | None = None
    request_id: str | None = None
    error: str | None = None
    then: str | None = None
    options: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    cost: Decimal | None = None
    cost_state: CostState = "unknown"

    @property
    def error_type(self) -> str | None:
        """The class of what went wrong, without its message; ``None`` for an answer."""
        return self.error.partition(":")[0] if self.error else None


@attrs.define(kw_only=True)
class Receipt:
    """What one query did.

    Attributes:
        model_name: The name that was asked for.
        provider: The provider it was resolved to.
        why: Why this provider.
        attempts: Every attempt, in order.
        options: The options that were sent, by their names on the wire; of several targets, to the last.
        renamed: Options that the provider knows under another name: ours -> its.
        dropped: Options that were not sent.
        structured_output: How the form of ``response_format`` was asked for: ``json_schema`` by the provider's own
            means, ``tool`` as the arguments of a tool, ``json_object`` or ``prompt`` in words; ``None`` if it was not.
        cost: What all attempts cost together. An attempt that failed before any output is free.
        cost_state: How ``cost`` is known.
        currency: ISO 4217 code of ``cost``.
    """

    model_name: str
    provider: str
    why: str
    attempts: list[Attempt] = attrs.field(factory=list)
    options: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    renamed: Mapping[str, str] = attrs.field(factory=dict)
    dropped: tuple[str, ...] = ()
    structured_output: str | None = None
    cost: Decimal | None = None
    cost_state: CostState = "unknown"
    currency: str = "USD"

    def explain(self) -> str:
        """What was done, and why, in plain words: a line for each attempt."""
        from llm_master.story import told

        return told(self)


@attrs.define
class WireAnswer:
    """The HTTP side of an answer, kept so that nothing the provider said is lost.

    ``provider.rate_limits(wire.headers)`` reads what the headers say of the limits. ``sent_at`` is when the request was handed to
    its connection, by ``time.monotonic()``.
    """

    status: int | None = None
    request_id: str | None = None
    body: bytes | None = attrs.field(default=None, repr=False)
    service_tier: str | None = None
    headers: Mapping[str, str] | None = attrs.field(default=None, repr=False)
    sent_at: float | None = attrs.field(default=None, repr=False, eq=False)


@attrs.define
class LLMResponse:
    """A model's answer. ``str(answer)`` is its content.

    Attributes:
        content: The text; empty where the model only called tools.
        model_name: The name that was asked for.
        usage: Tokens; counts that the provider did not state are ``None``.
        latency: Seconds from sending to the whole answer, of the attempt that answered.
        provider: Name of the provider's row.
        cost: What the answering attempt cost, in ``receipt.currency``; ``None`` if not known.
        finish_reason: Why the model stopped, in the provider's word (``stop``, ``length``, ``tool_calls``, ...).
        tool_calls: The functions that the model wants called.
        reasoning: The model's reasoning, where the provider shows it.
        citations: The sources that the answer names; what a search found, where the provider tells only that.
        images: The images made or found.
        audio: The audio made.
        parsed: The content as what ``response_format`` asked for.
        receipt: What the query did.
        native: The provider's own form of the answer, where ours cannot say all of it (signed thoughts, server tools).
        wire: Status, request id and body as they came.
    """

    content: str
    model_name: str
    usage: Usage = attrs.field(factory=Usage)
    latency: float | None = None
    provider: str | None = attrs.field(default=None, kw_only=True)
    cost: Decimal | None = attrs.field(default=None, kw_only=True)
    finish_reason: str | None = attrs.field(default=None, kw_only=True)
    tool_calls: list[ToolCall] = attrs.field(factory=list, kw_only=True)
    reasoning: str | None = attrs.field(default=None, kw_only=True)
    citations: list[Citation] = attrs.field(factory=list, kw_only=True)
    images: list[Image] = attrs.field(factory=list, kw_only=True)
    audio: Audio | None = attrs.field(default=None, kw_only=True)
    parsed: Any = attrs.field(default=None, kw_only=True)
    receipt: Receipt | None = attrs.field(default=None, kw_only=True, repr=False)
    native: dict[str, Any] | None = attrs.field(default=None, kw_only=True, repr=False, eq=False)
    wire: WireAnswer | None = attrs.field(default=None, kw_only=True, repr=False, eq=False)

    def __str__(self) -> str:
        return self.content

    @property
    def raw(self) -> Any:
        """The provider's JSON, decoded at each use; ``None`` for a stream, which has no single one."""
        if self.wire is None or self.wire.body is None:
            return None
        return msgspec.json.decode(self.wire.body)

    @property
    def message(self) -> dict[str, Any]:
        """The answer as an assistant message, to go on with the conversation, with this provider or another.

        What only this provider understands stands under ``_native``, which no other is sent.
        """
        message: dict[str, Any] = {"role": "assistant", "content": self.content or None}
        if self.tool_calls:
            message["tool_calls"] = [call.to_message_part() for call in self.tool_calls]
        elif message["content"] is None:
            message["content"] = ""
        if self.native is not None:
            message["_native"] = self.native
        return message


@attrs.define
class TextDelta:
    """A piece of the text."""

    text: str


@attrs.define
class ReasoningDelta:
    """A piece of the model's reasoning."""

    text: str


@attrs.define
class ToolCallDelta:
    """A piece of a tool call. ``id`` and ``name`` come once, ``arguments`` in pieces of JSON text."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


@attrs.define
class AudioDelta:
    """A piece of the audio, as bare samples: 16 bit, little-endian, one channel."""

    data: bytes = attrs.field(repr=False)


@attrs.define(kw_only=True)
class StreamEnd:
    """The last event of a whole stream.

    A provider may leave out whatever it does not know.
    """

    finish_reason: str | None = None
    usage: Usage | None = None
    model_name: str | None = None
    citations: list[Citation] = attrs.field(factory=list)
    images: list[Image] = attrs.field(factory=list)
    audio: Audio | None = None
    native: dict[str, Any] | None = attrs.field(default=None, repr=False)
    wire: WireAnswer | None = None


StreamEvent: TypeAlias = TextDelta | ReasoningDelta | ToolCallDelta | AudioDelta | StreamEnd
"""What ``LLMStream.events()`` yields."""

StreamPiece: TypeAlias = str | StreamEvent | list[str | StreamEvent]
"""What a provider's ``stream`` yields: text, another event, or a list of them that arrived together."""


@attrs.define(kw_only=True)
class Plan:
    """What a query would send. Nothing of it was sent.

    Attributes:
        provider: Name of the provider's row; ``why`` it is this one.
        model: The wire id.
        method: HTTP method, or ``None`` where no HTTP is spoken.
        url: Where to.
        headers: Headers, the key masked.
        body: The request's body.
        key: The key's name and last four characters.
        renamed: Options that the provider knows under another name: ours -> its.
        dropped: Options that would not be sent.
    """

    provider: str = ""
    model: str = ""
    why: str = ""
    method: str | None = "POST"
    url: str | None = None
    headers: Mapping[str, str] = attrs.field(factory=dict)
    body: Any = None
    key: str | None = None
    renamed: Mapping[str, str] = attrs.field(factory=dict)
    dropped: tuple[str, ...] = ()

    def __await__(self) -> Generator[Any, None, Plan]:
        # Everything else of QueryLLM is awaited, so this may be, too.
        return self
        yield


@attrs.frozen(kw_only=True)
class RateLimitState:
    """What an answer's headers say of the provider's limits.

    Resets are seconds from the answer on, so that neither clock needs to be right; what is not known is ``None``.
    """

    requests_limit: int | None = None
    requests_remaining: int | None = None
    requests_reset: float | None = None
    tokens_limit: int | None = None
    tokens_remaining: int | None = None
    tokens_reset: float | None = None
    input_tokens_limit: int | None = None
    input_tokens_remaining: int | None = None
    input_tokens_reset: float | None = None
    output_tokens_limit: int | None = None
    output_tokens_remaining: int | None = None
    output_tokens_reset: float | None = None
