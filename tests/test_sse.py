"""Server-sent events: whatever the pieces, the same events."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llm_master.providers.sse import NamedEvent, SSEParser


def reference(stream: bytes) -> list[tuple[str, str]]:
    """Name and data of each event, by the letter of
    https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation."""
    text = stream.decode("utf-8", errors="surrogateescape").removeprefix("\ufeff")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    events = []
    data: list[str] = []
    name = ""
    for line in lines[:-1]:  # what follows the last line end is no line yet
        if line == "":
            if data:
                events.append((name, "\n".join(data)))
            data, name = [], ""
            continue
        if line.startswith(":"):
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            data.append(value)
        elif field == "event":
            name = value
    return events


def shown(event: bytes) -> tuple[str, str]:
    return (event.name if isinstance(event, NamedEvent) else "", event.decode("utf-8", errors="surrogateescape"))


def parsed(pieces, *, end: bool = False) -> list[tuple[str, str]]:
    parser = SSEParser()
    events = [shown(event) for piece in pieces for event in parser.feed(piece)]
    return events + ([shown(event) for event in parser.end()] if end else [])


def split(stream: bytes, cuts) -> list[bytes]:
    at = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
    return [stream[a:b] for a, b in zip(at, at[1:], strict=False)]


words = st.text(st.sampled_from('ab: {}"日本é🙂\u2028\ufeff\x0b\x85'), max_size=6)
lines = st.one_of(
    words.map(lambda word: f"data: {word}"),
    words.map(lambda word: f"data:{word}"),
    st.just("data"),
    st.just(""),
    st.just(""),
    words.map(lambda word: f":{word}"),
    words.map(lambda word: f"event: {word}"),
    st.just("event"),
    st.just("id: 7"),
    st.just("retry: 1000"),
    words,
    st.just("data: [DONE]"),
    st.just(" data: indented"),
    st.just("Data: not ours"),
)
ends = st.sampled_from(["\n", "\r\n", "\r"])


@st.composite
def streams(draw) -> bytes:
    if draw(st.booleans()):
        end = draw(ends)
        text = "".join(line + end for line in draw(st.lists(lines, max_size=12)))
    else:
        text = "".join(line + draw(ends) for line in draw(st.lists(lines, max_size=12)))
    tail = draw(st.sampled_from(["", "", "data: unfinished", "dat"]))
    return (draw(st.sampled_from(["", "\ufeff"])) + text + tail).encode()


@settings(deadline=None, max_examples=250)
@given(streams(), st.lists(st.integers(0, 200), max_size=12))
@example("data: a\n\n\ndata: b\n\n".encode(), [9])
@example("data: a\r\n\r\ndata: b\r\n\r\n".encode(), [8, 9, 10])
@example("\ufeffdata: a\n\n".encode(), [1, 2])
@example("data: a\r\rdata: b\r\r".encode(), [8])
@example("event: error\ndata: 1\n\ndata: 2\n\n".encode(), [])
def test_events_do_not_depend_on_where_the_bytes_are_split(stream, cuts):
    expected = reference(stream)
    # A CR that ends the stream may be half of a CRLF: its line is only sure at the end.
    closing = b"" if not stream.endswith(b"\r") else b": no more\n"
    assert parsed([*split(stream, cuts), closing]) == expected


@settings(deadline=None, max_examples=120)
@given(streams())
def test_events_are_the_same_byte_by_byte_and_whole(stream):
    whole = parsed([stream], end=True)
    assert parsed([stream[i : i + 1] for i in range(len(stream))], end=True) == whole
    assert parsed([b"", *[piece for i in range(len(stream)) for piece in (stream[i : i + 1], b"")]], end=True) == whole


@settings(deadline=None, max_examples=120)
@given(streams(), st.lists(st.integers(0, 200), max_size=6))
def test_a_last_event_that_was_not_closed_comes_at_the_end(stream, cuts):
    assert parsed(split(stream, cuts), end=True) == reference(stream + b"\n\n")


@settings(deadline=None, max_examples=100)
@given(st.lists(st.binary(max_size=30), max_size=10))
def test_no_bytes_make_it_fail(pieces):
    parser = SSEParser()
    events = [event for piece in pieces for event in parser.feed(piece)] + parser.end()
    assert all(isinstance(event, bytes) for event in events)
    assert parser.end() == []


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_stream_of_chat_completions(end):
    lines = [
        ": keep-alive",
        "",
        'data: {"a":1}',
        "",
        'data: {"a":',
        "data: 2}",
        "",
        "event: error",
        'data: {"error":{}}',
        "",
        "data: [DONE]",
        "",
        "",
    ]
    stream = end.join(lines).encode() + b": more\n"
    assert parsed([stream]) == [("", '{"a":1}'), ("", '{"a":\n2}'), ("error", '{"error":{}}'), ("", "[DONE]")]


def test_a_character_that_is_split_over_two_packets_is_whole():
    stream = 'data: {"text":"日本🙂"}\n\n'.encode()
    for cut in range(len(stream)):
        assert parsed([stream[:cut], stream[cut:]]) == [("", '{"text":"日本🙂"}')]


def test_a_name_holds_for_its_event_only():
    parser = SSEParser()
    first, second = parser.feed(b"event: error\ndata: 1\n\ndata: 2\n\n")
    assert isinstance(first, NamedEvent)
    assert first.name == "error"
    assert not isinstance(second, NamedEvent)


def test_a_byte_order_mark_is_dropped_at_the_beginning_only():
    assert parsed([b"\xef", b"\xbb", b"\xbfdata: a\n\n"]) == [("", "a")]
    assert parsed(["data: a\n\n\ufeffdata: b\n\n".encode()]) == [("", "a")]


def test_an_event_comes_as_soon_as_it_is_complete():
    parser = SSEParser()
    assert parser.feed(b"data: a\n") == []
    assert parser.feed(b"\n") == [b"a"]
    assert parser.feed(b"data: b\n\ndata: c\n\ndata: d") == [b"b", b"c"]
    assert parser.end() == [b"d"]
    assert parser.end() == []


def test_one_space_after_the_colon_is_dropped_and_no_more():
    assert parsed([b"data:a\n\ndata: a\n\ndata:  a \n\n"]) == [("", "a"), ("", "a"), ("", " a ")]
