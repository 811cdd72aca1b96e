"""Newline-delimited JSON: whatever the pieces, the same lines."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llm_master.providers.lines import LineParser

lines = st.lists(st.sampled_from(['{"a":1}', '{"text":"日本é🙂 \\n"}', "", " ", "[]", '{"u":"\u2028"}']), max_size=6)
ends = st.sampled_from(["\n", "\r\n", "\n\n"])


@given(lines, ends, st.booleans(), st.lists(st.integers(0, 80), max_size=8))
def test_lines_do_not_depend_on_how_the_bytes_arrive(wanted, end, closed, cuts):
    stream = (end.join(wanted) + (end if closed else "")).encode()
    at = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
    parser = LineParser()
    found = [line for a, b in zip(at, at[1:], strict=False) for line in parser.feed(stream[a:b])] + parser.end()
    assert [line.decode() for line in found] == [line for line in wanted if line.strip()]
    assert parser.end() == []


def test_a_line_is_there_as_soon_as_it_is_complete():
    parser = LineParser()
    assert parser.feed(b'{"a":') == []
    assert parser.feed(b'1}\n{"b":2}\n{"c"') == [b'{"a":1}', b'{"b":2}']
    assert parser.feed(b":3}") == []
    assert parser.end() == [b'{"c":3}']
