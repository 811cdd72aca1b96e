"""``ChatLLMMaster``, with the real langchain-core, against the fault server and llama.cpp."""

from __future__ import annotations

import base64
import json
import os
import pickle
import subprocess
import sys
from decimal import Decimal
from typing import Any

import pytest

pytest.importorskip("langchain_core", reason="the extra langchain is not installed")

from langchain_core.callbacks import BaseCallbackHandler, get_usage_metadata_callback
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from pydantic import BaseModel
from servers.llama import SENTENCE, LlamaServer
from servers.media import PNG
from typing_extensions import TypedDict

from llm_master import (
    PROVIDER_CONFIGS,
    AuthenticationError,
    ConfigurationError,
    InvalidOutputError,
    InvalidRequestError,
    LLMConfig,
    LLMResponse,
    ModelConfig,
    ModelRegistry,
    ProviderConfig,
    StreamInterruptedError,
    ToolCall,
    Usage,
)
from llm_master.langchain import ChatLLMMaster
from llm_master.langchain.answers import to_message, to_usage
from llm_master.langchain.messages import to_conversation
from llm_master.testing import Fault, FaultServer


@pytest.fixture(autouse=True)
def _untraced(monkeypatch: pytest.MonkeyPatch) -> None:
    """LangChain would send traces to another machine where the environment of whoever runs the tests says so."""
    for name in [name for name in os.environ if name.startswith(("LANGCHAIN_", "LANGSMITH_"))]:
        monkeypatch.delenv(name)


@pytest.fixture
def model(fault_server: FaultServer) -> ChatLLMMaster:
    PROVIDER_CONFIGS["trial"] = ProviderConfig(base_url=fault_server.base_url, api_key="sk-trial-0123456789", max_retries=0)
    ModelRegistry.register("trial/large", ModelConfig(input_price_per_million=1, output_price_per_million=2))
    return ChatLLMMaster(model="trial/large")


@tool
def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"It rains in {city}."


