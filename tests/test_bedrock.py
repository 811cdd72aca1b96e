"""Bedrock: frames, signatures, regions, and what only its Converse API has.

The shapes are those of https://docs.aws.amazon.com/bedrock/latest/APIReference/; signatures and frames are checked against botocore.
"""

from __future__ import annotations

import asyncio
import base64
import json
import struct
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers.format_bedrock import CONVERSE, frame
from servers.formats import CHAT, RESPONSES
from servers.media import PNG
from servers.scripted import Request, ScriptedServer

from llm_master import (
    PROVIDER_CONFIGS,
    AuthenticationError,
    ConfigurationError,
    ContextWindowExceededError,
    InvalidRequestError,
    LLMConfig,
    LLMResponse,
    MissingApiKeyError,
    ModelConfig,
    ModelNotFoundError,
    ModelRegistry,
    PermissionDeniedError,
    ProviderError,
    QueryLLM,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    StreamInterruptedError,
)
from llm_master.provider_configs import effective
from llm_master.providers.bedrock import BedrockProvider
from llm_master.providers.bedrock_frames import FrameParser
from llm_master.testing import FakeClock

botocore = pytest.importorskip("botocore", reason="the extra bedrock is not installed")

ID, SECRET, TOKEN = "AKIDEXAMPLE123456789", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "IQoJb3JpZ2luX2VjEXAMPLE//////////token=="
KEYS = {"AWS_ACCESS_KEY_ID": ID, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "eu-central-1"}
MODEL = "bedrock/us.anthropic.claude-sonnet-4-5-20250929-v1:0"
ARN = "arn:aws:bedrock:us-west-2:123456789012:application-inference-profile/abc123"
BEARER = "bedrock-api-key-0123456789"


def over(server: ScriptedServer, *, row: str = "BEDROCK", **environment: str) -> QueryLLM:
    settings = {f"{row}_API_BASE": server.url, **(environment or {"BEDROCK_API_KEY": BEARER})}
    return QueryLLM(LLMConfig(environment=settings, clock=FakeClock(auto_advance=True)))


def plan_of(model: str = MODEL, messages: Any = None, **options: Any) -> Any:
    llm = QueryLLM(LLMConfig(environment={"BEDROCK_API_KEY": BEARER, "AWS_REGION": "us-east-1"}))
    return llm.plan(model, messages, **options) if messages is not None else llm.plan(model, prompt="Hello", **options)


async def streamed(server: ScriptedServer, *pieces: bytes, **options: Any) -> tuple[list[str], LLMResponse]:
    server.answer_sse(*pieces, headers={"content-type": CONVERSE.stream_type})
    async with over(server).stream(MODEL, prompt="Hello", **options) as stream:
        texts = [piece async for piece in stream]
    return texts, stream.response


# Frames

PAYLOADS = [{"p": "a" * 20}, {"contentBlockIndex": 0, "delta": {"text": "Grüße 世界"}}, {"contentBlockIndex": 0, "delta": {"text": ""}}, {}]


@given(cuts=st.lists(st.integers(0, 10_000)), order=st.permutations(range(len(PAYLOADS))))
def test_frames_are_read_as_botocore_reads_them(cuts: list[int], order: list[int]) -> None:
    from botocore.eventstream import EventStreamBuffer

    data = b"".join(frame("contentBlockDelta", PAYLOADS[number]) for number in order)
    places = sorted({0, len(data), *(cut % len(data) for cut in cuts)})
    parser, theirs = FrameParser(), EventStreamBuffer()
    found: list[Any] = []
    for begins, ends in zip(places, places[1:], strict=False):
        found += parser.feed(data[begins:ends])
        theirs.add_data(data[begins:ends])
    assert parser.end() == []
    expected = list(theirs)
    assert [bytes(one) for one in found] == [event.payload for event in expected]
    assert [(one.kind, one.name) for one in found] == [(event.headers[":message-type"], event.headers[":event-type"]) for event in expected]


@given(st.binary(max_size=200), st.integers(0, 10_000), st.integers(1, 255))
def test_no_damage_goes_unseen(junk: bytes, place: int, flip: int) -> None:
    whole = frame("contentBlockDelta", PAYLOADS[1])
    damaged = bytearray(whole)
    damaged[place % len(whole)] ^= flip
    found = FrameParser().feed(bytes(damaged) + whole)
    assert not found or found[0].kind == "damaged"
    FrameParser().feed(junk)  # whatever it is, it is no exception


def test_headers_of_all_types_are_passed_over() -> None:
    import binascii

    values = [
        b"\x00",
        b"\x01",
        b"\x02\x07",
        b"\x03\x00\x07",
        b"\x04" + bytes(4),
        b"\x05" + bytes(8),
        b"\x06\x00\x02ab",
        b"\x08" + bytes(8),
        b"\x09" + bytes(16),
    ]
    headers = b"".join(b"\x01h" + value for value in values)
    for name, value in ((":message-type", "error"), (":error-code", "InternalError"), (":error-message", "It broke.")):
        headers += bytes([len(name)]) + name.encode() + struct.pack(">BH", 7, len(value)) + value.encode()
    lengths = struct.pack(">II", len(headers) + 16, len(headers))
    message = lengths + struct.pack(">I", binascii.crc32(lengths)) + headers
    (found,) = FrameParser().feed(message + struct.pack(">I", binascii.crc32(message)))
    assert (found.kind, found.name, json.loads(found)) == ("error", "InternalError", {"message": "It broke."})


async def test_a_stream_that_is_damaged_is_no_answer(server: ScriptedServer) -> None:
    events = CONVERSE.stream("Hello, ", "world.")
    data = CONVERSE.wire(*events)
    cut = data.index(b"world.")
    server.answer_sse(data[:cut] + b"w0rld." + data[cut + 6 :], headers={"content-type": CONVERSE.stream_type})
    with pytest.raises(StreamInterruptedError, match="checksum") as caught:
        async with over(server).stream(MODEL, prompt="Hello") as stream:
            async for _ in stream:
                pass
    assert caught.value.response is not None and caught.value.response.content == "Hello, "


