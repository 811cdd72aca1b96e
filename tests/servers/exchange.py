"""HTTP by hand: every byte that a server sends, and how the connection ends."""

from __future__ import annotations

import json
import socket

KEYS = {"first": "sk-first-0123456789", "second": "sk-second-0123456789"}
ASK = {"model": "m", "messages": [{"role": "user", "content": "Hello there"}]}


def request(body, path="/v1/chat/completions", method="POST", headers=()):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = [f"{method} {path} HTTP/1.1", "host: x", f"content-length: {len(raw)}", *headers, "", ""]
    return "\r\n".join(head).encode() + raw


def exchange(server, body=ASK, **how):
    """Everything that comes back until the connection ends, and whether a reset ended it."""
    with socket.create_connection((server.host, server.port), timeout=10) as connection:
        connection.sendall(request(body, **how))
        came = b""
        try:
            while data := connection.recv(65536):
                came += data
        except ConnectionResetError:
            return came, True
        return came, False


def ask(server, body=ASK, **how):
    """Status, headers and body of an answer."""
    came, was_reset = exchange(server, body, **{**how, "headers": [*how.get("headers", ()), "connection: close"]})
    assert not was_reset
    head, _, body = came.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return int(first.split()[1]), {name.lower(): text for name, text in (line.split(": ", 1) for line in lines)}, body
