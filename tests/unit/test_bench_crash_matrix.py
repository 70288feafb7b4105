"""The judge of the crash matrix: each promise, kept and broken, on made-up runs; the table; the engine that is bad."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI

from bench.faults import cases as kinds
from bench.faults import engines, routing, stages
from bench.faults.bad_engine import Attempt, BadEngine, attempt_of
from bench.faults.field import Field
from bench.faults.invariants import Evidence, Verdict, judge
from bench.faults.load import Load, chat
from bench.faults.play import MERGED, SPLIT, cases
from bench.faults.said import DONE, Said
from bench.faults.table import merged, plain, row_of, table, total
from runtime.topology import load, packaged
from tests.checks_support import load_script
from tests.e2e.scripted import Got, running

WHOLE, CUT = Attempt("a b c ", 3, "finished"), Attempt("a b ", 2, "cut")
FACT = {"run": "r", "tenant": "t", "outcome": "completed"}
ROW = {
    "run": "r",
    "tenant": "t",
    "outcome": "completed",
    "completion_tokens": 3,
    "estimated": False,
    "unverified": [],
}


def said(*tokens: str, **more: Any) -> Said:
    """A stream of these tokens as a client saw it, whole unless more is said."""
    found = Said("n", True, run="r", status=200, clean=True)
    for token in tokens:
        found.take(b'{"choices":[{"delta":{"content":"%b"},"finish_reason":null}]}' % token.encode())
    if not more:
        found.take(b'{"choices":[{"delta":{},"finish_reason":"stop"}]}')
        found.take(DONE)
    return replace(found, **more)


def failed(tokens: int, **more: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Row and fact of a run that broke off."""
    row = {**ROW, "outcome": "failed", "completion_tokens": tokens, "estimated": True, **more}
    return row, {**FACT, "outcome": "failed"}


def evidence(
    one: Said, attempts: list[Attempt] | None = None, rows: Any = None, facts: Any = None, **more: Any
) -> Evidence:
    kept = [ROW] if rows is None else rows
    return Evidence(one, [WHOLE] if attempts is None else attempts, kept, [FACT] if facts is None else facts, **more)


GOOD = said("a ", "b ", "c ")
BROKEN = said("a ", "b ", code="upstream_interrupted")
BROKEN_ROW, BROKEN_FACT = failed(2)


def test_a_whole_answer_as_the_engine_counted_it_keeps_every_promise() -> None:
    verdict = judge(evidence(GOOD, replayed=GOOD.events))
    assert (verdict.ended, verdict.broken) == ("completed", [])


def test_a_broken_answer_with_a_code_that_is_billed_for_what_was_seen_keeps_every_promise() -> None:
    verdict = judge(evidence(BROKEN, [CUT], [BROKEN_ROW], [BROKEN_FACT], replayed=BROKEN.events))
    assert (verdict.ended, verdict.broken) == ("coded", [])


def test_a_cut_run_that_was_read_on_to_its_end_is_no_loss() -> None:
    verdict = judge(evidence(replace(GOOD, clean=False, cut=True, read_on="whole")))
    assert (verdict.ended, verdict.broken) == ("resumed", [])


def test_a_cut_request_that_nobody_knows_of_was_not_accepted() -> None:
    unknown = Said("n", True, cut=True)
    assert judge(evidence(unknown, [], [], [])).ended == "not accepted"
    assert judge(evidence(unknown, [WHOLE], [], [])).ended == "lost"


LOST: dict[str, tuple[Evidence, str]] = {
    "silence": (evidence(replace(GOOD, late=True)), "neither"),
    "a cut that cannot be read on": (
        evidence(replace(GOOD, clean=False, cut=True, read_on="status 404, ended")),
        "neither",
    ),
    "no json": (evidence(replace(GOOD, garbage="oops")), "neither"),
    "a clean end in the middle": (evidence(said("a ", clean=True, official=True)), "finish reason"),
    "a whole answer that is cut short": (evidence(said("a ", finish="stop", done=True)), "no engine gave"),
    "a repeated token": (evidence(said("a ", "a ", code="x"), [CUT], [BROKEN_ROW], [BROKEN_FACT]), "beginning"),
    "a missing token": (evidence(said("a ", "c ", code="x"), [CUT], [BROKEN_ROW], [BROKEN_FACT]), "beginning"),
    "two attempts mixed": (
        evidence(said("a ", "x ", code="x"), [CUT, Attempt("x y ", 2, "cut")], [BROKEN_ROW], [BROKEN_FACT]),
        "beginning",
    ),
    "other events when read again": (evidence(GOOD, replayed=GOOD.events[1:]), "read again"),
    "a gap when read on": (evidence(replace(GOOD, cut=True, read_on="events [5] behind 3")), "reading on"),
    "no row": (evidence(GOOD, rows=[], facts=[]), "no row"),
    "two rows": (evidence(GOOD, rows=[ROW, ROW]), "2 rows"),
    "billed for more than was sent": (evidence(GOOD, rows=[{**ROW, "completion_tokens": 4}]), "the engine sent 3"),
    "billed for less": (evidence(GOOD, rows=[{**ROW, "completion_tokens": 2}]), "billed 2 tokens of 3"),
    "whole and estimated": (evidence(GOOD, rows=[{**ROW, "estimated": True}]), "billed 3 tokens"),
    "answered and on record as failed": (evidence(GOOD, rows=[failed(3)[0]], facts=[failed(3)[1]]), "as failed"),
    "broken and not estimated": (
        evidence(BROKEN, [CUT], [failed(2, estimated=False)[0]], [BROKEN_FACT]),
        "not marked",
    ),
    "broken and billed for another number": (evidence(BROKEN, [CUT], [failed(1)[0]], [BROKEN_FACT]), "billed 1"),
    "no fact": (evidence(GOOD, facts=[]), "0 facts"),
    "two facts": (evidence(GOOD, facts=[FACT, FACT]), "2 facts"),
    "a fact of another outcome": (evidence(GOOD, facts=[BROKEN_FACT]), "differ"),
    "a signature that does not hold": (evidence(GOOD, rows=[{**ROW, "unverified": ["rules"]}]), "rules"),
}


