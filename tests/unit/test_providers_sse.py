"""The splitter gives the same events however the bytes arrive."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.errors import BadResponse
from providers.sse import Splitter, event_bytes

STREAMS = {
    "plain": (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
    "crlf": (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
    "cr": (b"data: a\r\rdata: b\r\r", [b"a", b"b"]),
    "mixed line ends": (b"data: a\r\n\ndata: b\n\r\ndata: c\r\r\n\n", [b"a", b"b", b"c"]),
    "no space": (b"data:a\n\ndata:  b\n\n", [b"a", b" b"]),
    "several data lines": (b"data: {\ndata: }\n\n", [b"{\n}"]),
    "comments": (b": hi\n\n:\ndata: a\n: x\n\n: keep-alive\n\n", [b"a"]),
    "names, ids, retry": (b"event: message\nid: 7\nretry: 1\ndata: a\n\nevent: ping\n\n", [b"a"]),
    "byte order mark": (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
    "characters": ("data: \U0001f40b é 中\n\n".encode(), ["\U0001f40b é 中".encode()]),
    "text that looks like an event": (b'data: {"t":"data: [DONE]\\n\\n"}\n\n', [b'{"t":"data: [DONE]\\n\\n"}']),
    "empty data": (b"data:\n\ndata: \n\ndata\n\ndata: a\n\n", [b"a"]),
    "many blank lines": (b"\n\n\n\ndata: a\n\n\n\n\n\ndata: b\n\n\n", [b"a", b"b"]),
    "no blank line at the end": (b"data: a\n\ndata: b", [b"a", b"b"]),
    "one line feed at the end": (b"data: a\n\ndata: b\n", [b"a", b"b"]),
    "nothing": (b"", []),
    "half a mark": (b"\xef\xbb", []),
}


def split(pieces: list[bytes]) -> list[bytes]:
    splitter = Splitter()
    return [event for piece in pieces for event in splitter.feed(piece)] + splitter.finish()


@pytest.mark.parametrize("name", STREAMS)
def test_every_split_point_gives_the_same_events(name: str) -> None:
    stream, events = STREAMS[name]
    assert split([stream]) == events
    assert split([bytes([byte]) for byte in stream]) == events
    for first in range(len(stream) + 1):
        for second in range(first, len(stream) + 1):
            assert split([stream[:first], stream[first:second], stream[second:]]) == events


@given(
    lines=st.lists(st.sampled_from([b"data: x", b"data:yy", b": c", b"id: 1", b"", b"", b"\xc3\xa9", b"data"])),
    end=st.sampled_from([b"\n", b"\r\n", b"\r"]),
    cuts=st.lists(st.integers(0, 80), max_size=6),
)
def test_pieces_never_change_the_meaning_of_a_stream(lines: list[bytes], end: bytes, cuts: list[int]) -> None:
    stream = b"".join(line + end for line in lines)
    marks = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces = [stream[a:b] for a, b in pairwise(marks)]
    assert split(pieces) == split([stream]) == split([b"\n".join([*lines, b""])])


def test_an_event_is_given_out_as_soon_as_its_blank_line_is_there() -> None:
    splitter = Splitter()
    assert splitter.feed(b"data: a\r\n\r") == [b"a"]
    assert splitter.feed(b"\ndata: b\n\n") == [b"b"]


def test_a_line_of_a_megabyte_in_small_pieces_is_one_event() -> None:
    line = b"data: " + b"x" * 1_000_000 + b"\n\n"
    assert split([line[at : at + 1000] for at in range(0, len(line), 1000)]) == [line[6:-2]]


def test_an_event_over_the_bound_is_a_bad_response() -> None:
    splitter = Splitter(max_event=100)
    with pytest.raises(BadResponse):
        for _ in range(20):
            splitter.feed(b"data: 01234")


def test_an_event_leaves_as_one_line_and_a_blank_one() -> None:
    assert event_bytes(b'{\n"a": 1}') == b'data: { "a": 1}\n\n'
