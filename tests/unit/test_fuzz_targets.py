"""Whatever reads bytes of strangers reads or refuses them: the targets of scripts/fuzz parsers, for a moment each."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz_targets import SEEDS, TARGETS


@st.composite
def spoiled(draw: st.DrawFn) -> bytes:
    """Something well-formed with a piece of it replaced."""
    seed = draw(st.sampled_from(SEEDS))
    start, end = sorted(draw(st.tuples(st.integers(0, len(seed)), st.integers(0, len(seed)))))
    return seed[:start] + draw(st.binary(max_size=12)) + seed[end:]


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=300)
@given(st.one_of(st.binary(max_size=200), spoiled()))
def test_any_bytes_are_read_or_refused(name: str, data: bytes) -> None:
    TARGETS[name](data)


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize(
    "data",
    [b"\xff", b'{"id":"\xff"}', b'{"a\xff":1}', b"[" * 100_000, b'{"data":' + b"[" * 100_000, b"1" * 5_000, b"\x00"],
)
def test_what_has_broken_parsers_before_breaks_none(name: str, data: bytes) -> None:
    TARGETS[name](data)
