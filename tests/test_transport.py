"""Connections: kept ones that die, proxies, TLS."""

from __future__ import annotations

import json
import subprocess
import sys

import aiohttp.http_writer
import pytest
import trustme

from llm_master import PROVIDER_CONFIGS, ConfigurationError, ProviderConfig, ProviderConnectionError, QueryLLM
from llm_master.transport import _proxy_for

KEY = "sk-acme-behind-a-proxy-0001"
ANSWER = {"choices": [{"message": {"content": "Hello."}, "finish_reason": "stop"}]}

TLS_SERVER = """
import http.server, json, ssl, sys
certificate, answer = sys.argv[1:]
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer.encode())
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate)
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
"""


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """A company's own certificate authority."""
    made = trustme.CA()
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    made.cert_pem.write_to_path(path)
    return made, str(path)


@pytest.fixture(scope="module")
def tls_server(authority, tmp_path_factory):
    """A server in a process of its own, whose certificate that authority has signed."""
    path = tmp_path_factory.mktemp("server") / "server.pem"
    authority[0].issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(path)
    process = subprocess.Popen([sys.executable, "-c", TLS_SERVER, str(path), json.dumps(ANSWER)], stdout=subprocess.PIPE)
    try:
        yield f"https://127.0.0.1:{int(process.stdout.readline())}/v1"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def acme(base_url, **fields):
    PROVIDER_CONFIGS["acme"] = ProviderConfig(base_url=base_url, api_key=KEY, max_retries=0, **fields)
    return QueryLLM()


async def test_a_certificate_of_an_unknown_authority_is_refused_with_the_remedy(tls_server):
    with pytest.raises(ProviderConnectionError, match="certificate.*ca_bundle"):
        await acme(tls_server).query("acme/large", prompt="Hello")


async def test_a_ca_bundle_makes_it_known(tls_server, authority):
    assert (await acme(tls_server, ca_bundle=authority[1]).query("acme/large", prompt="Hello")).content == "Hello."


async def test_verification_can_be_switched_off_for_one_row(tls_server):
    assert (await acme(tls_server, verify_ssl=False).query("acme/large", prompt="Hello")).content == "Hello."


async def test_a_ca_bundle_that_is_not_there_is_named(tls_server):
    with pytest.raises(ConfigurationError, match="ca_bundle.*nowhere.pem"):
        await acme(tls_server, ca_bundle="/nowhere.pem").query("acme/large", prompt="Hello")


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
async def test_a_proxy_of_the_environment_is_used(server, monkeypatch, variable):
    """A plain request to a proxy names the whole URL; the host behind it need not be known here."""
    monkeypatch.setenv(variable, server.url)
    server.answer_json(ANSWER)
    answer = await acme("http://api.acme.invalid/v1").query("acme/large", prompt="Hello")
    assert answer.content == "Hello."
    assert server.request.path == "http://api.acme.invalid/v1/chat/completions"
    assert server.request.headers["authorization"] == f"Bearer {KEY}"


def test_no_proxy_names_hosts_that_are_reached_directly(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.invalid:3128")
    monkeypatch.setenv("NO_PROXY", "acme.internal")
    assert _proxy_for("http", "acme.internal") is _proxy_for("http", "api.acme.internal") is None
    assert _proxy_for("http", "acme.example") == "http://proxy.invalid:3128"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.9.9.9", "::1"])
def test_this_machine_is_reached_directly(monkeypatch, host):
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.invalid:3128")
    assert _proxy_for("http", host) is None


async def test_a_local_server_needs_no_no_proxy(server, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    server.answer_json(ANSWER)
    assert (await acme(server.base_url).query("acme/large", prompt="Hello")).content == "Hello."
    assert server.request.path == "/v1/chat/completions"


async def test_a_proxy_of_a_kind_that_is_not_supported_is_named(server, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "socks5://127.0.0.1:9")
    with pytest.raises(ConfigurationError, match="socks5.*HTTP_PROXY"):
        await acme("http://api.acme.invalid/v1").query("acme/large", prompt="Hello")


async def test_a_proxy_that_is_not_there_is_a_connection_error(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with pytest.raises(ProviderConnectionError):
        await acme("http://api.acme.invalid/v1").query("acme/large", prompt="Hello")


async def test_a_kept_connection_found_closed_before_writing_is_no_attempt(server, monkeypatch):
    """Nobody has seen the request, so it goes out on another connection, at once and unseen."""
    server.answer_json(ANSWER, times=None)
    llm = acme(server.base_url)
    await llm.query("acme/large", prompt="Hello")
    # As where the reset is met by the write itself, which only a race shows: the first write after this finds it closed.
    written = aiohttp.http_writer.StreamWriter._write
    found_closed = []

    def write(self, chunk):
        if not found_closed:
            found_closed.append(self.transport)
            self.transport.abort()
        written(self, chunk)

    monkeypatch.setattr(aiohttp.http_writer.StreamWriter, "_write", write)
    monkeypatch.setattr(aiohttp.http_writer.StreamWriter, "_writelines", lambda self, chunks: write(self, b"".join(chunks)))
    answer = await llm.query("acme/large", prompt="Hello")
    assert found_closed
    assert [attempt.status for attempt in answer.receipt.attempts] == [200]
    assert [request.connection for request in server.requests] == [0, 1]


@pytest.mark.parametrize("kept", [True, False])
async def test_a_connection_that_dies_under_a_written_request_is_an_attempt(server, kept):
    """The server may have begun to work on it, so ``max_retries=0`` means that it is sent once."""
    if kept:
        server.answer_json(ANSWER)
    server.answer(framing="raw", end="close")  # reads the request, and closes without a word
    llm = acme(server.base_url)
    if kept:
        await llm.query("acme/large", prompt="Hello")
    with pytest.raises(ProviderConnectionError) as caught:
        await llm.query("acme/large", prompt="Hello")
    assert len(caught.value.receipt.attempts) == 1
    assert len(server.requests) == 1 + kept
