"""Fetching what a URL of a conversation or an answer points to.

Such a URL may come from anybody, so it may lead neither to this machine nor into its network, unless that is allowed:

* each address that a host has must be public, and the connection is made to the very addresses that were checked, so that
  a name that means something else a moment later (DNS rebinding) gains nothing;
* a redirect is followed by hand and checked as the first URL was;
* nothing of ours goes along: no key, no cookie, no password.

Behind a proxy it is the proxy that looks the name up and connects. The name is then checked here as well, and one that
cannot be looked up here is refused; what the proxy makes of it, it answers for.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import re
import socket
import zlib
from typing import TYPE_CHECKING, Any

import attrs

from llm_master.errors import InvalidRequestError, ProviderConnectionError, RequestTimeoutError
from llm_master.media import Image, from_data_uri
from llm_master.transport import _proxy_for

if TYPE_CHECKING:
    import aiohttp
    from yarl import URL

MAX_REDIRECTS = 5

_REDIRECTS = (301, 302, 303, 307, 308)

_MAY_PASS = (408, 425, 429)
"""Of the refusals, those after which another try may succeed."""

# An IPv6 address that only wraps an IPv4 one: RFC 6052.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


@attrs.frozen
class Fetched:
    """What was found.

    Attributes:
        data: The bytes, decompressed.
        media_type: What the server says they are, as ``image/png``; ``None`` if it says nothing.
        url: Where they were found in the end. It is not shown: it may carry a signature.
    """

    data: bytes = attrs.field(repr=False)
    media_type: str | None
    url: str = attrs.field(repr=False)


async def fetch(url: str, *, max_bytes: int, allow_private: bool = False, timeout: float = 30.0) -> Fetched:
    """Get the bytes behind an http(s) URL.

    Args:
        url: The URL.
        max_bytes: Bytes that it may have, compressed or not.
        allow_private: Whether it may lead to an address that is not public.
        timeout: Seconds for all of it, redirects included.

    Raises:
        InvalidRequestError: The URL is none, leads to an address that is not public, is not there, or holds too much.
        ProviderConnectionError: The server was not reached, or failed.
        RequestTimeoutError: It took longer than ``timeout``.
    """
    link = _parsed(url)
    shown = _shown(link)
    try:
        async with asyncio.timeout(timeout) as limit:
            for _ in range(MAX_REDIRECTS + 1):
                found = await _get(link, max_bytes, allow_private=allow_private)
                if isinstance(found, Fetched):
                    return found
                link = found
    except TimeoutError:
        if not limit.expired():
            raise
        raise RequestTimeoutError(f"{shown} was not fetched within {timeout:g} s") from None
    raise InvalidRequestError(f"{shown} leads through more than {MAX_REDIRECTS} redirects: give the URL that it ends at")


async def download(image: Image | str, *, max_bytes: int = 100 * 2**20, allow_private_urls: bool = False, timeout: float = 120.0) -> bytes:
    """The bytes of an image: its ``data``, or what is behind its ``url``.

    Args:
        image: An image of an answer, a URL, or a data URI.
        max_bytes: Bytes that it may have.
        allow_private_urls: Whether the URL may lead to an address that is not public.
        timeout: Seconds.

    Raises:
        InvalidRequestError: It has neither data nor URL, or ``fetch`` refuses the URL.
        ProviderConnectionError: The server was not reached, or failed.
        RequestTimeoutError: It took longer than ``timeout``.
    """
    if isinstance(image, Image) and image.data is not None:
        return image.data
    url = image.url if isinstance(image, Image) else image
    if not isinstance(url, str) or not url.strip():
        raise InvalidRequestError("the image has neither data nor a URL, so there is nothing to download")
    if url.startswith("data:"):
        if (held := from_data_uri(url)) is None:
            raise InvalidRequestError(f"the image's URL begins with {url[:40]!r}, and a data URI must be data:TYPE;base64,DATA")
        return held[1]
    return (await fetch(url, max_bytes=max_bytes, allow_private=allow_private_urls, timeout=timeout)).data


def _parsed(url: str) -> URL:
    from yarl import URL

    text = url.strip()
    shown = re.sub("//[^/]*@", "//", re.split(r"[?#]", text)[0])[:200]
    try:
        # What is well formed goes out as it was written: a signature may be over that.
        link = URL(text, encoded=re.fullmatch("[!-~]+", text) is not None).with_fragment(None)
        host, _ = link.raw_host, link.port
        if host and ":" not in host:
            host.encode("idna")
    except ValueError as exc:
        raise InvalidRequestError(f"{shown!r} is no URL: {type(exc).__name__}. Give one as https://host/path") from None
    if link.scheme not in ("http", "https") or not host:
        raise InvalidRequestError(f"{shown!r} is no http or https URL, and only those are fetched")
    if link.raw_user is not None or link.raw_password is not None:
        raise InvalidRequestError(f"{shown!r} holds a user name or a password, which is not sent: download it, and give the file")
    # 2130706433, 0x7f.1 and 0177.0.0.1 are 127.0.0.1 to the system: write out what is meant before it is checked.
    if re.fullmatch(r"(0[xX])?[0-9a-fA-F]+(\.(0[xX])?[0-9a-fA-F]+){0,3}\.?", host):
        with contextlib.suppress(OSError):  # a name that only looks like a number, as abc.de
            link = link.with_host(socket.inet_ntoa(socket.inet_aton(host.rstrip("."))))
    return link


def _shown(link: URL) -> str:
    """A URL without what may be secret in it."""
    return f"{link.origin()}{link.raw_path}"[:300]


async def _get(link: URL, max_bytes: int, *, allow_private: bool) -> Fetched | URL:
    """One request: what it brought, or where it is to be sought instead."""
    import aiohttp

    host, shown = str(link.raw_host), _shown(link)
    proxy = _proxy_for(link.scheme, host)
    addresses = [] if proxy and allow_private else await _addresses(link, allow_private=allow_private)
    connector = aiohttp.TCPConnector(
        # A proxy may stand in the own network, and its name is looked up as any other.
        resolver=None if proxy else _Checked(addresses),  # type: ignore[arg-type]  # aiohttp's base class would be a top-level import
        use_dns_cache=False,
        force_close=True,
    )
    try:
        async with (
            aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
                auto_decompress=False,  # it knows no bound
            ) as session,
            session.get(
                link,
                allow_redirects=False,
                proxy=proxy,
                headers={"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": f"llm_master {aiohttp.http.SERVER_SOFTWARE}"},
            ) as response,
        ):
            if response.status in _REDIRECTS:
                return _redirected(link, response.headers.get("Location"), response.status)
            if response.status != 200:
                said = f"{shown} cannot be fetched: its server answers {response.status}"
                if response.status >= 500 or response.status in _MAY_PASS:
                    raise ProviderConnectionError(f"{said}. Try again later, or download it and give the file")
                raise InvalidRequestError(f"{said}. Check that the URL is right and open to everybody")
            media_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
            return Fetched(await _body(response, shown, max_bytes), media_type or None, str(link))
    except (aiohttp.ClientError, OSError) as exc:
        raise ProviderConnectionError(f"{shown} could not be fetched: {_reason(exc)}") from None


def _reason(exc: Exception) -> str:
    """What went wrong. aiohttp's own text may hold the whole URL."""
    import aiohttp

    if isinstance(exc, (aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError)):
        return f"its TLS certificate was not accepted ({exc})"
    if isinstance(exc, aiohttp.ClientConnectorError) and not isinstance(exc.os_error, socket.gaierror):
        # A loop says "Connect call failed" of whatever kept it from connecting; the number says why.
        return os.strerror(exc.os_error.errno) if exc.os_error.errno else str(exc.os_error)
    if isinstance(exc, aiohttp.ClientResponseError):
        return exc.message or type(exc).__name__
    return type(exc).__name__ if isinstance(exc, aiohttp.InvalidURL) else str(exc) or type(exc).__name__