# Signatures


def signed_by_botocore(
    request: Request, host: str, region: str, token: str | None, service: str = "bedrock", body: bytes | None = None
) -> str:
    """What the service works out from a request that it got: the signature must be the same."""
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    _, _, rest = request.headers["authorization"].partition("SignedHeaders=")
    names = rest.partition(",")[0].split(";")
    assert {"host", "x-amz-date"} <= set(names)
    headers = {name: request.headers[name] for name in names}
    again = AWSRequest(request.method, f"http://{host}{request.path}", data=request.body if body is None else body, headers=headers)
    again.context["timestamp"] = request.headers["x-amz-date"]
    auth = SigV4Auth(Credentials(ID, SECRET, token), service, region)
    signature = auth.signature(auth.string_to_sign(again, auth.canonical_request(again)), again)
    return f"AWS4-HMAC-SHA256 Credential={auth.scope(again)}, SignedHeaders={';'.join(names)}, Signature={signature}"


@pytest.mark.parametrize("token", [None, TOKEN])
@pytest.mark.parametrize("model", ["us.anthropic.claude-sonnet-4-5-20250929-v1:0", ARN, "amazon.nova-lite-v1:0"])
@pytest.mark.parametrize("how", ["query", "stream", "count"])
async def test_requests_are_signed_as_botocore_signs_them(server: ScriptedServer, how: str, model: str, token: str | None) -> None:
    llm = over(server, **KEYS, **({"AWS_SESSION_TOKEN": token} if token else {}))
    if how == "query":
        server.answer_json(CONVERSE.answer("Hello."))
        assert (await llm.query(f"bedrock/{model}", prompt="Grüße")).content == "Hello."
    elif how == "count":
        server.answer_json({"inputTokens": 7})
        assert (await llm.count_tokens(f"bedrock/{model}", prompt="Grüße")).tokens == 7
    else:
        server.answer_sse(CONVERSE.wire(*CONVERSE.stream("Hello.")), headers={"content-type": CONVERSE.stream_type})
        async with llm.stream(f"bedrock/{model}", prompt="Grüße") as stream:
            assert "".join([piece async for piece in stream]) == "Hello."
    request = server.request
    ending = {"query": "converse", "stream": "converse-stream", "count": "count-tokens"}[how]
    assert request.path == f"/model/{quote(model, safe='')}/{ending}"
    region = "us-west-2" if model == ARN else "eu-central-1"
    host = server.url.removeprefix("http://")
    assert request.headers["authorization"] == signed_by_botocore(request, host, region, token)
    assert request.headers.get("x-amz-security-token") == token
    # It is over the very bytes: any other body has another.
    assert request.headers["authorization"] != signed_by_botocore(request, host, region, token, body=b"{}")


@pytest.mark.parametrize("model", ["us.anthropic.claude-sonnet-4-5-20250929-v1:0", ARN])
async def test_the_request_is_the_one_that_aws_own_client_makes(server: ScriptedServer, model: str) -> None:
    """And what the scripted server answers is what that client reads, so that it stands for the service."""
    from botocore.session import Session

    def ask() -> tuple[Any, list[str]]:
        session = Session()
        session.set_credentials(ID, SECRET, TOKEN)
        client = session.create_client("bedrock-runtime", region_name="us-west-2", endpoint_url=server.url)
        content: Any = [{"image": {"format": "png", "source": {"bytes": PNG}}}, {"text": "Grüße"}]
        said: Any = {
            "messages": [{"role": "user", "content": content}],
            "system": [{"text": "Be brief."}],
            "inferenceConfig": {"maxTokens": 9},
        }
        whole = client.converse(modelId=model, **said)
        events = list(client.converse_stream(modelId=model, **said)["stream"])
        client.close()
        return whole, [event["contentBlockDelta"]["delta"]["text"] for event in events if "contentBlockDelta" in event]

    server.answer_json(CONVERSE.answer("Hello."), times=1)
    server.answer_sse(CONVERSE.wire(*CONVERSE.stream("Hel", "lo.")), headers={"content-type": CONVERSE.stream_type})
    whole, texts = await asyncio.to_thread(ask)
    assert (whole["output"]["message"]["content"], whole["stopReason"], texts) == ([{"text": "Hello."}], "end_turn", ["Hel", "lo."])
    llm = over(server, **KEYS, AWS_SESSION_TOKEN=TOKEN)
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(PNG).decode()}"}}
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": [picture, {"type": "text", "text": "Grüße"}]}]
    server.answer_json(CONVERSE.answer("Hello."))
    server.answer_sse(CONVERSE.wire(*CONVERSE.stream("Hel", "lo.")), headers={"content-type": CONVERSE.stream_type})
    await llm.query(f"bedrock/{model}", messages, max_tokens=9)
    async with llm.stream(f"bedrock/{model}", messages, max_tokens=9) as stream:
        assert [piece async for piece in stream] == texts
    theirs, theirs_streamed, ours, ours_streamed = server.requests
    for one, other in ((theirs, ours), (theirs_streamed, ours_streamed)):
        assert (one.method, one.path, one.json) == (other.method, other.path, other.json)
        assert one.headers["authorization"].partition(" ")[0] == other.headers["authorization"].partition(" ")[0]


async def test_a_signature_is_made_anew_for_each_request(server: ScriptedServer) -> None:
    llm = over(server, **KEYS)
    server.answer_json({"message": "Try again."}, status=500)
    server.answer_json(CONVERSE.answer("Hello."), times=None)
    await llm.query(MODEL, prompt="one")
    await llm.query(MODEL, prompt="two")
    first, again, other = server.requests
    assert first.body == again.body != other.body
    assert first.headers["authorization"] != other.headers["authorization"]