@pytest.mark.parametrize("name", LOST)
def test_a_broken_promise_is_seen(name: str) -> None:
    found, words = LOST[name]
    assert any(words in sentence for sentence in judge(found).broken), judge(found)


#: The second engine goes on behind `a b `.
ON = said("a ", "b ", "x ", wanted=3, continues=True, clean=True, finish="stop", done=True)
PARTS = [CUT, Attempt("x ", 1, "finished")]
ON_ROW = {**ROW, "estimated": True}


def test_a_continued_answer_of_a_model_that_continues_keeps_every_promise() -> None:
    verdict = judge(evidence(ON, PARTS, [ON_ROW]))
    assert (verdict.continued, verdict.broken) == (True, [])
    assert judge(evidence(replace(GOOD, wanted=3, continues=True))).broken == []
    only_its_end_was_missing = replace(GOOD, wanted=3, continues=True)
    assert judge(evidence(only_its_end_was_missing, [Attempt("a b c ", 3, "cut")], [ON_ROW])).broken == []
    failed_again = replace(ON, code="upstream_interrupted", done=False, finish="")
    assert judge(evidence(failed_again, PARTS, [failed(3)[0]], [BROKEN_FACT])).broken == []


@pytest.mark.parametrize(
    ("one", "row", "words"),
    [
        (replace(ON, continues=False), ON_ROW, "no engine gave"),
        (replace(ON, wanted=4), ON_ROW, "3 tokens instead of 4"),
        (replace(ON, text="a x b "), ON_ROW, "beginning"),
        (ON, ROW, "completed and billed 3"),
        (ON, {**ON_ROW, "completion_tokens": 2}, "completed and billed 2"),
        (ON, {**ON_ROW, "completion_tokens": 4}, "the engine sent 3"),
    ],
)
def test_a_continued_answer_that_is_not_one_is_seen(one: Said, row: dict[str, Any], words: str) -> None:
    assert any(words in sentence for sentence in judge(evidence(one, PARTS, [row])).broken)


def test_tables_of_several_runs_are_shown_as_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    faults, files = load_script("faults"), [tmp_path / "a.json", tmp_path / "b.json"]
    bad = row_of("c", {"n": judge(LOST["two rows"][0])}, [(2.0, "b")], [], frozenset(), False)
    good = row_of("c", {"n": judge(evidence(GOOD))}, [(1.0, "a")], [], frozenset(), False)
    routed = routing.Row(routing.CASES[0], requests=10, calls=11)
    files[0].write_text(json.dumps(plain([bad]) | {"routing": []}))
    files[1].write_text(json.dumps(plain([good]) | {"routing": [routing.plain(routed)]}))
    assert merged([bad, good])[0].runs == 2
    assert faults.show(files) == 1
    shown = capsys.readouterr().out
    assert "2.0 b" in shown and "1.100" in shown and "Not as promised: c: 2 rows (1: n)" in shown
    files[1].write_text("{}")
    assert faults.show(files) == 2
    assert str(files[1]) in capsys.readouterr().err


def test_a_row_adds_up_and_says_what_did_not_hold() -> None:
    lost = judge(LOST["two rows"][0])
    row = row_of("c", {"n": judge(evidence(GOOD)), "m": lost}, [(1.0, "a"), (2.0, "b")], ["note"], frozenset(), False)
    assert (row.runs, row.ends, row.billing, row.broken) == (2, {"completed": 2}, 1, ["note", "2 rows (1: m)"])
    assert "2.0 b" in table([row]) and total([row, row]).runs == 4


def test_errors_and_cuts_that_a_case_does_not_explain_are_broken_promises() -> None:
    verdicts = {"n": judge(evidence(GOOD)), "m": Verdict("coded", code="odd"), "o": Verdict("resumed")}
    strict = row_of("c", verdicts, [], [], frozenset(), False)
    assert len(strict.broken) == 2 and "odd" in strict.broken[0]
    assert row_of("c", verdicts, [], [], frozenset({"odd"}), True).broken == []
    assert row_of("c", {}, [], [], frozenset(), False).broken == ["no run was answered whole"]


