"""What is fetched for a conversation: bounded, with nothing of ours, and never from an address that is not public."""

from __future__ import annotations

import asyncio
import base64
import gzip
import socket
import ssl
import traceback
import tracemalloc
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
import trustme
from servers.scripted import FOREVER, ScriptedServer

from llm_master import Image, InvalidRequestError, ProviderConnectionError, RequestTimeoutError
from llm_master.transport import fetch as module
from llm_master.transport.fetch import Fetched, download, fetch, is_public

PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
MIB = 2**20


class Names:
    """A name server of the test's own: each look-up of a name takes the next answer, the last of them again and again."""

    def __init__(self) -> None:
        self.answers: dict[str, list[list[str]]] = {}
        self.asked: list[str] = []

    def __call__(self, host: Any, port: Any, *_: Any, **__: Any) -> list[Any]:
        host = host.decode() if isinstance(host, bytes) else host
        self.asked.append(host)
        if host not in self.answers:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        answers = self.answers[host]
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, int(port or 0), 0, 0))
            if ":" in address
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, int(port or 0)))
            for address in addresses
        ]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    names = Names()
    monkeypatch.setattr(socket, "getaddrinfo", names)
    yield names


@pytest.fixture
def public_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """127.0.0.1, and it alone, stands for the open internet; 127.0.0.2 is as private as ever."""
    monkeypatch.setattr(module, "is_public", lambda address: address == "127.0.0.1" or is_public(address))


async def get(url: str, **how: Any) -> Fetched:
    return await fetch(url, **{"max_bytes": MIB, "allow_private": True, **how})


async def test_bytes_type_and_address(server: ScriptedServer) -> None:
    server.answer(PNG, headers={"content-type": "Image/PNG; charset=binary"})
    found = await get(f"{server.url}/a/b.png?sig=1%2F2#top")
    assert (found.data, found.media_type, found.url) == (PNG, "image/png", f"{server.url}/a/b.png?sig=1%2F2")
    assert server.request.method == "GET"
    assert server.request.path == "/a/b.png?sig=1%2F2"  # exactly as it was signed
    assert "sig" not in repr(found)


async def test_a_url_that_is_not_ascii_is_encoded(server: ScriptedServer) -> None:
    server.answer(PNG)
    await get(f"  {server.url}/köln bild.png ")
    assert server.request.path == "/k%C3%B6ln%20bild.png"


async def test_nothing_of_ours_goes_along(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    server.answer("", status=302, headers={"location": "/second", "set-cookie": "a=secret; Path=/"})
    server.answer(PNG)
    await get(f"{server.url}/first")
    assert [request.path for request in server.requests] == ["/first", "/second"]
    for request in server.requests:
        assert set(request.headers) == {"host", "accept", "accept-encoding", "user-agent", "connection"}
        assert "secret" not in str(request.headers)


async def test_every_connection_is_closed(server: ScriptedServer) -> None:
    server.answer("", status=302, headers={"location": "/second"})
    server.answer(PNG)
    server.answer("no", status=404)
    await get(server.url)
    with pytest.raises(InvalidRequestError):
        await get(server.url)
    assert server.opened == 3
    assert await server.until_open(0)


async def test_many_at_once(server: ScriptedServer) -> None:
    server.answer(PNG, times=None)
    found = await asyncio.gather(*(get(f"{server.url}/{n}") for n in range(20)))
    assert [one.data for one in found] == [PNG] * 20


# Size


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
async def test_exactly_the_limit_is_taken_and_a_byte_more_is_not(server: ScriptedServer, framing: Any) -> None:
    server.answer(bytes(1000), framing=framing)
    server.answer(bytes(600), bytes(401), framing=framing)
    assert len((await get(server.url, max_bytes=1000)).data) == 1000
    with pytest.raises(InvalidRequestError, match=r"127\.0\.0\.1.* holds more than .* MiB: give a smaller one"):
        await get(server.url, max_bytes=1000)


async def test_a_stated_length_over_the_limit_is_refused_before_the_body(server: ScriptedServer) -> None:
    server.answer(bytes(2000), cut_at=10, end="stall")  # the body never comes: only its length can have said so
    with pytest.raises(InvalidRequestError, match="holds more than"):
        await get(server.url, max_bytes=1000)


async def test_an_endless_body_is_cut(server: ScriptedServer) -> None:
    server.answer(*[bytes(100_000)] * 12, framing="chunked", end="stall")
    with pytest.raises(InvalidRequestError, match="holds more than 1 MiB"):
        await get(server.url)


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("X-GZIP", gzip.compress)])
async def test_what_comes_compressed_is_unpacked(server: ScriptedServer, encoding: str, pack: Any) -> None:
    packed = pack(PNG * 100)
    server.answer(packed[:20], packed[20:], headers={"content-encoding": encoding})
    assert (await get(server.url)).data == PNG * 100