async def test_neither_secret_nor_token_is_shown(server: ScriptedServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    llm = over(server, **KEYS, AWS_SESSION_TOKEN=TOKEN)
    said = f"The request signature does not match. The Canonical String should have been 'x-amz-security-token:{TOKEN}' {SECRET}"
    server.answer_json({"message": said}, status=403, headers={"x-amzn-errortype": "InvalidSignatureException"}, times=None)
    plan = llm.plan(MODEL, prompt="Hello")
    with pytest.raises(AuthenticationError, match="Canonical String") as caught:
        await llm.query(MODEL, prompt="Hello")
    shown = f"{caught.value}{caught.value!r}{caught.value.receipt!r}{plan!r}{llm!r}{llm.config!r}{caplog.text}{vars(caught.value)}"
    assert SECRET not in shown and TOKEN not in shown
    assert plan.headers["Authorization"] == "…"
    row = effective(llm.config).rows["bedrock"]
    assert SECRET not in repr(row) + repr(BedrockProvider(attrs.evolve(row, api_key=f"aws-keys:{ID}:{SECRET}"))._credentials._fixed)  # type: ignore[union-attr]
    assert f"{caught.value.receipt.attempts[0].key}".startswith("AWS_ACCESS_KEY_ID …")  # type: ignore[union-attr]


# Who asks


@pytest.mark.parametrize("variable", ["BEDROCK_API_KEY", "AWS_BEARER_TOKEN_BEDROCK"])
async def test_an_api_key_needs_no_botocore(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    for name in [name for name in sys.modules if name.startswith("botocore")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "botocore", None)
    # It goes before credentials, as AWS's own libraries have it.
    llm = over(server, **{variable: BEARER}, **KEYS)
    server.answer_json(CONVERSE.answer("Hello."))
    await llm.query(MODEL, prompt="Hello")
    assert server.request.headers["authorization"] == f"Bearer {BEARER}"
    with pytest.raises(ConfigurationError, match=r"llm_master\[bedrock\].*AWS_BEARER_TOKEN_BEDROCK"):
        await over(server, **KEYS).query(MODEL, prompt="Hello")
    assert len(server.requests) == 1


def test_without_any_of_them_it_is_said_what_to_set() -> None:
    with pytest.raises(MissingApiKeyError) as caught:
        QueryLLM(LLMConfig(environment={"AWS_REGION": "us-east-1"})).plan(MODEL, prompt="Hello")
    for name in ("BEDROCK_API_KEY", "AWS_BEARER_TOKEN_BEDROCK", "AWS_ACCESS_KEY_ID", "AWS_PROFILE"):
        assert name in str(caught.value)
    config = LLMConfig(environment=KEYS)
    assert config.validate()["bedrock"] is config.validate()["bedrock_openai"] is True


def test_half_a_pair_of_keys_is_told() -> None:
    with pytest.raises(ConfigurationError, match="AWS_SECRET_ACCESS_KEY"):
        QueryLLM(LLMConfig(environment={"AWS_ACCESS_KEY_ID": ID, "AWS_REGION": "us-east-1"})).plan(MODEL, prompt="Hello")


PROFILES = """\
[default]
region = us-east-2

[profile work]
region = ap-southeast-1
"""
SECRETS = f"""\
[default]
aws_access_key_id = {ID}
aws_secret_access_key = {SECRET}

[work]
aws_access_key_id = {ID}
aws_secret_access_key = {SECRET}
aws_session_token = {TOKEN}
"""


@pytest.fixture
def profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, name, text in (("AWS_CONFIG_FILE", "config", PROFILES), ("AWS_SHARED_CREDENTIALS_FILE", "credentials", SECRETS)):
        (tmp_path / name).write_text(text)
        monkeypatch.setenv(variable, str(tmp_path / name))


@pytest.mark.parametrize(
    ("environment", "region", "token"),
    [
        ({"BEDROCK_API_KEY": "aws-credentials"}, "us-east-2", None),
        ({"BEDROCK_API_KEY": "aws-credentials:work"}, "ap-southeast-1", TOKEN),
        ({"AWS_PROFILE": "work"}, "ap-southeast-1", TOKEN),
        ({"AWS_PROFILE": "work", "AWS_REGION": "eu-west-3"}, "eu-west-3", TOKEN),
        ({"AWS_PROFILE": "work", "AWS_DEFAULT_REGION": "eu-west-3"}, "eu-west-3", TOKEN),
    ],
)
async def test_a_profile_signs_in_its_region(
    server: ScriptedServer, profiles: None, environment: dict[str, str], region: str, token: str | None
) -> None:
    llm = over(server, **environment)
    server.answer_json(CONVERSE.answer("Hello."), times=None)
    await asyncio.gather(*(llm.query(MODEL, prompt="Hello") for _ in range(3)))
    for request in server.requests:
        assert request.headers["authorization"] == signed_by_botocore(request, server.url.removeprefix("http://"), region, token)
    # Without an address of one's own it is the region's.
    plan = QueryLLM(LLMConfig(environment=environment)).plan("bedrock/x", prompt="Hello")
    assert plan.url == f"https://bedrock-runtime.{region}.amazonaws.com/model/x/converse"


async def test_a_profile_that_there_is_not(server: ScriptedServer, profiles: None) -> None:
    with pytest.raises(ConfigurationError, match=r"nobody.*AWS_PROFILE"):
        await over(server, AWS_PROFILE="nobody").query(MODEL, prompt="Hello")
    assert server.requests == []


async def test_no_credentials_anywhere(server: ScriptedServer) -> None:
    with pytest.raises(ConfigurationError, match="no AWS credentials.*AWS_ACCESS_KEY_ID.*AWS_BEARER_TOKEN_BEDROCK"):
        await over(server, BEDROCK_API_KEY="aws-credentials", AWS_REGION="us-east-1").query(MODEL, prompt="Hello")
    assert server.requests == []


async def test_credentials_that_end_are_renewed(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore import session
    from botocore.credentials import RefreshableCredentials

    made = []

    def fresh() -> dict[str, str]:
        made.append(f"token-{len(made) + 1}")
        until = datetime.now(UTC) + timedelta(hours=1 if len(made) > 1 else 0, seconds=30)
        return {"access_key": ID, "secret_key": SECRET, "token": made[-1], "expiry_time": until.isoformat()}

    known = RefreshableCredentials.create_from_metadata(metadata=fresh(), refresh_using=fresh, method="test")
    monkeypatch.setattr(session.Session, "get_credentials", lambda self: known)
    llm = over(server, BEDROCK_API_KEY="aws-credentials", AWS_REGION="us-east-1")
    server.answer_json(CONVERSE.answer("Hello."), times=None)
    for _ in range(3):
        await llm.query(MODEL, prompt="Hello")
    assert [request.headers["x-amz-security-token"] for request in server.requests] == ["token-2"] * 3


async def test_credentials_that_cannot_be_had(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore import exceptions, session

    def fail(self: Any) -> Any:
        raise exceptions.UnauthorizedSSOTokenError

    monkeypatch.setattr(session.Session, "get_credentials", fail)
    with pytest.raises(AuthenticationError, match="SSO"):
        await over(server, BEDROCK_API_KEY="aws-credentials", AWS_REGION="us-east-1").query(MODEL, prompt="Hello")


# Where


@pytest.mark.parametrize(
    ("model", "environment", "url"),
    [
        (
            "bedrock/amazon.nova-lite-v1:0",
            {"AWS_REGION": "us-east-1"},
            "https://bedrock-runtime.us-east-1.amazonaws.com/model/amazon.nova-lite-v1:0/converse",
        ),
        (
            "amazon.nova-lite-v1:0",
            {"AWS_REGION": "us-east-1"},
            "https://bedrock-runtime.us-east-1.amazonaws.com/model/amazon.nova-lite-v1:0/converse",
        ),
        (
            "us.anthropic.claude-x-v2:0",
            {"AWS_DEFAULT_REGION": "us-east-1"},
            "https://bedrock-runtime.us-east-1.amazonaws.com/model/us.anthropic.claude-x-v2:0/converse",
        ),
        (
            f"bedrock/{ARN}",
            {"AWS_REGION": "us-east-1"},
            f"https://bedrock-runtime.us-west-2.amazonaws.com/model/{ARN.replace('/', '%2F')}/converse",
        ),
        (f"bedrock/{ARN}", {}, f"https://bedrock-runtime.us-west-2.amazonaws.com/model/{ARN.replace('/', '%2F')}/converse"),
        (
            "bedrock/x",
            {"BEDROCK_API_BASE": "https://vpce-1.bedrock-runtime.us-east-1.vpce.amazonaws.com"},
            "https://vpce-1.bedrock-runtime.us-east-1.vpce.amazonaws.com/model/x/converse",
        ),
        (
            "bedrock/x",
            {"AWS_ENDPOINT_URL_BEDROCK_RUNTIME": "https://bedrock-runtime-fips.us-east-1.amazonaws.com"},
            "https://bedrock-runtime-fips.us-east-1.amazonaws.com/model/x/converse",
        ),
        (
            "bedrock_openai/openai.gpt-oss-20b-1:0",
            {"AWS_REGION": "us-west-2"},
            "https://bedrock-runtime.us-west-2.amazonaws.com/openai/v1/chat/completions",
        ),
        (
            "bedrock_openai/responses/openai.gpt-6",
            {"AWS_REGION": "us-west-2"},
            "https://bedrock-runtime.us-west-2.amazonaws.com/openai/v1/responses",
        ),
    ],
)
@pytest.mark.parametrize("key", [{"AWS_BEARER_TOKEN_BEDROCK": BEARER}, {"AWS_ACCESS_KEY_ID": ID, "AWS_SECRET_ACCESS_KEY": SECRET}])
def test_where_a_model_is_asked(model: str, environment: dict[str, str], url: str, key: dict[str, str]) -> None:
    plan = QueryLLM(LLMConfig(environment={**environment, **key})).plan(model, prompt="Hello")
    if "AWS_ACCESS_KEY_ID" in key:
        # The way that botocore sends it, since services may read a path in more than one way before they check what is signed.
        head, slash, rest = url.partition("/model/")
        url = head + slash + rest.replace(":", "%3A")
    assert plan.url == url


@pytest.mark.parametrize("row", ["bedrock", "bedrock_openai"])
@pytest.mark.parametrize("key", [{"AWS_BEARER_TOKEN_BEDROCK": BEARER}, {"AWS_ACCESS_KEY_ID": ID, "AWS_SECRET_ACCESS_KEY": SECRET}])
async def test_without_a_region_nothing_is_sent(row: str, key: dict[str, str]) -> None:
    llm = QueryLLM(LLMConfig(environment=key))
    with pytest.raises(ConfigurationError, match=f"AWS_REGION or AWS_DEFAULT_REGION.*{row.upper()}_API_BASE"):
        await llm.query(f"{row}/any", prompt="Hello")
    with pytest.raises(ConfigurationError, match="AWS_REGION"):
        llm.plan(f"{row}/any", prompt="Hello")


def test_prices_are_looked_up_by_the_regions_address() -> None:
    row = effective(LLMConfig(environment={"AWS_REGION": "us-east-1", **KEYS})).rows["bedrock"]
    assert (row.region, row.base_url) == ("eu-central-1", "https://bedrock-runtime.eu-central-1.amazonaws.com")


# Messages


def body_of(messages: Any, **options: Any) -> Any:
    return plan_of(MODEL, messages, **options).body


def test_turns_alternate_and_blank_ones_are_left_out() -> None:
    body = body_of(
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "one"},
            {"role": "user", "content": [{"type": "text", "text": " "}, {"type": "text", "text": "two"}]},
            {"role": "assistant", "content": ""},
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "three"},
        ]
    )
    assert body == {
        "system": [{"text": "Be brief."}, {"text": "Be kind."}],
        "messages": [{"role": "user", "content": [{"text": "one"}, {"text": "two"}, {"text": "three"}]}],
    }


def test_media_are_bytes_or_in_a_bucket() -> None:
    picture = base64.b64encode(PNG).decode()
    content = [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}},
        {"type": "file", "file": {"filename": "my report_2026.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}},
        {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "mp3"}},
        {"type": "file", "file": {"filename": "a.mp4", "file_data": "data:video/mp4;base64,AAAA"}},
        {"guardContent": {"text": {"text": "Guarded."}}},
    ]
    (turn,) = body_of([{"role": "user", "content": content}])["messages"]
    assert turn["content"] == [
        {"image": {"format": "png", "source": {"bytes": picture}}},
        {"document": {"format": "pdf", "name": "my report-2026", "source": {"bytes": "JVBERi0="}}},
        {"audio": {"format": "mp3", "source": {"bytes": "UklGRg=="}}},
        {"video": {"format": "mp4", "source": {"bytes": "AAAA"}}},
        {"guardContent": {"text": {"text": "Guarded."}}},
    ]