CALL = {"id": "call-1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
USED = {
    "prompt_tokens": 20,
    "completion_tokens": 9,
    "total_tokens": 29,
    "prompt_tokens_details": {"cached_tokens": 8, "audio_tokens": 3},
    "completion_tokens_details": {"reasoning_tokens": 4},
}


def whole(message: dict[str, Any], finish_reason: str = "stop") -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": None, **message}, "finish_reason": finish_reason}
    return {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "large", "choices": [choice], "usage": USED}


def events(*deltas: dict[str, Any], finish_reason: str = "stop") -> str:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "large"}
    chunks = [{**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": finish_reason}]})
    chunks.append({**head, "choices": [], "usage": USED})
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"


def added(chunks: list[AIMessageChunk]) -> AIMessageChunk:
    total = chunks[0]
    for chunk in chunks[1:]:
        total += chunk
    return total


def same(left: AIMessage, right: AIMessage) -> None:
    """All of a message but the ids of run and request, and the story of its receipt, which tells seconds."""
    for name in ("content", "tool_calls", "usage_metadata", "additional_kwargs", "name"):
        assert getattr(left, name) == getattr(right, name), name
    assert [(c["id"], c["name"], c["args"]) for c in left.invalid_tool_calls] == [
        (c["id"], c["name"], c["args"]) for c in right.invalid_tool_calls
    ]
    first, second = (dict(message.response_metadata) for message in (left, right))
    for metadata in (first, second):
        assert "200" in metadata.pop("receipt")
        assert metadata.pop("request_id")
    assert first == second


# Asking.


def test_invoke(model: ChatLLMMaster, fault_server: FaultServer) -> None:
    answer = ChatLLMMaster(model="trial/large", temperature=0.5, max_tokens=50, stop=["END"]).invoke("Hello")
    assert type(answer) is AIMessage
    assert answer.content == "echo 1: Hello"
    assert answer.usage_metadata == {"input_tokens": 2, "output_tokens": 4, "total_tokens": 6}
    metadata = answer.response_metadata
    assert metadata["model_name"] == "trial/large"
    assert metadata["model_provider"] == "llm_master"
    assert metadata["provider"] == "trial"
    assert metadata["finish_reason"] == "stop"
    assert (Decimal(metadata["cost"]), metadata["currency"]) == (Decimal("0.00001"), "USD")
    assert answer.id
    (seen,) = fault_server.requests
    assert seen.body == {
        "model": "large",
        "messages": [{"role": "user", "content": "Hello"}],
        "temperature": 0.5,
        "max_tokens": 50,
        "stop": ["END"],
    }


async def test_ainvoke(model: ChatLLMMaster) -> None:
    answer = await model.ainvoke([SystemMessage("Be brief."), HumanMessage("Hello")])
    assert answer.content == "echo 1: Hello"


async def test_sync_methods_work_inside_a_running_loop(model: ChatLLMMaster) -> None:
    assert model.invoke("Hello").content == "echo 1: Hello"
    assert "".join(chunk.content for chunk in model.stream("Hello")) == "echo 2: Hello"


def test_stream_is_the_whole_in_pieces(model: ChatLLMMaster, fault_server: FaultServer) -> None:
    fault_server.script(Fault(answer="one two three", times=2))
    chunks = list(model.stream("Count"))
    assert [chunk.content for chunk in chunks if chunk.content] == ["one ", "two ", "three"]
    assert all(chunk.usage_metadata is None for chunk in chunks[:-1])
    assert chunks[-1].chunk_position == "last"
    same(added(chunks), model.invoke("Count"))


async def test_astream_is_the_whole_in_pieces(model: ChatLLMMaster, fault_server: FaultServer) -> None:
    fault_server.script(Fault(answer="one two three", times=2))
    chunks = [chunk async for chunk in model.astream("Count")]
    assert len(chunks) == 4
    same(added(chunks), await model.ainvoke("Count"))


def test_a_stream_arrives_as_it_comes(model: ChatLLMMaster, fault_server: FaultServer) -> None:
    fault_server.script(Fault(answer="one two", stall_after=2, stall="forever"))
    stream = model.stream("Count")
    assert next(stream).content == "one "
    stream.close()


@pytest.mark.parametrize("way", ["close", "drop"])
def test_a_stream_left_early_gives_its_connection_free(model: ChatLLMMaster, fault_server: FaultServer, way: str) -> None:
    PROVIDER_CONFIGS["narrow"] = ProviderConfig(base_url=fault_server.base_url, requires_key=False, max_concurrent=1)
    fault_server.script(Fault(answer="one two", stall_after=2, stall="forever"))
    stream = ChatLLMMaster(model="narrow/large", deadline=5).stream("Count")
    assert next(stream).content == "one "
    if way == "close":
        stream.close()
    del stream
    # There is room for one request only: this one is sent when the other is over.
    assert ChatLLMMaster(model="narrow/large", deadline=5).invoke("Hello").content == "echo 2: Hello"


def test_batch(model: ChatLLMMaster) -> None:
    answers = model.batch([f"{n}" for n in range(5)])
    assert [answer.content.partition(": ")[2] for answer in answers] == [f"{n}" for n in range(5)]


async def test_abatch(model: ChatLLMMaster) -> None:
    answers = await model.abatch([f"{n}" for n in range(5)])
    assert [answer.content.partition(": ")[2] for answer in answers] == [f"{n}" for n in range(5)]


def test_in_a_chain(model: ChatLLMMaster) -> None:
    chain = ChatPromptTemplate.from_messages([("system", "You know {what}."), ("human", "{question}")]) | model | StrOutputParser()
    assert chain.invoke({"what": "birds", "question": "What is a robin?"}) == "echo 1: What is a robin?"
    assert "".join(chain.stream({"what": "birds", "question": "And a wren?"})) == "echo 2: And a wren?"


def test_what_is_given_at_the_call_wins(model: ChatLLMMaster, fault_server: FaultServer) -> None:
    first = ChatLLMMaster(model="trial/large", temperature=0.5, stop=["A"], options={"seed": 7, "top_p": 0.5})
    first.bind(temperature=0.1).invoke("Hello", stop=["B"], model="trial/small", top_p=0.9)
    body = fault_server.requests[0].body
    assert (body["model"], body["temperature"], body["stop"], body["seed"], body["top_p"]) == ("small", 0.1, ["B"], 7, 0.9)


def test_config_is_that_of_query_llm(model: ChatLLMMaster, fault_server: FaultServer) -> None:
    config = LLMConfig(api_keys={"trial": ["sk-other-0123456789"]})
    fault_server.accept(keys={"other": "sk-other-0123456789"})
    assert ChatLLMMaster(model="trial/large", config=config).invoke("Hello").content == "echo 1: Hello"
    assert "sk-other" not in repr(ChatLLMMaster(model="trial/large", config=config))
    with pytest.raises(AuthenticationError):
        model.invoke("Hello")  # has the row's own key


def test_our_errors_pass_through_unchanged(model: ChatLLMMaster, fault_server: FaultServer) -> None:
    fault_server.script(Fault(401))
    with pytest.raises(AuthenticationError) as raised:
        model.invoke("Hello")
    assert [attempt.status for attempt in raised.value.receipt.attempts] == [401]


def test_a_broken_stream(model: ChatLLMMaster, fault_server: FaultServer) -> None:
    fault_server.script(Fault(reset_after=500, answer="one two three four five"))
    came = []
    with pytest.raises(StreamInterruptedError) as raised:
        for chunk in model.stream("Count"):
            came.append(chunk.content)
    assert came and raised.value.response.content == "".join(came)


def test_fallback(model: ChatLLMMaster, fault_server: FaultServer) -> None:
    fault_server.script(Fault(503, model="large", times=None))
    answer = ChatLLMMaster(model="trial/large", fallback_model="trial/small").invoke("Hello")
    assert answer.response_metadata["model_name"] == "trial/small"
    assert "503" in answer.response_metadata["receipt"]


def test_a_misspelt_field_is_named() -> None:
    with pytest.raises(TypeError, match="temprature.*temperature"):
        ChatLLMMaster(model="trial/large", temprature=0)
    with pytest.raises(TypeError, match="api_key.*LLMConfig"):
        ChatLLMMaster(model="trial/large", api_key="sk-0123456789")


def test_it_can_be_pickled_and_dumped(model: ChatLLMMaster) -> None:
    again = pickle.loads(pickle.dumps(ChatLLMMaster(model="trial/large", temperature=0)))
    assert (again.model, again.temperature) == ("trial/large", 0)
    assert again.invoke("Hello").content == "echo 1: Hello"
    assert "config" not in model.model_dump()


async def test_content_as_standard_blocks(model: ChatLLMMaster, fault_server: FaultServer) -> None:
    fault_server.script(Fault(body=whole({"content": "Hi", "reasoning_content": "They greet."})))
    blocks = ChatLLMMaster(model="trial/large", output_version="v1")
    answer = await blocks.ainvoke("Hello")
    assert [block["type"] for block in answer.content] == ["reasoning", "text"]
    pieces = [piece async for piece in blocks.astream([HumanMessage("Hello"), answer, HumanMessage("Again")])]
    assert "".join(block["text"] for block in added(pieces).content) == "echo 2: Again"
    assert fault_server.requests[1].body["messages"][1] == {"role": "assistant", "content": "Hi"}


# Callbacks.


class Heard(BaseCallbackHandler):
    def __init__(self) -> None:
        self.tokens: list[Any] = []
        self.ended: list[Any] = []
        self.failed: list[BaseException] = []

    def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
        self.tokens.append(token)

    def on_llm_end(self, response: Any, **kwargs: Any) -> None:
        self.ended.append(response)

    def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
        self.failed.append(error)


async def test_callbacks_hear_tokens_ends_and_errors(model: ChatLLMMaster, fault_server: FaultServer) -> None:
    heard = Heard()
    fault_server.script(Fault(answer="one two", times=2), Fault(400))
    list(model.stream("Count", config={"callbacks": [heard]}))
    assert heard.tokens == ["one ", "two", ""]
    streaming = ChatLLMMaster(model="trial/large", streaming=True)
    assert (await streaming.ainvoke("Count", config={"callbacks": [heard]})).content == "one two"
    assert heard.tokens == ["one ", "two", ""] * 2
    assert len(heard.ended) == 2
    with pytest.raises(InvalidRequestError):
        await model.ainvoke("Count", config={"callbacks": [heard]})
    assert [type(error) for error in heard.failed] == [InvalidRequestError]


def test_usage_is_counted_by_langchain(model: ChatLLMMaster) -> None:
    with get_usage_metadata_callback() as counted:
        model.invoke("Hello")
        list(model.stream("Hello"))
    assert counted.usage_metadata["trial/large"]["total_tokens"] == 12


async def test_events(model: ChatLLMMaster) -> None:
    kinds = [event["event"] async for event in model.astream_events("Hello", version="v2")]
    assert kinds[0] == "on_chat_model_start"
    assert kinds.count("on_chat_model_stream") >= 3
    assert kinds[-1] == "on_chat_model_end"


# Usage and tools.


def test_usage_in_detail(model: ChatLLMMaster, fault_server: FaultServer) -> None:
    fault_server.script(Fault(body=whole({"content": "Hi", "reasoning_content": "They greet."})))
    answer = model.invoke("Hello")
    assert answer.usage_metadata == {
        "input_tokens": 20,
        "output_tokens": 9,
        "total_tokens": 29,
        "input_token_details": {"audio": 3, "cache_read": 8},
        "output_token_details": {"reasoning": 4},
    }
    assert answer.additional_kwargs["reasoning_content"] == "They greet."
    assert [block["type"] for block in answer.content_blocks] == ["reasoning", "text"]


def test_unknown_counts_are_none_and_not_zero(model: ChatLLMMaster, fault_server: FaultServer) -> None:
    fault_server.script(Fault(answer="Hi", usage={}))
    answer = model.invoke("Hello")
    assert answer.usage_metadata is None
    assert "cost" not in answer.response_metadata
    assert to_usage(Usage(input_tokens=3)) is None
    assert to_usage(Usage(3, 4)) == {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}


def test_tools_are_called_and_answered(model: ChatLLMMaster, fault_server: FaultServer) -> None:
    with_tools = model.bind_tools([get_weather])
    fault_server.script(Fault(body=whole({"tool_calls": [CALL]}, "tool_calls")), Fault(answer="It rains."))
    question = HumanMessage("What is the weather in Paris?")
    answer = with_tools.invoke([question])
    assert [(call["id"], call["name"], call["args"]) for call in answer.tool_calls] == [("call-1", "get_weather", {"city": "Paris"})]
    assert answer.content == ""
    assert answer.response_metadata["finish_reason"] == "tool_calls"

    result = get_weather.invoke(answer.tool_calls[0])
    assert with_tools.invoke([question, answer, result]).content == "It rains."
    first, second = fault_server.requests
    assert first.body["tools"][0]["function"]["name"] == "get_weather"
    _, said, told = second.body["messages"]
    assert said == {
        "role": "assistant",
        "content": None,
        "tool_calls": [{**CALL, "function": {"name": "get_weather", "arguments": '{"city":"Paris"}'}}],
    }
    assert told == {"role": "tool", "content": "It rains in Paris.", "tool_call_id": "call-1", "name": "get_weather"}


def test_tool_calls_in_a_stream(model: ChatLLMMaster, fault_server: FaultServer) -> None:
    def piece(index: int, arguments: str, **head: Any) -> dict[str, Any]:
        name = head.pop("name", None)
        return {"tool_calls": [{"index": index, **head, "function": {**({"name": name} if name else {}), "arguments": arguments}}]}

    body = events(
        {"role": "assistant", "reasoning_content": "Two "},
        {"reasoning_content": "cities."},
        piece(0, "", id="call-1", type="function", name="get_weather"),
        piece(0, '{"city": '),
        piece(0, '"Paris"}'),
        piece(1, '{"city": "Rome"}', id="call-2", type="function", name="get_weather"),
        finish_reason="tool_calls",
    )
    rome = {"id": "call-2", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Rome"}'}}
    fault_server.script(
        Fault(body=body, headers={"content-type": "text/event-stream"}, stream=True),
        Fault(body=whole({"reasoning_content": "Two cities.", "tool_calls": [CALL, rome]}, "tool_calls")),
    )
    chunks = list(model.bind_tools([get_weather]).stream("Weather?"))
    pieces = [piece for chunk in chunks for piece in chunk.tool_call_chunks]
    assert [(p["index"], p["id"], p["name"], p["args"]) for p in pieces][0] == (0, "call-1", "get_weather", "")
    total = added(chunks)
    assert [call["args"] for call in total.tool_calls] == [{"city": "Paris"}, {"city": "Rome"}]
    same(total, model.bind_tools([get_weather]).invoke("Weather?"))


def test_a_call_that_is_no_json_is_an_invalid_one(model: ChatLLMMaster, fault_server: FaultServer) -> None:
    broken = {**CALL, "function": {"name": "get_weather", "arguments": '{"city": '}}
    fault_server.script(Fault(body=whole({"tool_calls": [broken]}, "tool_calls")))
    answer = model.invoke("Weather?")
    assert answer.tool_calls == []
    (call,) = answer.invalid_tool_calls
    assert (call["id"], call["args"]) == ("call-1", '{"city": ') and "not JSON" in call["error"]
    # The conversation goes on all the same.
    model.invoke([HumanMessage("Weather?"), answer, ToolMessage("Not JSON.", tool_call_id="call-1")])
    assert fault_server.requests[1].body["messages"][1]["tool_calls"][0]["function"]["arguments"] == "{}"


class Bird(BaseModel):
    """A bird."""

    name: str
    wingspan_cm: int


def double(number: int) -> int:
    """Double a number."""
    return 2 * number


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("any", "required"),
        ("required", "required"),
        (True, "required"),
        ("auto", "auto"),
        ("none", "none"),
        ("Bird", {"type": "function", "function": {"name": "Bird"}}),
        ({"type": "function", "function": {"name": "double"}}, {"type": "function", "function": {"name": "double"}}),
        (None, None),
        (False, None),
    ],
)
def test_tool_choices(model: ChatLLMMaster, fault_server: FaultServer, choice: Any, sent: Any) -> None:
    weather = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
    model.bind_tools([Bird, double, weather], tool_choice=choice).invoke("Hello")
    body = fault_server.requests[0].body
    assert [tool["function"]["name"] for tool in body["tools"]] == ["Bird", "double", "weather"]
    assert body.get("tool_choice") == sent


def test_a_tool_choice_of_no_tool_is_refused(model: ChatLLMMaster) -> None:
    with pytest.raises(InvalidRequestError, match="bird.*Bird"):
        model.bind_tools([Bird], tool_choice="bird")


# Structured output.


class Typed(TypedDict):
    """A bird."""

    name: str
    wingspan_cm: int


ROBIN = '{"name": "robin", "wingspan_cm": 21}'
AS_DICT = {"name": "robin", "wingspan_cm": 21}


@pytest.mark.parametrize("method", ["json_schema", "json_mode"])
@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (Bird, Bird(name="robin", wingspan_cm=21)),
        (Typed, AS_DICT),
        (
            {
                "title": "Bird",
                "description": "A bird.",
                **{key: value for key, value in Bird.model_json_schema().items() if key != "description"},
            },
            AS_DICT,
        ),
    ],
    ids=["class", "TypedDict", "schema"],
)
def test_structured_output(model: ChatLLMMaster, fault_server: FaultServer, schema: Any, expected: Any, method: Any) -> None:
    fault_server.script(Fault(answer=ROBIN))
    assert model.with_structured_output(schema, method=method).invoke("Describe a robin.") == expected
    wanted = fault_server.requests[0].body["response_format"]
    assert wanted["type"] == ("json_schema" if method == "json_schema" else "json_object")