async def test_a_bomb_is_refused(server: ScriptedServer) -> None:
    bomb = gzip.compress(bytes(50 * MIB))
    assert len(bomb) < MIB / 10
    server.answer(bomb, times=2, headers={"content-encoding": "gzip"})
    with pytest.raises(InvalidRequestError, match="holds more than 1 MiB"):
        await get(server.url)
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRequestError, match="holds more than 1 MiB"):
            await get(server.url)
        assert tracemalloc.get_traced_memory()[1] < 5 * MIB  # it never was unpacked
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("damage", [lambda packed: packed[:-9], lambda packed: b"x" + packed, lambda packed: packed + packed])
async def test_damaged_compression_is_no_content(server: ScriptedServer, damage: Any) -> None:
    server.answer(damage(gzip.compress(PNG)), headers={"content-encoding": "gzip"})
    with pytest.raises(ProviderConnectionError, match="compressed data"):
        await get(server.url)


async def test_an_unknown_encoding_is_named(server: ScriptedServer) -> None:
    server.answer(PNG, headers={"content-encoding": "br"})
    with pytest.raises(InvalidRequestError, match="'br'"):
        await get(server.url)


# What servers answer


@pytest.mark.parametrize("status", [204, 206, 304, 400, 401, 403, 404, 410])
async def test_a_refusal_is_the_urls_fault(server: ScriptedServer, status: int) -> None:
    server.answer("" if status in (204, 304) else "no", status=status, framing="close")
    with pytest.raises(InvalidRequestError, match=rf"127\.0\.0\.1:\d+/a\.png cannot be fetched: its server answers {status}\b"):
        await get(f"{server.url}/a.png")


@pytest.mark.parametrize("status", [408, 429, 500, 503])
async def test_a_failure_may_pass(server: ScriptedServer, status: int) -> None:
    server.answer("no", status=status)
    with pytest.raises(ProviderConnectionError, match=f"answers {status}.*later"):
        await get(server.url)


@pytest.mark.parametrize("end", ["close", "reset"])
async def test_a_body_cut_short_is_no_content(server: ScriptedServer, end: Any) -> None:
    server.answer(PNG, cut_at=20, end=end)
    with pytest.raises(ProviderConnectionError, match="could not be fetched"):
        await get(server.url)


async def test_no_http_at_all(server: ScriptedServer) -> None:
    server.answer("SSH-2.0-OpenSSH_9.6\r\n", framing="raw")
    with pytest.raises(ProviderConnectionError, match="could not be fetched"):
        await get(f"{server.url}/?sig=SECRET")


async def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(ProviderConnectionError, match="could not be fetched: .*refused"):
            await get(f"http://127.0.0.1:{taken.getsockname()[1]}/a.png")


async def test_a_certificate_that_nobody_vouches_for() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context) as stranger:
        with pytest.raises(ProviderConnectionError, match="TLS certificate was not accepted") as caught:
            await get(f"https://127.0.0.1:{stranger.sockets[0].getsockname()[1]}/a.png?sig=SECRET")
    assert "SECRET" not in str(caught.value)