def test_what_it_does_not_take_is_refused_by_name() -> None:
    with pytest.raises(InvalidRequestError, match=r"messages\[0\].*image/tiff"):
        body_of([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/tiff;base64,AAAA"}}]}])
    with pytest.raises(InvalidRequestError, match=r"messages\[0\].*keeps no files"):
        body_of([{"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]}])


def test_what_is_to_be_cached_ends_with_a_cache_point() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}, "cache_control": {"type": "ephemeral"}}
    body = body_of(
        [
            {"role": "system", "content": [{"type": "text", "text": "Long.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]},
            {"role": "user", "content": "one", "cache_control": {"type": "ephemeral"}},
        ],
        tools=[tool],
    )
    assert body["system"] == [{"text": "Long."}, {"cachePoint": {"type": "default", "ttl": "1h"}}]
    assert body["messages"][0]["content"] == [{"text": "one"}, {"cachePoint": {"type": "default"}}]
    assert body["toolConfig"]["tools"][1:] == [{"cachePoint": {"type": "default"}}]


def test_a_result_may_be_an_error_and_a_foreign_id_is_made_to_fit() -> None:
    call = {"id": "call.1|" + "x" * 80, "type": "function", "function": {"name": "f", "arguments": "{}"}}
    body = body_of(
        [
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": call["id"], "content": "It broke.", "is_error": True},
        ],
        tools=[{"type": "function", "function": {"name": "f"}}],
    )
    use, result = body["messages"][1]["content"][0]["toolUse"], body["messages"][2]["content"][0]["toolResult"]
    assert use["toolUseId"] == result["toolUseId"] and len(use["toolUseId"]) == 64
    assert result["status"] == "error"
    with pytest.raises(InvalidRequestError, match='tool_choice "none"'):
        body_of(
            [{"role": "user", "content": "one"}, {"role": "assistant", "content": None, "tool_calls": [call]}],
            tools=[{"type": "function", "function": {"name": "f"}}],
            tool_choice="none",
        )


def test_what_is_sent_is_what_botocores_model_of_the_api_takes() -> None:
    from botocore.session import Session
    from botocore.validate import ParamValidator

    answered = CONVERSE.answer("Let me see.", [CALL], thinking=(THOUGHT, SIGNATURE))
    native = {"format": "bedrock", "content": answered["output"]["message"]["content"]}
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(PNG).decode()}"}}
    file = {"type": "file", "file": {"filename": "a b.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}}
    cached: dict[str, Any] = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
    messages = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief.", **cached}]},
        {"role": "user", "content": [{"type": "text", "text": "Look."}, picture, file]},
        {"role": "assistant", "content": "Let me see.", "_native": native},
        {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "So."}, picture], "is_error": True, **cached},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "x", "function": {"name": "get_weather", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "x", "content": "rain"},
    ]
    ModelRegistry.register("bedrock/us.anthropic.claude-sonnet-4-6", ModelConfig(capabilities={"json_schema": True}))
    options: dict[str, Any] = {
        "tools": [{**TOOLS[0], **cached}],
        "tool_choice": "required",
        "reasoning_effort": "high",
        "service_tier": "flex",
    }
    options |= {
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 4,
        "stop": "END",
        "requestMetadata": {"a": "b"},
        "response_format": FORM,
    }
    options |= {"guardrailConfig": {"guardrailIdentifier": "g", "guardrailVersion": "1"}, "performanceConfig": {"latency": "optimized"}}
    model = Session().get_service_model("bedrock-runtime")
    for stream, operation in ((False, "Converse"), (True, "ConverseStream")):
        body = plan_of("bedrock/us.anthropic.claude-sonnet-4-6", messages, stream=stream, **options).body
        shape = model.operation_model(operation).input_shape
        assert ParamValidator().validate({"modelId": "m", **body}, shape).generate_report() == ""
        assert {"system", "messages", "toolConfig", "inferenceConfig", "outputConfig", "serviceTier", "guardrailConfig"} <= body.keys()


# Options


@pytest.mark.parametrize(
    ("model", "options", "body"),
    [
        ("x", {"max_completion_tokens": 5, "top_p": 0.5}, {"inferenceConfig": {"maxTokens": 5, "topP": 0.5}}),
        ("x", {"top_k": 40}, {"additionalModelRequestFields": {"top_k": 40}}),
        ("amazon.nova-pro-v1:0", {"top_k": 40}, {"additionalModelRequestFields": {"inferenceConfig": {"topK": 40}}}),
        (
            "x",
            {"guardrailConfig": {"guardrailIdentifier": "g", "guardrailVersion": "1"}},
            {"guardrailConfig": {"guardrailIdentifier": "g", "guardrailVersion": "1"}},
        ),
        ("x", {"service_tier": "priority"}, {"serviceTier": {"type": "priority"}}),
        ("x", {"additionalModelRequestFields": {"a": 1}, "top_k": 2}, {"additionalModelRequestFields": {"a": 1, "top_k": 2}}),
        (
            "us.anthropic.claude-sonnet-4-6",
            {"reasoning_effort": "low"},
            {"additionalModelRequestFields": {"thinking": {"type": "adaptive"}}, "outputConfig": {"effort": "low"}},
        ),
        (
            "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
            {"reasoning_effort": "medium"},
            {"additionalModelRequestFields": {"thinking": {"type": "enabled", "budget_tokens": 4096}}},
        ),
        (
            "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
            {"reasoning_effort": "high", "max_tokens": 4000},
            {
                "additionalModelRequestFields": {"thinking": {"type": "enabled", "budget_tokens": 2000}},
                "inferenceConfig": {"maxTokens": 4000},
            },
        ),
        (
            "us.amazon.nova-2-lite-v1:0",
            {"reasoning_effort": "low"},
            {"additionalModelRequestFields": {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "low"}}},
        ),
        ("openai.gpt-oss-120b-1:0", {"reasoning_effort": "high"}, {"additionalModelRequestFields": {"reasoning_effort": "high"}}),
    ],
)
def test_options_in_its_words(model: str, options: dict[str, Any], body: dict[str, Any]) -> None:
    found = plan_of(f"bedrock/{model}", **options).body
    assert {name: value for name, value in found.items() if name != "messages"} == body


@pytest.mark.parametrize(
    "options", [{"reasoning_effort": "low"}, {"logit_bias": {"1": 2}}, {"user": "me"}, {"n": 2}, {"parallel_tool_calls": False}]
)
def test_what_it_has_no_word_for_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError, match=repr(next(iter(options)))):
        plan_of("bedrock/meta.llama3-3-70b-instruct-v1:0", **options)


SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
FORM = {"type": "json_schema", "json_schema": {"name": "count", "schema": SCHEMA}}


@pytest.mark.parametrize("how", ["query", "stream"])
async def test_an_answer_of_a_form_is_a_forced_tools(server: ScriptedServer, how: str) -> None:
    call = ("call_1", "count", {"n": 7})
    if how == "query":
        server.answer_json(CONVERSE.answer("", [call]))
        answer = await over(server).query(MODEL, prompt="How many?", response_format=FORM)
    else:
        texts, answer = await streamed(server, CONVERSE.wire(*CONVERSE.stream(calls=[call])), response_format=FORM)
        assert "".join(texts) == '{"n": 7}'
    assert (answer.parsed, answer.finish_reason, answer.tool_calls) == ({"n": 7}, "stop", [])
    assert server.request.json["toolConfig"]["toolChoice"] == {"tool": {"name": "count"}}
    assert server.request.json["toolConfig"]["tools"][0]["toolSpec"]["inputSchema"] == {"json": SCHEMA}


async def test_a_model_that_is_known_to_take_schemas_is_given_one(server: ScriptedServer) -> None:
    ModelRegistry.register(MODEL, ModelConfig(capabilities={"json_schema": True}))
    server.answer_json(CONVERSE.answer('{"n": 7}'))
    assert (await over(server).query(MODEL, prompt="How many?", response_format=FORM)).parsed == {"n": 7}
    form = server.request.json["outputConfig"]["textFormat"]
    assert (form["type"], form["structure"]["jsonSchema"]["name"]) == ("json_schema", "count")
    assert json.loads(form["structure"]["jsonSchema"]["schema"]) == SCHEMA


# Answers

THOUGHT, SIGNATURE = "The lake looks like Zürich.", "EqQBCkYIAxgCKkAsigned"
CALL = ("call_1", "get_weather", {"city": "Zürich"})
TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}]