def _redirected(link: URL, location: str | None, status: int) -> URL:
    if not location:
        raise InvalidRequestError(f"{_shown(link)} cannot be fetched: its server answers {status} and does not say where to go")
    from yarl import URL

    try:
        return _parsed(str(link.join(URL(location, encoded=re.fullmatch("[!-~]+", location) is not None))))
    except (ValueError, InvalidRequestError) as exc:
        why = str(exc) if isinstance(exc, InvalidRequestError) else "that is no URL"
        raise InvalidRequestError(f"{_shown(link)} redirects to where nothing is fetched: {why}") from None


async def _body(response: aiohttp.ClientResponse, shown: str, max_bytes: int) -> bytes:
    too_much = InvalidRequestError(f"{shown} holds more than {max_bytes / 2**20:g} MiB: give a smaller one, or allow more by max_bytes")
    if (response.content_length or 0) > max_bytes:
        raise too_much
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip", "x-gzip", "deflate", ""):
        raise InvalidRequestError(f"{shown} is sent in the encoding {encoding!r}, which was not asked for: download it, and give the file")
    # Some send compressed what they were asked for plain. 32 says: gzip or zlib, by its head.
    inflater = None if encoding in ("identity", "") else zlib.decompressobj(32 + zlib.MAX_WBITS)
    pieces: list[bytes] = []
    size = sent = 0
    async for piece in response.content.iter_any():
        sent += len(piece)
        if inflater is not None:
            try:
                piece = inflater.decompress(piece, max_bytes - size + 1)  # noqa: PLW2901
            except zlib.error as exc:
                raise ProviderConnectionError(f"{shown} could not be fetched: its compressed data is damaged ({exc})") from None
        size += len(piece)
        if size > max_bytes or sent > max_bytes:
            raise too_much
        pieces.append(piece)
    if inflater is not None and (not inflater.eof or inflater.unused_data):
        raise ProviderConnectionError(f"{shown} could not be fetched: its compressed data is not whole")
    return b"".join(pieces)