async def test_an_unknown_host() -> None:
    with pytest.raises(ProviderConnectionError, match=r"nowhere\.invalid/a\.png.*host is not known"):
        await get("https://nowhere.invalid/a.png?sig=SECRET")


@pytest.mark.parametrize("stalls_in", ["head", "body"])
async def test_a_server_that_stalls(server: ScriptedServer, stalls_in: str) -> None:
    server.answer(PNG, **({"delay": FOREVER} if stalls_in == "head" else {"cut_at": 5, "end": "stall"}))
    with pytest.raises(RequestTimeoutError, match=r"was not fetched within 0\.3 s"):
        await get(f"{server.url}/?sig=SECRET", timeout=0.3)
    assert await server.until_open(0)


async def test_the_time_limit_is_for_all_redirects_together(server: ScriptedServer) -> None:
    server.answer("", status=302, headers={"location": "/b"}, delay=0.2)
    server.answer("", status=302, headers={"location": "/c"}, delay=0.2)
    server.answer(PNG, delay=0.2)
    with pytest.raises(RequestTimeoutError):
        await get(server.url, timeout=0.4)


async def test_a_caller_that_is_cancelled_stays_cancelled(server: ScriptedServer) -> None:
    server.answer(PNG, delay=FOREVER)
    task = asyncio.ensure_future(get(server.url))
    assert await server.until_asked()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await server.until_open(0)


async def test_a_query_is_a_secret(server: ScriptedServer) -> None:
    server.answer("no", status=404)
    server.answer("", status=302, headers={"location": "ftp://x.invalid/?sig=SECRET"})
    server.answer("", status=302, headers={"location": "http://u:SECRET@x.invalid/"})
    server.answer(b"HTTP/1.1 two hundred\r\n\r\n", framing="raw")
    server.answer(PNG, cut_at=10, end="close")
    for _ in range(5):
        with pytest.raises((InvalidRequestError, ProviderConnectionError)) as caught:
            await get(f"{server.url}/a.png?X-Signature=SECRET#SECRET")
        assert "SECRET" not in "".join(traceback.format_exception(caught.value)).replace('?X-Signature=SECRET#SECRET"', "")
        assert "127.0.0.1" in str(caught.value)


# Redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_followed(server: ScriptedServer, status: int) -> None:
    server.answer("", status=status, headers={"location": "../c.png?d=%2F"})
    server.answer(PNG)
    found = await get(f"{server.url}/a/b/x")
    assert found.url == f"{server.url}/a/c.png?d=%2F"
    assert found.data == PNG


async def test_five_redirects_are_followed_and_a_sixth_is_not(server: ScriptedServer) -> None:
    for _ in range(5):
        server.answer("", status=302, headers={"location": "/again"})
    server.answer(PNG)
    assert (await get(server.url)).data == PNG
    server.answer("", status=302, headers={"location": "/again"}, times=None)
    with pytest.raises(InvalidRequestError, match="more than 5 redirects"):
        await get(server.url)
    assert len(server.requests) == 6 + 6


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("file:///etc/passwd", "only those are fetched"),
        ("ftp://127.0.0.1/a", "only those are fetched"),
        ("data:image/png;base64,AAAA", "only those are fetched"),
        ("gopher://127.0.0.1:70/_x", "only those are fetched"),
        ("http://me:pw@127.0.0.1/", "user name or a password"),
        ("http://127.0.0.1:99999/", "is no URL"),
        ("http://[::1/", "no URL"),
        (None, "does not say where"),
        ("", "does not say where"),
    ],
)
async def test_a_redirect_to_anything_else_is_refused(server: ScriptedServer, location: str | None, message: str) -> None:
    server.answer("", status=302, headers={} if location is None else {"location": location})
    with pytest.raises(InvalidRequestError, match=message):
        await get(server.url)
    assert len(server.requests) == 1