def test_every_group_of_the_topology_is_struck_at_every_point() -> None:
    text = packaged().replace("      ledger:\n", "      another: {room: r, description: one more group, batch: 1,"
                              " concurrency: 1, idle_limit: 1000, max_starts: 3}\n      ledger:\n")  # fmt: skip
    topology = load(text)
    names = {case.name for case in stages.full(topology, joined=False)}
    assert {f"{group}.{point}" for group in ("another", "router", "ingress") for point in stages.POINTS} <= names
    assert len(stages.groups(topology)) == len(stages.groups(load())) + 1
    assert len({case.name for case in cases(long=True)}) == len(cases(long=True))


@pytest.mark.parametrize("long", [True, False])
def test_only_where_all_workers_share_a_process_a_checker_takes_answers_with_it(long: bool) -> None:
    split, merged = (
        {case.name: case.codes for case in cases(long, layout) if case.family == "stages"} for layout in (SPLIT, MERGED)
    )
    assert split.keys() == merged.keys()
    differ = {name.partition(".")[0] for name in split if split[name] != merged[name]}
    assert differ == {*stages.groups(load()), "console"} - {"router"} if long else {"workers", "rules"}
    assert all(codes <= kinds.BROKEN for codes in (*split.values(), *merged.values()))
    assert not any(merged[name] for name in merged if name.startswith("ingress") or name.endswith("continued"))


def test_the_bad_engine_keeps_a_ledger_of_whole_tokens() -> None:
    bad = BadEngine()
    got = Got({}, b'{"stream": true, "max_tokens": 3, "x": "@@id=one @@fault=hang.2o"}', "/")
    for spoken in (bad.reply(got), bad.reply(replace(got, spoken=bytearray()))):
        pieces = b"".join(piece for piece in spoken if isinstance(piece, bytes))
        (got if not got.spoken else bad._got["one"][1]).spoken += pieces[:-2]
    assert [(one.tokens, one.state) for one in bad.ledger("one")] == [(2, "cut"), (3, "finished")]
    assert attempt_of(b"HTTP/1.1 500 Status\r\n\r\n{}").state == "err"


def test_a_fault_is_met_alone_and_beside_a_well_engine_by_streams_and_unary_by_both_clients() -> None:
    met = {(*engines.fault_of(number, ["half", "html"]), number % 4 != 3, number % 5 == 4) for number in range(160)}
    assert len([one for one in met if one[1] != "good"]) == 2 * 2 * 2 * 2


def test_a_wrong_name_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    faults = load_script("faults")
    assert faults.chosen(faults.known(False), ["router.*"])[:2] == ["router.P1", "router.P2"]
    assert faults.chosen(faults.known(True), ["servers"]) == ["valkey.killed", "valkey.frozen", "postgres.frozen"]
    with pytest.raises(ValueError, match="no case or family 'nothing'"):
        faults.chosen(faults.known(True), ["nothing"])
    for words in (["--outage", "0"], ["--runs", "0"], ["--json", "/nowhere/x.json"]):
        with pytest.raises(ValueError, match=words[0]):
            faults.check(faults.parser().parse_args(words))


def test_a_freeze_is_as_long_as_its_form_has_it_or_as_was_asked_for() -> None:
    def outage(long: bool, asked: float | None) -> float:
        field = Field.__new__(Field)
        field.long, field.outage_s = long, asked
        return field.outage(30.0, 4.0)

    assert [outage(True, None), outage(False, None), outage(True, 7.0)] == [30.0, 4.0, 7.0]


async def seen(kind: str, official: bool) -> tuple[Said, list[Attempt]]:
    """A stream that an engine breaks, seen by a client with no gateway between them."""
    bad = BadEngine()
    with running(bad.engine()) as engine:
        async with AsyncOpenAI(base_url=engine.url, api_key="none", max_retries=0) as client:
            made = Load("direct", engine.url.removesuffix("/v1"), "none", client, 100.0, 9)
            made.said = [Said("", True)] * (4 if official else 0)  # every fifth is the official client's
            said = made.begin(True, chat("m", lambda number: 6, f"@@fault={kind}"))
            await made.stop()
    return said, bad.ledger(said.name)


@pytest.mark.parametrize("official", [False, True])
async def test_both_clients_tell_an_end_from_a_cut(official: bool) -> None:
    said, attempts = await seen("good", official)
    assert said.whole and said.tokens == 6
    assert judge(evidence(said, attempts, [{**ROW, "completion_tokens": 6}])).broken == []
    said, attempts = await seen("reset.900", official)
    assert said.cut and not said.whole and 0 < said.tokens < 6
    assert attempts[0].text.startswith(said.text)


async def test_a_clean_end_in_the_middle_is_whole_to_the_official_client_and_is_found_out() -> None:
    said, attempts = await seen("noend.3", official=True)
    assert said.whole and not said.finish
    assert judge(evidence(said, attempts)).truncated