async def _addresses(link: URL, *, allow_private: bool) -> list[tuple[int, str]]:
    """Family and address of everything that the URL's host stands for, all of it checked."""
    host = str(link.raw_host)
    addresses: list[tuple[int, str]]
    try:
        literal = ipaddress.ip_address(host)
    except ValueError:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, link.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise ProviderConnectionError(f"{_shown(link)} could not be fetched: its host is not known") from None
        addresses = [(family, str(sockaddr[0])) for family, _, _, _, sockaddr in found]
    else:
        addresses = [(socket.AF_INET6 if literal.version == 6 else socket.AF_INET, host)]
    if not allow_private:
        for _, address in addresses:
            if not is_public(address):
                raise InvalidRequestError(
                    f"{_shown(link)} is at {address}, which is no public address: download it and give the file, "
                    "or allow private URLs where every URL is trusted"
                )
    return addresses


def is_public(address: str) -> bool:
    """Whether an IP address is one of the open internet."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in _NAT64 else ip.ipv4_mapped or ip.sixtofour
        if inner is not None:
            return is_public(str(inner))
        if ip.is_site_local:
            return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


class _Checked:
    """A resolver that knows the addresses that were checked, and looks nothing up."""

    def __init__(self, addresses: list[tuple[int, str]]) -> None:
        self._addresses = addresses

    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_UNSPEC) -> list[dict[str, Any]]:
        return [
            {"hostname": host, "host": address, "port": port, "family": kind, "proto": 0, "flags": socket.AI_NUMERICHOST}
            for kind, address in self._addresses
        ]

    async def close(self) -> None:
        """Nothing is open."""
