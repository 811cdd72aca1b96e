"""HTTP. The only package that imports an HTTP client, and only on first use.

One aiohttp session per event loop serves the whole process. It is closed when its loop ends (asyncio shuts down the
loop's asynchronous generators, and one of them is ours) or when the last ``QueryLLM`` context on that loop is left.

What makes a call cheap here: URL, headers, TLS and proxy of an endpoint are worked out once; no cookies, no redirects,
no timer of aiohttp's own (the engine's one timer bounds the call).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from llm_master.errors import ConfigurationError, ProviderConnectionError, ProviderError, RequestTimeoutError, ServerError
from llm_master.transport.session import CONNECT_TIMEOUT, Session, current_session

if TYPE_CHECKING:
    from ssl import SSLContext

    import aiohttp


DRAIN_TIMEOUT = 5.0
"""Seconds that a stream's connection may take to end after its last event, before it is given up instead of reused."""

_SECRET_HEADERS = frozenset({"authorization", "proxy-authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie"})

_NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG")
"""What OpenSSL calls an answer that is no TLS at all."""

_SECRET_QUERY = frozenset({"key", "api_key", "api-key", "apikey", "token", "access_token", "sig", "signature"})


class Answer:
    """A whole HTTP answer.

    Attributes:
        sent_at: When the request was handed to its connection, by ``time.monotonic()``.
    """

    __slots__ = ("body", "headers", "sent_at", "status")

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes, sent_at: float | None = None) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.sent_at = sent_at


class Endpoint:
    """One URL with what every request to it has in common."""

    __slots__ = ("_headers", "_proxy", "_ssl", "_url", "host")

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        *,
        query: Mapping[str, str] | None = None,
        verify_ssl: bool = True,
        ca_bundle: str | None = None,
    ) -> None:
        from aiohttp.http import SERVER_SOFTWARE
        from multidict import CIMultiDict, istr
        from yarl import URL

        try:
            parsed = URL(url)
            self._url = parsed.update_query(query) if query else parsed
        except ValueError as exc:
            raise ConfigurationError(f"base_url makes no URL: {url!r}: {exc}") from exc
        # Every header that aiohttp would add by itself stands here already, which is cheaper than its adding them.
        common = {
            "Accept": "application/json",
            "Accept-Encoding": "gzip, deflate",
            "Content-Type": "application/json",
            "User-Agent": f"llm_master {SERVER_SOFTWARE}",
        }
        self._headers = CIMultiDict({istr(name): value for name, value in {**common, **headers}.items()})
        self._ssl = _ssl_context(verify_ssl=verify_ssl, ca_bundle=ca_bundle)
        self._proxy = _proxy_for(self._url.scheme, self._url.raw_host or "")
        self.host = f"{self._url.raw_host}:{self._url.port}"

    def _take(self, other: Endpoint) -> None:
        """Be the same as another."""
        self._url, self._headers, self._ssl, self._proxy, self.host = other._url, other._headers, other._ssl, other._proxy, other.host

    @property
    def proxy(self) -> str | None:
        """The proxy on the way, without a login; ``None`` where there is none."""
        return self._proxy and _without_login(self._proxy)

    @property
    def url(self) -> str:
        """Address and path, without what may hold a secret."""
        return str(self._url.with_query(None))

    def header(self, name: str) -> str:
        """What every request says under this name; empty where it says nothing. It may be a secret."""
        return self._headers.get(name, "")

    def shown_url(self, secret: str | None) -> str:
        """The whole URL as it may be shown: a key in its query masked."""
        masked = {name: _mask(value, secret) if name.lower() not in _SECRET_QUERY else "…" for name, value in self._url.query.items()}
        return str(self._url.with_query(masked).human_repr()) if masked else str(self._url)

    def shown_headers(self, secret: str | None) -> dict[str, str]:
        """The headers of a request as they may be shown: the key, and whatever else may be one, masked."""
        shown = {}
        for name, value in self._headers.items():
            masked = _mask(value, secret)
            shown[str(name)] = "…" if masked == value and name.lower() in _SECRET_HEADERS else masked
        return shown

    async def post(self, body: bytes) -> Answer:
        """Send ``body`` (JSON) and read the whole answer.

        Raises:
            ProviderConnectionError: No connection, or it broke.
            RequestTimeoutError: The connection was not made in time.
        """
        return await self._exchange("POST", body)

    async def get(self, *, max_bytes: int | None = None) -> Answer:
        """Read the whole answer to a GET. Raises what :meth:`post` does, and ``ServerError`` of one longer than ``max_bytes``."""
        return await self._exchange("GET", None, max_bytes)

    async def _exchange(self, method: str, body: bytes | None, max_bytes: int | None = None) -> Answer:
        session = current_session()
        session.active += 1
        timed = session.timed(body) if body is not None else None
        try:
            response = await session.send(self, method, timed)
            content = await response.read() if max_bytes is None else await _read_at_most(response, max_bytes)
            return Answer(response.status, response.headers, content, timed.sent_at if timed is not None else None)
        except Exception as exc:
            if (translated := _translated(exc, self.host)) is exc:
                raise
            raise translated from exc
        finally:
            session.active -= 1
            if session.retired:
                await session.close_if_idle()

    async def open(self, body: bytes) -> Stream:
        """Send ``body`` (JSON) and return when the head of the answer has arrived. Raises what :meth:`post` does."""
        session = current_session()
        session.active += 1
        timed = session.timed(body)
        try:
            return Stream(session, self.host, await session.send(self, "POST", timed), timed.sent_at)
        except BaseException as exc:
            session.active -= 1
            if session.retired:
                await session.close_if_idle()
            if not isinstance(exc, Exception) or (translated := _translated(exc, self.host)) is exc:
                raise
            raise translated from exc