# Addresses


@pytest.mark.parametrize(
    "host",
    """127.0.0.1 127.8.8.8 10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 169.254.169.254 0.0.0.0 100.64.0.1 198.18.0.1
    224.0.0.1 239.1.2.3 240.0.0.1 255.255.255.255 192.0.2.1 2130706433 0x7f000001 0x7F.1 0177.0.0.1 017700000001 127.1 127.0.1 0
    127.0.0.1. 3232235777 [::1] [::] [::ffff:127.0.0.1] [::ffff:7f00:1] [::ffff:a9fe:a9fe] [::127.0.0.1] [fe80::1] [fc00::1] [fd12::1]
    [fec0::1] [ff02::1] [64:ff9b::7f00:1] [64:ff9b::169.254.169.254] [2002:7f00:1::1] [2001:db8::1] ①②⑦.⓪.⓪.① 127。0。0。1""".split(),
)
async def test_a_literal_address_that_is_not_public_is_refused(host: str, names: Names) -> None:
    for scheme in ("http", "https"):
        with pytest.raises(InvalidRequestError, match="is no public address: download it and give the file|is no URL"):
            await fetch(f"{scheme}://{host}:1/latest/meta-data", max_bytes=MIB)
    assert names.asked == []


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "8.8.8.8", "2606:2800:220:1::1", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]
)
def test_public_addresses(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["93.184.216.34", "10.0.0.1"], ["::1"], ["2606:2800:220:1::1", "::ffff:10.0.0.1"]])
async def test_a_name_is_refused_where_one_of_its_addresses_is_not_public(names: Names, addresses: list[str]) -> None:
    names.answers["inner.test"] = [addresses]
    with pytest.raises(InvalidRequestError, match=rf"http://inner\.test/a is at {addresses[-1]}, which is no public address"):
        await fetch("http://inner.test/a?sig=1", max_bytes=MIB)


async def test_localhost_is_refused_by_what_it_means() -> None:
    with pytest.raises(InvalidRequestError, match="is no public address"):
        await fetch("HTTP://localhost:1/", max_bytes=MIB)


async def test_private_addresses_may_be_allowed(server: ScriptedServer) -> None:
    server.answer(PNG, times=None)
    for host in ("127.0.0.1", "localhost", "2130706433", "0x7f.1", "127.0.0.1."):
        assert (await get(f"http://{host}:{server.port}/")).data == PNG


async def test_the_connection_goes_to_the_address_that_was_checked(server: ScriptedServer, names: Names, public_loopback: None) -> None:
    # The name means something else at each look-up; were there a second one, nothing would answer at its address.
    names.answers["rebinding.test"] = [["127.0.0.1"], ["127.0.0.2"]]
    server.answer(PNG)
    assert (await fetch(f"http://rebinding.test:{server.port}/a", max_bytes=MIB)).data == PNG
    assert names.asked == ["rebinding.test"]
    assert server.request.headers["host"] == f"rebinding.test:{server.port}"


async def test_each_redirect_is_looked_up_and_checked_again(server: ScriptedServer, names: Names, public_loopback: None) -> None:
    names.answers["rebinding.test"] = [["127.0.0.1"], ["127.0.0.2"]]
    server.answer("", status=302, headers={"location": "/b"})
    with pytest.raises(InvalidRequestError, match=r"is at 127\.0\.0\.2, which is no public address"):
        await fetch(f"http://rebinding.test:{server.port}/a", max_bytes=MIB)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "target", ["http://169.254.169.254/latest/", "//10.0.0.1/", "http://[::1]:1/", "http://2130706434/", "http://inner.test/"]
)
async def test_a_redirect_to_a_private_address_is_refused(server: ScriptedServer, names: Names, public_loopback: None, target: str) -> None:
    names.answers |= {"public.test": [["127.0.0.1"]], "inner.test": [["192.168.0.1"]]}
    server.answer("", status=302, headers={"location": target})
    with pytest.raises(InvalidRequestError, match="is no public address"):
        await fetch(f"http://public.test:{server.port}/a.png", max_bytes=MIB)
    assert len(server.requests) == 1