@pytest.mark.parametrize("how", ["query", "stream"])
async def test_signed_thinking_goes_back(server: ScriptedServer, how: str) -> None:
    if how == "query":
        server.answer_json(CONVERSE.answer("Let me see.", [CALL], thinking=(THOUGHT, SIGNATURE)))
        first = await over(server).query(MODEL, prompt="Hello", tools=TOOLS)
    else:
        data = CONVERSE.wire(*CONVERSE.stream("Let me ", "see.", calls=[CALL], thinking=(THOUGHT, SIGNATURE)))
        _, first = await streamed(server, data, tools=TOOLS)
    assert (first.reasoning, first.content, first.tool_calls[0].arguments) == (THOUGHT, "Let me see.", CALL[2])
    server.answer_json(CONVERSE.answer("It rains."))
    messages = [
        {"role": "user", "content": "Hello"},
        json.loads(json.dumps(first.message)),
        {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
    ]
    await over(server).query(MODEL, messages, tools=TOOLS)
    sent = server.requests[1].json["messages"][1]["content"]
    assert sent == CONVERSE.answer("Let me see.", [CALL], thinking=(THOUGHT, SIGNATURE))["output"]["message"]["content"]


async def test_thoughts_that_are_hidden_go_back_and_thoughts_alone_do_not(server: ScriptedServer) -> None:
    content = [{"reasoningContent": {"redactedContent": "AAEC"}}]
    answer = CONVERSE.answer("")
    answer["output"]["message"]["content"] = content
    server.answer_json(answer)
    first = await over(server).query(MODEL, prompt="Hello")
    assert (first.content, first.reasoning) == ("", None)
    events = [frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"reasoningContent": {"redactedContent": "AAEC"}}})]
    events += [
        frame("contentBlockDelta", {"contentBlockIndex": 1, "delta": {"text": "Hi."}}),
        frame("messageStop", {"stopReason": "end_turn"}),
    ]
    _, second = await streamed(server, *events)
    assert second.usage.input_tokens is None  # the metadata did not come
    server.answer_json(CONVERSE.answer("Bye."), times=None)
    await over(server).query(MODEL, [{"role": "user", "content": "one"}, first.message, {"role": "user", "content": "two"}])
    await over(server).query(MODEL, [{"role": "user", "content": "one"}, second.message, {"role": "user", "content": "two"}])
    alone, with_text = (request.json["messages"] for request in server.requests[-2:])
    assert len(alone) == 1
    assert with_text[1]["content"] == [*content, {"text": "Hi."}]