@pytest.mark.parametrize("strict", [None, True, False])
def test_structured_output_may_be_strict(model: ChatLLMMaster, fault_server: FaultServer, strict: bool | None) -> None:
    fault_server.script(Fault(answer=ROBIN))
    assert model.with_structured_output(Bird, strict=strict).invoke("Describe a robin.").wingspan_cm == 21
    assert bool(fault_server.requests[0].body["response_format"]["json_schema"].get("strict")) is (strict is not False)


@pytest.mark.parametrize(("schema", "expected"), [(Bird, Bird(name="robin", wingspan_cm=21)), (Typed, AS_DICT)])
def test_structured_output_by_a_tool(model: ChatLLMMaster, fault_server: FaultServer, schema: Any, expected: Any) -> None:
    call = {"id": "c", "type": "function", "function": {"name": schema.__name__, "arguments": ROBIN}}
    fault_server.script(Fault(body=whole({"tool_calls": [call]}, "tool_calls")))
    assert model.with_structured_output(schema, method="function_calling").invoke("Describe a robin.") == expected
    assert fault_server.requests[0].body["tool_choice"] == "required"


async def test_structured_output_that_does_not_fit(model: ChatLLMMaster, fault_server: FaultServer) -> None:
    fault_server.script(Fault(answer="A robin is a bird.", times=3))
    with pytest.raises(InvalidOutputError):
        model.with_structured_output(Bird).invoke("Describe a robin.")
    with pytest.raises(InvalidOutputError):
        list(model.with_structured_output(Bird).stream("Describe a robin."))
    found = await model.with_structured_output(Bird, include_raw=True).ainvoke("Describe a robin.")
    assert found["raw"].content == "A robin is a bird."
    assert found["parsed"] is None
    assert "robin" in str(found["parsing_error"])