class SigningEndpoint(Endpoint):
    """An endpoint whose requests have headers of their own, made of each one's body and moment.

    Args:
        endpoint: Where to, with what the requests have in common.
        url: The same address as it is to be sent. What is percent-encoded in it stays so, since a signature is over that.
        sign: Given method, URL and body, the headers that replace or join the others.
    """

    __slots__ = ("_sign",)

    def __init__(self, endpoint: Endpoint, url: str, sign: Callable[[str, str, bytes], Mapping[str, str]]) -> None:
        from yarl import URL

        self._take(endpoint)
        self._url = URL(url, encoded=True).with_query(endpoint._url.query or None)
        self._sign = sign

    async def _exchange(self, method: str, body: bytes | None, max_bytes: int | None = None) -> Answer:
        return await self._signed(method, body or b"")._exchange(method, body, max_bytes)

    async def open(self, body: bytes) -> Stream:
        """Send ``body``, signed, and return when the head of the answer has arrived. Raises what :meth:`post` does."""
        return await self._signed("POST", body).open(body)

    def _signed(self, method: str, body: bytes) -> Endpoint:
        once: Endpoint = Endpoint.__new__(Endpoint)
        once._take(self)
        once._headers = self._headers.copy()
        once._headers.update(self._sign(method, str(self._url), body))
        return once