async def test_what_was_written_to_the_cache_is_input(server: ScriptedServer) -> None:
    answer = CONVERSE.answer("Hello.")
    answer["usage"] = {
        "inputTokens": 10,
        "outputTokens": 5.0,
        "totalTokens": 15,
        "cacheReadInputTokens": 100,
        "cacheWriteInputTokens": 1000,
        "cacheDetails": [{"ttl": "1h", "inputTokens": 600}, {"ttl": "5m", "inputTokens": 400}],
    }
    answer["serviceTier"] = {"type": "priority"}
    server.answer_json(answer)
    usage = (await over(server).query(MODEL, prompt="Hello")).usage
    assert (usage.input_tokens, usage.cached_tokens, usage.cache_write_tokens, usage.cache_write_1h_tokens) == (1110, 100, 1000, 600)
    assert usage.output_tokens == 5


@pytest.mark.parametrize("how", ["query", "stream"])
async def test_citations(server: ScriptedServer, how: str) -> None:
    note = {
        "title": "Report",
        "location": {"documentPage": {"documentIndex": 0, "start": 1, "end": 2}},
        "sourceContent": [{"text": "It was so."}],
    }
    if how == "query":
        answer = CONVERSE.answer("")
        answer["output"]["message"]["content"] = [
            {"text": "Well: "},
            {"citationsContent": {"content": [{"text": "so."}], "citations": [note]}},
        ]
        server.answer_json(answer)
        found = await over(server).query(MODEL, prompt="Hello")
    else:
        deltas: list[Any] = [(0, {"text": "Well: "}), (1, {"text": "so."}), (1, {"citation": note})]
        events = [frame("contentBlockDelta", {"contentBlockIndex": index, "delta": delta}) for index, delta in deltas]
        _, found = await streamed(server, *events, frame("messageStop", {"stopReason": "end_turn"}))
    assert found.content == "Well: so."
    (citation,) = found.citations
    assert (citation.title, citation.text, citation.start, citation.end) == ("Report", "It was so.", 6, 9)
    assert found.native is not None and found.native["content"][1]["citationsContent"]["citations"] == [note]


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("stop_sequence", "stop"),
        ("content_filtered", "content_filter"),
        ("model_context_window_exceeded", "length"),
        ("malformed_tool_use", "malformed_tool_use"),
    ],
)
async def test_stop_reasons(server: ScriptedServer, theirs: str, ours: str) -> None:
    server.answer_json(CONVERSE.answer("Hello.", finish=theirs))
    assert (await over(server).query(MODEL, prompt="Hello")).finish_reason == ours