async def test_structured_output_with_the_raw_answer_and_in_a_stream(model: ChatLLMMaster, fault_server: FaultServer) -> None:
    fault_server.script(Fault(answer=ROBIN, times=2))
    found = await model.with_structured_output(Bird, include_raw=True).ainvoke("Describe a robin.")
    assert found["parsed"] == Bird(name="robin", wingspan_cm=21)
    assert found["parsing_error"] is None
    assert found["raw"].content == ROBIN
    assert list(model.with_structured_output(Typed).stream("Describe a robin."))[-1] == AS_DICT


def test_structured_output_by_no_known_method(model: ChatLLMMaster) -> None:
    with pytest.raises(InvalidRequestError, match="json.*json_schema"):
        model.with_structured_output(Bird, method="json")


# Messages.


def test_roles_and_names() -> None:
    assert to_conversation(
        [
            SystemMessage("S"),
            ChatMessage("D", role="developer"),
            HumanMessage("H", name="ann"),
            AIMessage("A"),
            ToolMessage("T", tool_call_id="c"),
        ]
    ) == [
        {"role": "system", "content": "S"},
        {"role": "developer", "content": "D"},
        {"role": "user", "content": "H", "name": "ann"},
        {"role": "assistant", "content": "A"},
        {"role": "tool", "content": "T", "tool_call_id": "c"},
    ]


