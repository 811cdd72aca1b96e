"""YandexGPT: folders and URIs, keys and tokens, streams that repeat themselves, and what is refused before it is sent.

Sources: https://yandex.cloud/en/docs/ai-studio/text-generation/api-ref/TextGeneration/completion,
https://yandex.cloud/en/docs/ai-studio/operations/generation/create-prompt (what a stream may change),
https://yandex.cloud/en/docs/ai-studio/operations/generation/function-call
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers.format_yandex import FOLDER, YANDEX
from servers.scripted import ScriptedServer

from llm_master import (
    AuthenticationError,
    ConfigurationError,
    InvalidRequestError,
    LLMConfig,
    ModelConfig,
    ModelNotFoundError,
    ModelRegistry,
    PermissionDeniedError,
    ProviderError,
    QueryLLM,
    RateLimitError,
    ServerError,
    StreamInterruptedError,
)
from llm_master.providers.lines import LineParser
from llm_master.providers.yandex_answer import LineReader
from llm_master.testing import FakeClock

KEY = "AQVN-secret-0123456789"
MODEL = "yandex/yandexgpt"
WEATHER = {"type": "function", "function": {"name": "weather", "description": "W", "parameters": {"type": "object", "properties": {}}}}


class Yandex:
    """The provider and the server behind it."""

    def __init__(self, server: ScriptedServer, **environment: str) -> None:
        self.server = server
        variables = {"YANDEX_API_BASE": server.url, "YANDEX_API_KEY": KEY, "YANDEX_FOLDER_ID": FOLDER, **environment}
        variables = {name: value for name, value in variables.items() if value}
        self.llm = QueryLLM(LLMConfig(environment=variables, clock=FakeClock(auto_advance=True)))

    def says(self, text: str = "Hello.", **how: Any) -> None:
        self.server.answer_json(YANDEX.answer(text), **how)

    def refuses(self, status: int, message: str, grpc: int = 3, **how: Any) -> None:
        error = {"grpcCode": grpc, "httpCode": status, "message": message, "httpStatus": "…", "details": []}
        self.server.answer_json({"error": error}, status=status, **how)

    def streams(self, *lines: tuple[str, str], **how: Any) -> None:
        made = [json.dumps(YANDEX._result(text, (), f"ALTERNATIVE_STATUS_{status}")) + "\n" for text, status in lines]
        self.server.answer(*made, framing="chunked", **how)

    async def query(self, model: str = MODEL, **options: Any) -> Any:
        return await self.llm.query(model, prompt="Hi", **options)

    def body(self, messages: Any = None, model: str = MODEL, **options: Any) -> Any:
        return self.llm.plan(model, messages or [{"role": "user", "content": "Hi"}], **options).body


@pytest.fixture
def yandex(server: ScriptedServer) -> Yandex:
    return Yandex(server)


# Where it goes, and with what


async def test_a_request_as_the_reference_has_it(yandex: Yandex) -> None:
    yandex.says()
    answer = await yandex.query(temperature=0.6, max_tokens=2000)
    assert answer.content == "Hello."
    sent = yandex.server.request
    assert sent.path == "/foundationModels/v1/completion"
    assert (sent.headers["authorization"], sent.headers["x-folder-id"]) == (f"Api-Key {KEY}", FOLDER)
    assert sent.json == {
        "modelUri": f"gpt://{FOLDER}/yandexgpt/latest",
        "completionOptions": {"stream": False, "temperature": 0.6, "maxTokens": 2000},
        "messages": [{"role": "user", "text": "Hi"}],
    }


@pytest.mark.parametrize(
    "variables",
    [
        {"YANDEX_IAM_TOKEN": "any-token", "YANDEX_API_KEY": ""},
        {"YANDEX_API_KEY": "t1.9euelZqMkJ"},
    ],
)
def test_an_iam_token_is_a_bearer(server: ScriptedServer, variables: dict[str, str]) -> None:
    plan = Yandex(server, **variables).llm.plan(MODEL, prompt="Hi")
    assert plan.headers["Authorization"].startswith("Bearer …")


@pytest.mark.parametrize(
    ("name", "uri"),
    [
        ("yandex/yandexgpt", f"gpt://{FOLDER}/yandexgpt/latest"),
        ("yandexgpt", f"gpt://{FOLDER}/yandexgpt/latest"),
        ("yandexgpt-lite", f"gpt://{FOLDER}/yandexgpt-lite/latest"),
        ("yandexgpt/rc", f"gpt://{FOLDER}/yandexgpt/rc"),
        ("yandex/yandexgpt/rc", f"gpt://{FOLDER}/yandexgpt/rc"),
        ("yandex/yandexgpt-lite/deprecated", f"gpt://{FOLDER}/yandexgpt-lite/deprecated"),
        ("yandex/llama", f"gpt://{FOLDER}/llama/latest"),
        ("yandex/yandexgpt-lite/latest@tamr3n", f"gpt://{FOLDER}/yandexgpt-lite/latest@tamr3n"),
        ("gpt://b1gother/yandexgpt/rc", "gpt://b1gother/yandexgpt/rc"),
        ("yandex/ds://bt1mine", "ds://bt1mine"),
        ("yandex/ds://bt1mine/latest", "ds://bt1mine/latest"),
        ("yandex", f"gpt://{FOLDER}/yandexgpt-lite/latest"),
    ],
)
def test_names_and_uris(yandex: Yandex, name: str, uri: str) -> None:
    assert yandex.body(model=name)["modelUri"] == uri


async def test_without_a_folder_nothing_is_sent(server: ScriptedServer) -> None:
    yandex = Yandex(server, YANDEX_FOLDER_ID="")
    with pytest.raises(ConfigurationError, match=r"'yandexgpt' needs the folder.*\$YANDEX_FOLDER_ID"):
        await yandex.query()
    with pytest.raises(ConfigurationError, match="YANDEX_FOLDER_ID"):
        yandex.body()
    assert server.requests == []
    yandex.says()
    assert (await yandex.query("gpt://b1gother/yandexgpt")).content == "Hello."
    assert "x-folder-id" not in server.request.headers


@pytest.mark.parametrize(
    ("status", "grpc", "message", "kind"),
    [
        (400, 3, "Specified folder ID 'x' does not match with service account folder ID 'y'", PermissionDeniedError),
        (403, 7, "Permission to [resource-manager.folder x] denied", PermissionDeniedError),
        (403, 7, "Permission denied", PermissionDeniedError),
        (404, 5, "Folder x not found", ModelNotFoundError),
    ],
)
async def test_a_wrong_folder_is_named_with_the_remedy(
    yandex: Yandex, status: int, grpc: int, message: str, kind: type[ProviderError]
) -> None:
    yandex.refuses(status, message, grpc)
    with pytest.raises(kind) as caught:
        await yandex.query()
    assert type(caught.value) is kind and caught.value.status == status
    for part in (message, "$YANDEX_FOLDER_ID", FOLDER):
        assert part in str(caught.value)


async def test_a_token_that_has_ended_says_what_to_do(server: ScriptedServer) -> None:
    yandex = Yandex(server, YANDEX_API_KEY="", YANDEX_IAM_TOKEN="t1.ended")
    yandex.refuses(401, "The token has expired", 16)
    with pytest.raises(AuthenticationError, match="expired.*12 hours.*API key"):
        await yandex.query()
    yandex = Yandex(server)
    yandex.refuses(401, "Unknown api key 'AQVN****'", 16)
    with pytest.raises(AuthenticationError, match="Unknown api key") as caught:
        await yandex.query()
    assert "IAM" not in str(caught.value)


# What goes out


def test_options_in_the_apis_words(yandex: Yandex) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
    sent = yandex.body(
        tools=[{"type": "function", "function": {**WEATHER["function"], "strict": True}}],
        tool_choice="required",
        parallel_tool_calls=False,
        reasoning_effort="medium",
        max_completion_tokens=9,
        n=1,
        response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": schema}},
        stream=True,
    )
    assert sent == {
        "modelUri": f"gpt://{FOLDER}/yandexgpt/latest",
        "completionOptions": {"stream": True, "maxTokens": 9, "reasoningOptions": {"mode": "ENABLED_HIDDEN"}},
        "messages": [{"role": "user", "text": "Hi"}],
        "tools": [{"function": {**WEATHER["function"], "strict": True}}],
        "toolChoice": {"mode": "REQUIRED"},
        "parallelToolCalls": False,
        "jsonSchema": {"schema": schema},
    }
    assert yandex.body(reasoning_effort="none")["completionOptions"]["reasoningOptions"] == {"mode": "DISABLED"}
    assert yandex.body(response_format={"type": "json_object"})["jsonObject"] is True


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"stop": ["END"]}, "'stop'"),
        ({"top_p": 0.5}, "'top_p'"),
        ({"n": 2}, "'n'"),
        ({"tools": [{"type": "web_search"}]}, "web_search"),
        ({"reasoning_effort": "much"}, "reasoning_effort is 'much'"),
        ({"tool_choice": "sometimes", "tools": [WEATHER]}, "tool_choice is 'sometimes'"),
    ],
)
def test_what_cannot_be_carried_is_refused_by_name(yandex: Yandex, options: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidRequestError, match=named):
        yandex.body(**options)


def call(name: str, function: str, arguments: str = "{}") -> dict[str, Any]:
    return {"id": name, "type": "function", "function": {"name": function, "arguments": arguments}}


CALLED: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Both?"},
    {"role": "assistant", "content": "I look.", "tool_calls": [call("a", "weather", '{"city":"Omsk"}'), call("b", "weather")]},
    {"role": "tool", "tool_call_id": "b", "content": "second"},
    {"role": "tool", "tool_call_id": "a", "content": "first"},
    {"role": "user", "content": [{"type": "text", "text": "And?"}]},
]


def test_calls_and_results_in_their_order(yandex: Yandex) -> None:
    assert yandex.body(CALLED)["messages"] == [
        {"role": "system", "text": "Be brief."},
        {"role": "user", "text": "Both?"},
        {"role": "assistant", "text": "I look."},
        {
            "role": "assistant",
            "toolCallList": {
                "toolCalls": [
                    {"functionCall": {"name": "weather", "arguments": {"city": "Omsk"}}},
                    {"functionCall": {"name": "weather", "arguments": {}}},
                ]
            },
        },
        {
            "role": "assistant",
            "toolResultList": {
                "toolResults": [
                    {"functionResult": {"name": "weather", "content": "first"}},
                    {"functionResult": {"name": "weather", "content": "second"}},
                ]
            },
        },
        {"role": "user", "text": "And?"},
    ]


@pytest.mark.parametrize(
    ("messages", "named"),
    [
        (CALLED[:4], "without the result of tool call 'a'"),
        ([*CALLED[:4], CALLED[5]], r"messages\[4\]: the result of tool call 'a' is missing"),
        ([CALLED[1], CALLED[3]], r"messages\[1\] is the result of tool call 'b'"),
        ([CALLED[0]], "add a user message"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}]}], "image_url"),
    ],
)
def test_messages_that_are_none(yandex: Yandex, messages: Any, named: str) -> None:
    with pytest.raises(InvalidRequestError, match=named):
        yandex.body(messages)


# What comes back


@pytest.mark.parametrize("wrapped", [True, False])
async def test_an_answer_with_or_without_the_object_around_it(yandex: Yandex, wrapped: bool) -> None:
    content = YANDEX.answer("Hello.")
    yandex.server.answer_json(content if wrapped else content["result"])
    answer = await yandex.query()
    assert (answer.content, answer.finish_reason, answer.usage.total_tokens) == ("Hello.", "stop", 150)


@pytest.mark.parametrize(
    ("given", "found"), [("7", 7), (7, 7), (7.0, 7), (None, None), ("", None), ("many", None), ("-1", None), ("²", None), ([], None)]
)
async def test_counts_come_as_strings(yandex: Yandex, given: Any, found: int | None) -> None:
    content = YANDEX.answer("Hello.")
    content["result"]["usage"] = {"inputTextTokens": given, "completionTokens": "2", "totalTokens": None, "completionTokensDetails": None}
    yandex.server.answer_json(content)
    answer = await yandex.query()
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.reasoning_tokens) == (found, 2, None)


async def test_the_cost_is_in_roubles(yandex: Yandex) -> None:
    ModelRegistry.register("yandex/yandexgpt", ModelConfig(input_price_per_million=1200, output_price_per_million=1200))
    yandex.says()
    answer = await yandex.query()
    assert (answer.cost, answer.receipt.currency) == (Decimal("0.18"), "RUB")


# Streams


async def said_by(yandex: Yandex) -> tuple[list[str], Any]:
    pieces = []
    async with yandex.llm.stream(MODEL, prompt="Hi") as stream:
        async for piece in stream:
            pieces.append(piece)
    return pieces, stream.response


async def test_of_each_line_only_what_is_new_is_handed_out(yandex: Yandex) -> None:
    yandex.streams(("He", "PARTIAL"), ("Hello", "PARTIAL"), ("Hello", "PARTIAL"), ("Hello, world.", "FINAL"))
    pieces, answer = await said_by(yandex)
    assert (pieces, answer.content, answer.finish_reason) == (["He", "llo", ", world."], "Hello, world.", "stop")
    assert yandex.server.request.json["completionOptions"] == {"stream": True}


async def test_a_line_that_takes_something_back_is_waited_out(yandex: Yandex) -> None:
    """Until the final one, results may change: what was handed out stays, and the last line decides."""
    yandex.streams(("He", "PARTIAL"), ("Hallo", "PARTIAL"), ("H", "PARTIAL"), ("Hello", "PARTIAL"), ("Hello.", "FINAL"))
    pieces, answer = await said_by(yandex)
    assert (pieces, answer.content) == (["He", "llo", "."], "Hello.")


async def test_an_end_that_is_not_what_was_said_interrupts(yandex: Yandex) -> None:
    yandex.streams(("He", "PARTIAL"), ("Hallo.", "FINAL"))
    with pytest.raises(StreamInterruptedError, match="changed what it had said.*Hallo") as caught:
        await said_by(yandex)
    assert caught.value.response.content == "He"
    assert caught.value.response.usage.output_tokens == 50
    assert len(yandex.server.requests) == 1


async def test_space_at_the_end_is_no_change(yandex: Yandex) -> None:
    yandex.streams(("Hello \n", "PARTIAL"), ("Hello", "FINAL"))
    assert (await said_by(yandex))[0] == ["Hello \n"]


async def test_a_filter_that_steps_in_is_told(yandex: Yandex) -> None:
    yandex.streams(("He", "PARTIAL"), ("I cannot speak of that.", "CONTENT_FILTER"))
    pieces, answer = await said_by(yandex)
    assert (pieces, answer.finish_reason) == (["He"], "content_filter")


async def test_an_error_in_a_line_is_that_error(yandex: Yandex) -> None:
    for grpc, http, kind in ((8, 429, RateLimitError), (16, None, AuthenticationError), (7, 403, PermissionDeniedError)):
        error = {"grpcCode": grpc, "message": "no", **({"httpCode": http} if http else {})}
        yandex = Yandex(yandex.server, YANDEX_API_KEY=f"{KEY}{grpc}", LLM_MASTER_MAX_ATTEMPTS="1")
        yandex.server.answer_json({"error": error})
        with pytest.raises(kind):
            await said_by(yandex)


async def test_what_is_no_json_is_an_error(yandex: Yandex) -> None:
    for body in ("{", "<html>", "[]", '{"result": 7}', '{"result": {"alternatives": []}}'):
        yandex.server.answer(body, times=None)
        with pytest.raises(ServerError):
            await said_by(yandex)
        with pytest.raises(ServerError):
            await yandex.query()
        yandex.server.reset()


SAID = st.text('ab "\\n\\\\é🙂\u2028', max_size=4)


@given(st.lists(SAID, min_size=1, max_size=6), st.integers(1, 9), st.booleans(), st.booleans())
def test_what_is_handed_out_is_the_last_line_or_the_stream_is_interrupted(texts: list[str], size: int, escaped: bool, grow: bool) -> None:
    if grow:  # as they nearly always do
        texts = ["".join(texts[: position + 1]) for position in range(len(texts))]
    made = [YANDEX._result(text, (), "ALTERNATIVE_STATUS_PARTIAL") for text in texts]
    made.append(YANDEX._result(texts[-1], (), "ALTERNATIVE_STATUS_FINAL"))
    stream = "".join(json.dumps(line, ensure_ascii=escaped) + "\n" for line in made).encode()
    parser, reader, said = LineParser(), LineReader("m", 200, None), ""
    for position in range(0, len(stream), size):
        said += "".join(reader.read(parser.feed(stream[position : position + size])))
    assert not grow or reader.failure is None
    if reader.failure is None:
        assert reader.done and (said == texts[-1] or said.rstrip() == texts[-1].rstrip() or not texts[-1])
    else:
        assert not texts[-1].startswith(said)


@pytest.mark.parametrize("order", ["usage first", "spaces", "more alternatives", "text elsewhere"])
async def test_however_a_line_is_written(yandex: Yandex, order: str) -> None:
    lines = []
    for text, status in (("He", "PARTIAL"), ("Hello", "PARTIAL"), ("Hello.", "FINAL")):
        line = YANDEX._result(text, (), f"ALTERNATIVE_STATUS_{status}")
        result = line["result"]
        if order == "usage first":
            line = {"result": {"usage": {**result["usage"], "completionTokens": str(len(text))}, "alternatives": result["alternatives"]}}
        elif order == "more alternatives":
            result["alternatives"].append({"message": {"role": "assistant", "text": "Other"}, "status": "ALTERNATIVE_STATUS_FINAL"})
        elif order == "text elsewhere":
            line = {"meta": {"text": "He"}, **line}
        lines.append(json.dumps(line, separators=(", ", " : ") if order == "spaces" else None) + "\n")
    yandex.server.answer(*lines, framing="chunked")
    pieces, answer = await said_by(yandex)
    assert (pieces, answer.finish_reason) == (["He", "llo", "."], "stop")


TIME = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}
FORM = {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA}}


async def test_one_conversation(yandex: Yandex) -> None:
    """A system message, two tools at once, their results, and a streamed answer of a form."""
    messages: list[Any] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Which city?"}]
    yandex.server.answer_json(YANDEX.answer("", [("", "weather", {"city": "Omsk"}), ("", "clock", {})]))
    first = await yandex.llm.query(MODEL, messages, tools=[WEATHER, TIME])
    messages += [first.message, *({"role": "tool", "tool_call_id": made.id, "content": made.name} for made in first.tool_calls)]
    yandex.streams(('{"city": "Om', "PARTIAL"), ('{"city": "Omsk"}', "FINAL"))
    async with yandex.llm.stream(MODEL, messages, tools=[WEATHER, TIME], response_format=FORM) as stream:
        assert [piece async for piece in stream] == ['{"city": "Om', 'sk"}']
    assert stream.response.parsed == {"city": "Omsk"}
    said = YANDEX.read("/completion", {**yandex.server.requests[1].json, "modelUri": f"gpt://{FOLDER}/yandexgpt/latest"})
    assert (said.system, said.user, said.calls) == ("Be brief.", ["Which city?"], [("weather", {"city": "Omsk"}), ("clock", {})])
    assert (said.results, said.schema) == ({"weather": "weather", "clock": "clock"}, SCHEMA)


# Beside the chat


async def test_embeddings(yandex: Yandex) -> None:
    for number in ("3", "4"):
        yandex.server.answer_json({"embedding": [0.5, -0.25], "numTokens": number, "modelVersion": "1"})
    answer = await yandex.llm.embed("text-search-doc", ["a", "b"], dimensions=2)
    assert [list(vector) for vector in answer.embeddings] == [[0.5, -0.25]] * 2
    assert answer.usage.input_tokens == 7
    first, second = yandex.server.requests
    assert first.path == "/foundationModels/v1/textEmbedding"
    assert sorted(request.json["text"] for request in (first, second)) == ["a", "b"]
    assert first.json["modelUri"] == f"emb://{FOLDER}/text-search-doc/latest" and first.json["dim"] == 2


async def test_a_vector_that_is_none(yandex: Yandex) -> None:
    for body in ({"embedding": []}, {}, {"embedding": ["x"]}):
        yandex.server.answer_json(body, times=None)
        with pytest.raises(ServerError):
            await yandex.llm.embed("text-search-doc", ["a"])
        yandex.server.reset()


async def test_tokens_are_counted_by_the_provider(yandex: Yandex) -> None:
    yandex.server.answer_json({"tokens": [{"id": "1", "text": "<s>", "special": True}, {"id": "2", "text": "Hi"}], "modelVersion": "1"})
    count = await yandex.llm.count_tokens(MODEL, prompt="Hi")
    assert (count.tokens, count.exact) == (2, True)
    sent = yandex.server.request
    assert sent.path == "/foundationModels/v1/tokenizeCompletion"
    assert sent.json["messages"] == [{"role": "user", "text": "Hi"}]