class Stream:
    """An answer whose body is read as it arrives. Whoever opened it calls :meth:`close` or :meth:`finish`."""

    __slots__ = ("_host", "_response", "_session", "headers", "sent_at", "status")

    def __init__(self, session: Session, host: str, response: aiohttp.ClientResponse, sent_at: float | None) -> None:
        self.sent_at = sent_at
        self._session: Session | None = session
        self._host = host
        self._response = response
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers

    async def read(self) -> bytes:
        """The bytes that have arrived, at least one; empty at the end. Raises what ``Endpoint.post`` does."""
        try:
            return await self._response.content.readany()
        except Exception as exc:
            if (translated := _translated(exc, self._host)) is exc:
                raise
            raise translated from exc

    async def read_all(self) -> bytes:
        """The whole body, of an answer that turns out to be no stream."""
        pieces = []
        while piece := await self.read():
            pieces.append(piece)
        return b"".join(pieces)

    def close(self) -> None:
        """Close the connection, unless the answer has ended and the connection is free already, or is left to end."""
        if self._session is not None:
            self._response.close()
            self._leave()

    def finish(self) -> None:
        """Leave the connection for reuse once the rest of the body has come, which nobody needs to wait for."""
        content = self._response.content
        if self._session is not None and not content.at_eof() and content.exception() is None:
            response, draining = self._response, self._session.draining
            draining.add(response)
            give_up = asyncio.get_running_loop().call_later(DRAIN_TIMEOUT, _give_up, response, draining)

            def ended() -> None:
                give_up.cancel()
                draining.discard(response)

            content.on_eof(ended)
        self._leave()

    def _leave(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.active -= 1
            if session.retired:
                session.close_soon()


async def _read_at_most(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    pieces: list[bytes] = []
    size = 0
    try:
        while piece := await response.content.readany():
            pieces.append(piece)
            size += len(piece)
            if size > max_bytes:
                raise ServerError(f"answered {response.status} with more than {max_bytes:,} bytes", status=response.status)
        return b"".join(pieces)
    finally:
        response.release() if response.content.at_eof() else response.close()


def _give_up(response: aiohttp.ClientResponse, draining: set[aiohttp.ClientResponse]) -> None:
    draining.discard(response)
    response.close()


def _mask(value: str, secret: str | None) -> str:
    """A value with the key in it, if it is, cut down to its last four characters."""
    if not secret or secret not in value:
        return value
    return value.replace(secret, f"…{secret[-4:]}" if len(secret) >= 8 else "…")


def _without_login(proxy: str) -> str:
    scheme, separator, rest = proxy.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def _ssl_context(*, verify_ssl: bool, ca_bundle: str | None) -> SSLContext | bool:
    if not verify_ssl:
        return False
    if ca_bundle is None:
        return True
    import ssl

    try:
        return ssl.create_default_context(cafile=ca_bundle)
    except OSError as exc:
        raise ConfigurationError(f"ca_bundle {ca_bundle!r} cannot be read: {exc}. Give the path of a PEM file") from exc


def _proxy_for(scheme: str, host: str) -> str | None:
    from urllib.request import getproxies, proxy_bypass

    # Once per endpoint: aiohttp's trust_env does this for each request, which makes a call 3.6 times dearer.
    proxies = getproxies()
    proxy = proxies.get(scheme) or proxies.get("all")
    # This machine is nowhere a proxy could lead; NO_PROXY need not name it, as it need not for Go's clients.
    if not proxy or _is_loopback(host) or proxy_bypass(host):
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    if not proxy.startswith(("http://", "https://")):
        kind = proxy.partition(":")[0]
        raise ConfigurationError(
            f"the proxy for {scheme}://{host} is of kind {kind!r}, and only http and https proxies are supported: "
            f"change {scheme.upper()}_PROXY, or name the host in NO_PROXY"
        )
    return proxy


def _is_loopback(host: str) -> bool:
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _translated(exc: Exception, host: str) -> Exception:
    """Say what happened in the library's own errors; what is already one, or no network fault, stays."""
    import aiohttp

    if isinstance(exc, ProviderError):
        return exc
    if isinstance(exc, (aiohttp.ServerTimeoutError, TimeoutError)):
        return RequestTimeoutError(f"no connection to {host} within {CONNECT_TIMEOUT:g} s")
    if isinstance(exc, aiohttp.ClientHttpProxyError):
        remedy = (
            "it wants a login: put one into HTTPS_PROXY, as http://user:password@proxy:port" if exc.status == 407 else "ask who runs it"
        )
        return ProviderConnectionError(f"the proxy on the way to {host} refused: {exc.status} {exc.message}; {remedy}")
    if isinstance(exc, aiohttp.ClientConnectorError) and (there := f"{exc.host}:{exc.port}") != host:
        # Who was to be connected with is another: a proxy, before anything reached the provider.
        why = "its host is not known" if isinstance(exc, aiohttp.ClientConnectorDNSError) else exc.os_error.strerror or str(exc.os_error)
        return ProviderConnectionError(
            f"no connection to the proxy {there} on the way to {host}: {why}. Check HTTPS_PROXY and HTTP_PROXY, or name the host in NO_PROXY"
        )
    if isinstance(exc, aiohttp.ClientConnectorDNSError):
        return ProviderConnectionError(f"the host of {host} is not known: check base_url ({exc.os_error})")
    if isinstance(exc, aiohttp.ClientConnectorSSLError) and getattr(exc.os_error, "reason", None) in _NO_TLS:
        return ProviderConnectionError(f"{host} does not speak TLS: begin base_url with http:// if that is meant ({exc.os_error})")
    if isinstance(exc, (aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError)):
        return ProviderConnectionError(f"the TLS certificate of {host} was not accepted: {exc}. A private authority goes into ca_bundle")
    if isinstance(exc, aiohttp.ClientConnectorError):
        return ProviderConnectionError(f"no connection to {host}: {exc.os_error.strerror or exc.os_error}. Does the server run there?")
    if isinstance(exc, (aiohttp.ClientError, OSError)):
        return ProviderConnectionError(f"the connection to {host} broke: {exc or type(exc).__name__}")
    return exc