def test_a_kind_of_message_that_cannot_be_sent_is_named(model: ChatLLMMaster) -> None:
    with pytest.raises(InvalidRequestError, match=r"messages\[1\] is a FunctionMessage"):
        model.invoke([HumanMessage("Hi"), FunctionMessage("F", name="f")])


ENCODED = base64.b64encode(PNG).decode()
URI = f"data:image/png;base64,{ENCODED}"


@pytest.mark.parametrize(
    "block",
    [
        {"type": "image_url", "image_url": {"url": URI}},
        {"type": "image", "base64": ENCODED, "mime_type": "image/png"},
        {"type": "image", "base64": ENCODED, "mime_type": "image/png", "id": "lc_1", "index": 0},
        {"type": "image", "source_type": "base64", "data": ENCODED, "mime_type": "image/png"},
        {"type": "image", "url": URI},
    ],
)
def test_images(model: ChatLLMMaster, fault_server: FaultServer, block: dict[str, Any]) -> None:
    model.invoke([HumanMessage([{"type": "text", "text": "What is this?"}, block])])
    (message,) = fault_server.requests[0].body["messages"]
    assert message["content"] == [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": URI}}]


def test_an_image_by_url_and_with_detail(model: ChatLLMMaster, fault_server: FaultServer) -> None:
    block = {"type": "image", "url": "https://example.com/cat.png", "extras": {"detail": "low"}}
    model.invoke([HumanMessage(["What is this?", block])])
    part = fault_server.requests[0].body["messages"][0]["content"][1]
    assert part == {"type": "image_url", "image_url": {"url": "https://example.com/cat.png", "detail": "low"}}


def test_audio_and_files(model: ChatLLMMaster, fault_server: FaultServer) -> None:
    from servers.documented import PDF, silence

    sound, pdf = base64.b64encode(silence()).decode(), base64.b64encode(PDF).decode()
    blocks: list[Any] = [
        {"type": "audio", "base64": sound, "mime_type": "audio/wav"},
        {"type": "input_audio", "input_audio": {"data": sound, "format": "wav"}},
        {"type": "file", "base64": pdf, "mime_type": "application/pdf", "extras": {"filename": "report.pdf"}},
        {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{pdf}", "filename": "report.pdf"}},
        {"type": "file", "file_id": "file-1"},
        {"type": "text-plain", "text": "Cats purr.", "title": "Notes", "mime_type": "text/plain"},
    ]
    model.invoke([HumanMessage(blocks)])
    audio = {"type": "input_audio", "input_audio": {"data": sound, "format": "wav"}}
    file = {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{pdf}", "filename": "report.pdf"}}
    assert fault_server.requests[0].body["messages"][0]["content"] == [
        audio,
        audio,
        file,
        file,
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "text", "text": "Notes:\nCats purr."},
    ]


def test_a_block_without_content_is_named() -> None:
    with pytest.raises(InvalidRequestError, match=r"messages\[0\].content\[0\].*'image'.*base64"):
        to_conversation([HumanMessage([{"type": "image", "mime_type": "image/png"}])])


@pytest.mark.parametrize("data", ["no base64!", "abc", base64.b64encode(b"\xff\xfe").decode()])
def test_a_text_that_is_none_is_named(data: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"messages\[0\].content\[0\].*'text-plain'.*give text"):
        to_conversation([HumanMessage([{"type": "text-plain", "base64": data, "mime_type": "text/plain"}])])


@pytest.mark.parametrize(
    "block",
    [
        {"type": "image_url", "image_url": {"url": "PATH"}},
        {"type": "image_url", "image_url": "PATH"},
        {"type": "image", "url": "PATH"},
        {"type": "image", "base64": "PATH", "mime_type": "image/png"},
        {"type": "image", "path": "PATH"},
        {"type": "file", "url": "PATH"},
        {"type": "file", "url": "file://PATH"},
        {"type": "file", "file": {"path": "PATH"}},
        {"type": "file", "file": {"file_data": "file://PATH"}},
        {"type": "input_file", "file_url": "PATH"},
        {"type": "audio", "url": "PATH"},
        {"type": "input_audio", "input_audio": {"data": "file://PATH"}},
        {"type": "text-plain", "url": "PATH"},
        {"type": "non_standard", "value": {"type": "file", "path": "PATH"}},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", [HumanMessage, SystemMessage])
def test_no_block_reads_a_file_of_this_machine(
    model: ChatLLMMaster, fault_server: FaultServer, tmp_path: Any, block: dict[str, Any], kind: Any
) -> None:
    (tmp_path / "secret.png").write_bytes(PNG)
    written = json.loads(json.dumps(block).replace("PATH", str(tmp_path / "secret.png")))
    with pytest.raises(InvalidRequestError, match=r"^messages\[0\]"):
        model.invoke([kind([written])])
    assert fault_server.requests == []


def test_blocks_of_one_api_and_cache_marks_stay() -> None:
    mark = {"cache_control": {"type": "ephemeral"}}
    own = {"type": "document", "source": {"type": "text", "data": "D", "media_type": "text/plain"}}
    native = {"type": "image", "source": {"type": "url", "url": "https://example.com/cat.png"}}
    marked = {"type": "image", "url": "https://example.com/cat.png", "extras": mark}
    (message,) = to_conversation(
        [HumanMessage([{"type": "text", "text": "T", **mark}, own, native, marked, {"type": "non_standard", "value": own}])]
    )
    assert message["content"][:3] == [{"type": "text", "text": "T", **mark}, own, native]
    assert message["content"][3]["cache_control"] == mark["cache_control"]
    assert message["content"][4] == own


def test_an_assistants_blocks_of_another_model() -> None:
    blocks: list[Any] = [
        {"type": "reasoning", "reasoning": "Hm."},
        {"type": "text", "text": "Let me "},
        {"type": "text", "text": "look.", "index": 1},
        {"type": "tool_call", "id": "c", "name": "f", "args": {}},
    ]
    (message,) = to_conversation([AIMessage(blocks, tool_calls=[{"id": "c", "name": "f", "args": {}}])])
    assert message["content"] == "Let me look."
    assert message["tool_calls"] == [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]


def test_the_native_form_survives_the_round_trip() -> None:
    native = {"format": "some", "content": [{"type": "thinking", "thinking": "Hm.", "signature": "abc"}]}
    response = LLMResponse("Hi", "m", native=native, reasoning="Hm.", tool_calls=[ToolCall("c", "f", {"a": 1})])
    message = to_message(response)
    again = type(message).model_validate_json(message.model_dump_json())  # as a checkpoint keeps it
    (back,) = to_conversation([again])
    assert back["_native"] == native
    assert back["content"] == response.message["content"]
    assert back["tool_calls"][0]["function"]["arguments"] == '{"a":1}'


SIGNED = [{"type": "thinking", "thinking": "Hm.", "signature": "c2lnbmVk"}, {"type": "text", "text": "Hi"}]


def messages_answer() -> dict[str, Any]:
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5"}
    return {**head, "content": SIGNED, "stop_reason": "end_turn", "usage": {"input_tokens": 5, "output_tokens": 7}}


def messages_events() -> str:
    start = {**messages_answer(), "content": [], "stop_reason": None}
    said: list[dict[str, Any]] = [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Hm."}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "c2lnbmVk"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Hi"}},
        {"type": "content_block_stop", "index": 1},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7}},
        {"type": "message_stop"},
    ]
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in said)