async def test_the_next_address_is_tried_where_one_does_not_answer(server: ScriptedServer, names: Names) -> None:
    names.answers["two.test"] = [["127.0.0.9", "127.0.0.1"]]
    server.answer(PNG)
    assert (await get(f"http://two.test:{server.port}/")).data == PNG


@pytest.mark.parametrize(
    "url",
    [
        "",
        "   ",
        "a.png",
        "/a.png",
        "http://",
        "http:///a",
        "https://[::1",
        "http://h:port/",
        "ftp://h.test/",
        "http://a..b/",
        "http://public.test\\@127.0.0.1/",
        "javascript:1",
    ],
)
async def test_what_is_no_url(url: str) -> None:
    with pytest.raises(InvalidRequestError, match="is no"):
        await fetch(url, max_bytes=MIB)


@pytest.mark.parametrize("url", ["http://me:pw@h.test/", "http://me@h.test/", "http://:pw@h.test/"])
async def test_a_password_in_a_url_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(InvalidRequestError, match="user name or a password") as caught:
        await get(url)
    assert "pw" not in str(caught.value).replace("password", "")


# Proxies


async def test_a_proxy_is_used_after_the_same_checks(server: ScriptedServer, names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://me:pw@127.0.0.1:{server.port}")
    names.answers |= {"public.test": [["93.184.216.34"]], "inner.test": [["10.0.0.1"]]}
    server.answer(PNG)
    assert (await fetch("http://public.test/a.png", max_bytes=MIB)).data == PNG
    assert server.request.path == "http://public.test/a.png"
    for refused in ("http://inner.test/", "http://10.0.0.1/", "http://127.1/"):
        with pytest.raises(InvalidRequestError, match="is no public address"):
            await fetch(refused, max_bytes=MIB)
    with pytest.raises(ProviderConnectionError, match="host is not known"):  # what cannot be checked is not fetched
        await fetch("http://unknown.test/", max_bytes=MIB)
    assert len(server.requests) == 1


async def test_where_private_urls_are_allowed_only_the_proxy_looks_names_up(
    server: ScriptedServer, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    server.answer(PNG)
    assert (await get("http://only.the-proxy.knows/a")).data == PNG
    assert names.asked == []


async def test_a_proxy_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://me:pw@proxy.invalid:3128")
    with pytest.raises(ProviderConnectionError, match="could not be fetched") as caught:
        await get("http://public.test/a.png?sig=SECRET")
    assert "SECRET" not in str(caught.value)
    assert "pw" not in str(caught.value)


async def test_no_proxy_is_heeded(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server.answer(PNG)
    assert (await get(server.url)).data == PNG
    assert server.request.path == "/"


# download


async def test_download(server: ScriptedServer) -> None:
    server.answer(PNG, times=2)
    uri = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    assert await download(Image(PNG, url="http://nowhere.invalid/")) == PNG
    assert await download(Image(url=server.url), allow_private_urls=True) == PNG
    assert await download(server.url, allow_private_urls=True) == PNG
    assert await download(uri) == PNG
    assert await download(Image(url=uri)) == PNG
    with pytest.raises(InvalidRequestError, match="is no public address"):
        await download(server.url)
    server.answer(bytes(100))
    with pytest.raises(InvalidRequestError, match="holds more than"):
        await download(server.url, max_bytes=99, allow_private_urls=True)


@pytest.mark.parametrize("image", [Image(), Image(url=""), "", "data:image/png,AAAA", "a.png"])
async def test_nothing_to_download(image: Any) -> None:
    with pytest.raises(InvalidRequestError, match="neither data nor a URL|must be data:TYPE|no URL|no http"):
        await download(image)
