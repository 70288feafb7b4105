"""Edits: overlaps become their union, positions stay true, nothing outside a span changes."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.edits import apply_edits, edit_text, merge
from schemas.verdicts import Edit


def _edit(start: int, end: int, replacement: str = "*", pointer: str = "/a", kind: str = "k") -> Edit:
    return Edit(digest="d", pointer=pointer, start=start, end=end, replacement=replacement, kind=kind)


@st.composite
def _texts(draw: st.DrawFn) -> tuple[str, list[Edit]]:
    """A text and non-empty spans inside it."""
    text = draw(st.text(min_size=1, max_size=40))
    edits = []
    for _ in range(draw(st.integers(0, 6))):
        start = draw(st.integers(0, len(text) - 1))
        end = draw(st.integers(start + 1, len(text)))
        edits.append(_edit(start, end, draw(st.sampled_from(["", "*", "[name]"]))))
    return text, edits


@given(_texts())
def test_merged_spans_are_disjoint_in_order_and_cover_the_same(made: tuple[str, list[Edit]]) -> None:
    _, edits = made
    merged = merge(edits)
    assert all(before.end <= after.start for before, after in itertools.pairwise(merged))
    covered = {place for edit in edits for place in range(edit.start, edit.end)}
    assert {place for edit in merged for place in range(edit.start, edit.end)} == covered


@given(_texts(), st.randoms())
def test_order_of_the_edits_does_not_matter(made: tuple[str, list[Edit]], random: Any) -> None:
    _, edits = made
    shuffled = list(edits)
    random.shuffle(shuffled)
    spans = [(edit.start, edit.end) for edit in merge(edits)]
    assert [(edit.start, edit.end) for edit in merge(shuffled)] == spans


@given(_texts())
def test_merging_again_changes_nothing(made: tuple[str, list[Edit]]) -> None:
    _, edits = made
    assert merge(merge(edits)) == merge(edits)


@given(_texts())
def test_what_is_not_edited_stays_and_what_is_edited_goes(made: tuple[str, list[Edit]]) -> None:
    text, edits = made
    merged = merge(edits)
    expected, place = "", 0
    for edit in merged:
        expected += text[place : edit.start] + edit.replacement
        place = edit.end
    assert edit_text(text, edits) == expected + text[place:]


def test_overlap_takes_the_replacement_of_the_earliest_then_longest() -> None:
    assert edit_text("0123456789", [_edit(4, 8, "B"), _edit(2, 5, "A")]) == "01A89"
    assert edit_text("0123456789", [_edit(2, 3, "B"), _edit(2, 6, "A")]) == "01A6789"


def test_touching_spans_stay_apart() -> None:
    assert edit_text("abcd", [_edit(0, 2, "X"), _edit(2, 4, "Y")]) == "XY"


def test_positions_are_code_points() -> None:
    assert edit_text("a😀b😀", [_edit(3, 4, "!")]) == "a😀b!"


def test_edits_reach_every_string_of_a_body() -> None:
    body = {"messages": [{"content": "call me"}, {"content": [{"text": "or me"}]}], "a/b": {"~x": "odd"}}
    edited = apply_edits(
        body,
        [
            _edit(5, 7, "us", "/messages/0/content"),
            _edit(3, 5, "us", "/messages/1/content/0/text"),
            _edit(0, 3, "even", "/a~1b/~0x"),
        ],
    )
    assert edited is body
    assert body["messages"] == [{"content": "call us"}, {"content": [{"text": "or us"}]}]
    assert body["a/b"] == {"~x": "even"}


def test_empty_list_of_edits_changes_nothing() -> None:
    body = {"a": ["b"]}
    assert apply_edits(copy.deepcopy(body), []) == body


@pytest.mark.parametrize("pointer", ["/b", "/a/5", "/a/x", "/a/0/x/y", "/a/-1", "/a/²"])
def test_pointer_that_leads_nowhere_is_an_error(pointer: str) -> None:
    with pytest.raises(LookupError):
        apply_edits({"a": ["text"]}, [_edit(0, 1, pointer=pointer)])


@pytest.mark.parametrize(("start", "end"), [(0, 5), (-1, 2), (3, 2)])
def test_span_outside_its_text_is_an_error(start: int, end: int) -> None:
    with pytest.raises(ValueError, match="outside"):
        edit_text("abcd", [_edit(start, end)])


def test_edit_of_something_else_than_text_is_an_error() -> None:
    with pytest.raises(ValueError, match="not text"):
        apply_edits({"a": 5}, [_edit(0, 1)])