@pytest.mark.parametrize("streamed", [False, True])
def test_signed_thinking_goes_back_to_its_provider(fault_server: FaultServer, monkeypatch: pytest.MonkeyPatch, streamed: bool) -> None:
    monkeypatch.setenv("ANTHROPIC_API_BASE", fault_server.base_url)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-0123456789")
    body: Any = messages_events() if streamed else messages_answer()
    headers = {"content-type": "text/event-stream" if streamed else "application/json"}
    fault_server.script(Fault(path="/messages", body=body, headers=headers), Fault(path="/messages", body=messages_answer()))
    model = ChatLLMMaster(model="claude-sonnet-4-5", max_tokens=2000, options={"thinking": {"type": "enabled", "budget_tokens": 1024}})
    answer = added(list(model.stream("Hello"))) if streamed else model.invoke("Hello")
    assert answer.content == "Hi"
    assert answer.additional_kwargs["reasoning_content"] == "Hm."
    model.invoke([HumanMessage("Hello"), answer, HumanMessage("And now?")])
    assert fault_server.requests[1].body["messages"][1] == {"role": "assistant", "content": SIGNED}


# The module itself.


def test_without_langchain_the_error_says_what_to_install() -> None:
    code = "import sys; sys.modules['langchain_core'] = None\nimport llm_master.langchain"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": ":".join(sys.path)}, timeout=60)
    assert done.returncode != 0
    assert "ImportError: llm_master.langchain needs langchain-core" in done.stderr and "'llm_master[langchain]'" in done.stderr


async def test_a_sync_stream_on_the_background_loop_itself_is_refused(model: ChatLLMMaster) -> None:
    from llm_master.background import run_in_background

    async def inside() -> None:
        with pytest.raises(ConfigurationError, match="its own event loop"):
            list(model.stream("Hello"))

    run_in_background(inside)


# A real server.


@pytest.mark.servers
async def test_a_real_server(llama: LlamaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMACPP_API_BASE", llama.base_url)
    model = ChatLLMMaster(model="llamacpp/tiny", temperature=0)
    answer = await model.ainvoke("What do you say?")
    assert answer.content == SENTENCE
    assert answer.usage_metadata["output_tokens"] > 0
    chunks = [chunk async for chunk in model.astream("What do you say?")]
    assert len(chunks) > 3
    total = added(chunks)
    assert total.content == SENTENCE
    assert total.usage_metadata["output_tokens"] == answer.usage_metadata["output_tokens"]
    assert total.response_metadata["finish_reason"] == "stop"