async def test_null_where_a_value_is_expected(server: ScriptedServer) -> None:
    server.answer_json(
        {
            "output": {
                "message": {
                    "role": "assistant",
                    "content": [
                        {"text": None},
                        {"text": "Hi."},
                        {"newBlock": {}},
                        {"toolUse": {"toolUseId": "a", "name": "f", "input": None}},
                    ],
                }
            },
            "stopReason": None,
            "usage": {"inputTokens": None, "outputTokens": "5", "cacheDetails": None},
            "serviceTier": None,
            "trace": None,
            "metrics": None,
        }
    )
    answer = await over(server).query(MODEL, prompt="Hello")
    assert (answer.content, answer.finish_reason, answer.usage.input_tokens) == ("Hi.", None, None)
    assert answer.tool_calls[0].name == "f"
    events = [
        frame("messageStart", {"role": None}),
        frame("newEvent", {"x": 1}),
        frame("contentBlockStart", {"start": None, "contentBlockIndex": None}),
    ]
    events += [
        frame("contentBlockDelta", {"contentBlockIndex": None, "delta": delta})
        for delta in (None, {}, {"text": None}, {"text": "Hi."}, {"toolUse": {"input": None}}, {"reasoningContent": {"text": None}})
    ]
    texts, response = await streamed(
        server, *events, frame("messageStop", {"stopReason": "end_turn"}), frame("metadata", {"usage": None, "metrics": None})
    )
    assert (texts, response.finish_reason) == (["Hi."], "stop")


# Errors

ERRORS = [
    (429, "ThrottlingException", "Too many tokens, please wait before trying again.", RateLimitError),
    (400, "ServiceQuotaExceededException", "Your request exceeds the service quota.", RateLimitError),
    (403, "AccessDeniedException", "You don't have access to the model with the specified model ID.", PermissionDeniedError),
    (403, "AccessDeniedException", "Invalid API Key format: Must start with pre-defined prefix", AuthenticationError),
    (403, "ExpiredTokenException", "The security token included in the request is expired", AuthenticationError),
    (403, "UnrecognizedClientException", "The security token included in the request is invalid.", AuthenticationError),
    (403, "InvalidSignatureException", "Signature expired: 20261121T000000Z is now earlier than 20261121T001000Z", AuthenticationError),
    (400, "ValidationException", "The provided model identifier is invalid.", ModelNotFoundError),
    (
        400,
        "ValidationException",
        "Invocation of model ID anthropic.claude-x with on-demand throughput isn’t supported. Retry your request with the ID or ARN of an inference profile that contains this model.",
        ModelNotFoundError,
    ),
    (400, "ValidationException", "Input is too long for requested model.", ContextWindowExceededError),
    (400, "ValidationException", "messages: text content blocks must be non-empty", InvalidRequestError),
    (404, "ResourceNotFoundException", "This model version has reached the end of its life.", ModelNotFoundError),
    (408, "ModelTimeoutException", "Model has timed out in processing the request.", RequestTimeoutError),
    (424, "ModelErrorException", "The system encountered an unexpected error during processing.", ServerError),
    (429, "ModelNotReadyException", "Model is not ready for inference.", ServerError),
    (503, "ServiceUnavailableException", "Bedrock is unable to process your request.", ServerError),
]


@pytest.mark.parametrize("where", ["header", "__type", "stream"])
@pytest.mark.parametrize(("status", "name", "said", "kind"), ERRORS)
async def test_what_its_exceptions_mean(
    server: ScriptedServer, where: str, status: int, name: str, said: str, kind: type[ProviderError]
) -> None:
    if where == "header":
        server.answer_json(
            {"message": said}, status=status, headers={"x-amzn-errortype": f"{name}:http://internal.amazon.com/"}, times=None
        )
    elif where == "__type":
        server.answer_json({"Message": said, "__type": f"com.amazon.coral.service#{name}"}, status=status, times=None)
    else:
        small = name[:1].lower() + name[1:]
        server.answer_sse(
            frame("messageStart", {"role": "assistant"}),
            frame(small, {"message": said}, "exception"),
            headers={"content-type": CONVERSE.stream_type},
            times=None,
        )
    with pytest.raises(ProviderError) as caught:
        if where == "stream":
            async with over(server).stream(MODEL, prompt="Hello", deadline=5) as stream:
                async for _ in stream:
                    pass
        else:
            await over(server).query(MODEL, prompt="Hello", deadline=5)
    error = caught.value
    assert type(error) is kind
    assert said[:40] in str(error) and (error.code or "").lower() == name.lower()
    if where != "stream":
        assert error.status == status


async def test_remedies_are_named(server: ScriptedServer) -> None:
    for said, remedy in (
        ("Invocation of model ID x with on-demand throughput isn’t supported.", "inference profile"),
        ("Signature expired: it is now earlier", "clock"),
    ):
        server.reset()
        name = "ValidationException" if "Invocation" in said else "InvalidSignatureException"
        server.answer_json({"message": said}, status=400 if "Invocation" in said else 403, headers={"x-amzn-errortype": name}, times=None)
        with pytest.raises(ProviderError, match=remedy):
            await QueryLLM(LLMConfig(environment={"BEDROCK_API_BASE": server.url, "BEDROCK_API_KEY": f"{BEARER}{remedy[:2]}"})).query(
                MODEL, prompt="Hello"
            )


async def test_a_proxys_error_is_read_as_any_other(server: ScriptedServer) -> None:
    server.answer("<html><title>502 Bad Gateway</title></html>", status=502, times=None)
    with pytest.raises(ServerError, match="502 Bad Gateway"):
        await over(server).query(MODEL, prompt="Hello")


async def test_a_model_whose_tokens_it_does_not_count(server: ScriptedServer) -> None:
    server.answer_json(
        {"message": "The provided model doesn't support counting tokens."}, status=400, headers={"x-amzn-errortype": "ValidationException"}
    )
    count = await over(server).count_tokens(MODEL, prompt="Hello")
    assert not count.exact


async def test_its_models_are_listed_elsewhere() -> None:
    provider = BedrockProvider(attrs.evolve(PROVIDER_CONFIGS["bedrock"], api_key=BEARER, region="us-east-1"))
    with pytest.raises(InvalidRequestError, match="list its models"):
        await provider.list_models()
    assert await provider.health_check()


# OpenAI's API


@pytest.mark.parametrize("environment", [{"AWS_BEARER_TOKEN_BEDROCK": BEARER}, {**KEYS, "AWS_SESSION_TOKEN": TOKEN}])
async def test_openais_api_by_both_ways(server: ScriptedServer, environment: dict[str, str]) -> None:
    llm = over(server, row="BEDROCK_OPENAI", **environment)
    server.answer_json(CHAT.answer("Hello."))
    server.answer_sse(*CHAT.stream("Hel", "lo."))
    server.answer_json(RESPONSES.answer("Hello."))
    assert (await llm.query("bedrock_openai/openai.gpt-oss-20b-1:0", prompt="Hello")).content == "Hello."
    async with llm.stream("bedrock_openai/openai.gpt-oss-20b-1:0", prompt="Hello") as stream:
        assert "".join([piece async for piece in stream]) == "Hello."
    assert (await llm.query("bedrock_openai/responses/openai.gpt-6", prompt="Hello")).content == "Hello."
    for request, path in zip(server.requests, ("/chat/completions", "/chat/completions", "/responses"), strict=True):
        assert request.path == path
        if "AWS_ACCESS_KEY_ID" in environment:
            assert request.headers["authorization"] == signed_by_botocore(
                request, server.url.removeprefix("http://"), "eu-central-1", TOKEN
            )
        else:
            assert request.headers["authorization"] == f"Bearer {BEARER}"
    assert server.requests[0].json["model"] == "openai.gpt-oss-20b-1:0"


@pytest.mark.parametrize("row", ["bedrock", "bedrock_openai"])
async def test_what_neither_api_has_is_refused_by_name(server: ScriptedServer, row: str) -> None:
    llm = over(server, row=row.upper(), AWS_BEARER_TOKEN_BEDROCK=BEARER)
    with pytest.raises(InvalidRequestError, match="Bedrock.*cannot make embeddings"):
        await llm.embed(f"{row}/amazon.titan-embed-text-v2:0", ["a cat"])
    with pytest.raises(InvalidRequestError, match="Bedrock.*cannot rerank"):
        await llm.rerank(f"{row}/any", "cats", ["dogs", "cats"])
    assert server.requests == []


async def test_its_errors_come_in_either_form(server: ScriptedServer) -> None:
    llm = over(server, row="BEDROCK_OPENAI", AWS_BEARER_TOKEN_BEDROCK=BEARER)
    server.answer_json({"error": {"code": "validation_error", "message": "Invalid model", "type": "invalid_request_error"}}, status=400)
    server.answer_json({"message": "Too many."}, status=429, headers={"x-amzn-errortype": "ThrottlingException", "retry-after": "3600"})
    with pytest.raises(InvalidRequestError, match="Invalid model"):
        await llm.query("bedrock_openai/x", prompt="Hello")
    with pytest.raises(RateLimitError, match="Too many"):
        await llm.query("bedrock_openai/x", prompt="Hello", deadline=5)
