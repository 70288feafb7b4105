"""The benchmark's pure parts: percentiles, time stamps in letters, counting streams, scripts, figures, tables."""

import base64
import os
import re
import socket
import struct
from itertools import pairwise
from time import monotonic_ns

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import cells, machine, passage, peers, processes, report, run, script, stamps, stats, wire
from bench.cells import Value
from bench.sse import SseCounter
from bench.tally import Tally, verdict


def test_percentile_is_the_smallest_value_that_covers_the_share() -> None:
    values = list(range(1, 101))
    assert stats.percentile(values, 0.5) == 50
    assert stats.percentile(values, 0.99) == 99
    assert stats.percentile(values, 1.0) == 100
    assert stats.percentile([7], 0.01) == 7


@given(st.lists(st.integers(0, 10**9), min_size=1), st.floats(0.01, 1))
def test_percentile_covers_at_least_its_share_of_the_values(values: list[int], share: float) -> None:
    found = stats.percentile(sorted(values), share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-6


def test_percentile_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        stats.percentile([], 0.5)
    with pytest.raises(ValueError, match="no runs"):
        stats.spread([])


def test_nanoseconds_are_told_in_milliseconds() -> None:
    found = stats.milliseconds([3_000_000, 1_000_000, 2_000_000])
    assert found == {"n": 3, "mean": 2.0, "max": 3.0, "p50": 2.0, "p90": 3.0, "p99": 3.0}
    assert stats.milliseconds([]) == {"n": 0}


@given(st.integers(0, 2**64 - 1))
def test_time_stamp_survives_the_way_through_letters(ns: int) -> None:
    letters = stamps.encode(ns)
    assert letters.isalpha()
    assert stamps.decode(letters) == ns


def test_token_carries_the_moment_it_was_made_and_no_digit() -> None:
    before = monotonic_ns()
    token = stamps.token()
    match = stamps.TOKEN.fullmatch(token)
    assert match
    assert before <= stamps.decode(match[1]) <= monotonic_ns()
    assert not any(chr(byte).isdigit() for byte in token)


def test_text_of_another_length_is_no_stamp() -> None:
    with pytest.raises(ValueError, match="16 letters"):
        stamps.decode(b"abc")


STREAM = (
    b": a comment\n\n"
    b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n'
    b'data: {"choices":[{"delta":{"content":" xaaaaaaaaaaaaaaab"}}]}\n\n'
    b'data:{"choices":[{"delta":{"content": " xaaaaaaaaaaaaaaac xaaaaaaaaaaaaaaad"}}]}\n\n'
    b'data: {"choices":[{"delta":{"content":"no data: [DONE] here, nor \\"error\\" of ours"}}]}\n\n'
    b"data: [DONE]\n\n"
)


@pytest.mark.parametrize("stream", [STREAM, STREAM.replace(b"\n", b"\r\n")], ids=["LF", "CRLF"])
def test_stream_counts_the_same_at_every_split(stream: bytes) -> None:
    for cut in range(len(stream) + 1):
        counter = SseCounter()
        found = counter.feed(stream[:cut]) + counter.feed(stream[cut:])
        assert [stamps.decode(stamp) for stamp in found] == [1, 2, 3]
        assert (counter.events, counter.tokens, counter.done, counter.error) == (5, 3, True, b"")


def test_stream_counts_the_same_byte_by_byte() -> None:
    counter = SseCounter()
    for byte in STREAM:
        counter.feed(bytes([byte]))
    assert (counter.events, counter.tokens, counter.done, counter.error) == (5, 3, True, b"")


def test_stream_without_its_end_mark_is_not_done() -> None:
    counter = SseCounter()
    counter.feed(STREAM[: STREAM.rindex(b"data:")] + b"data: [DO")
    assert not counter.done


def test_error_event_is_kept_as_it_was_sent() -> None:
    counter = SseCounter()
    counter.feed(b'data: {"error": {"code":"upstream_interrupted"}}\n\n')
    assert counter.error == b'data: {"error": {"code":"upstream_interrupted"}}'


@pytest.mark.parametrize(
    ("status", "stream", "sent", "expected", "kind"),
    [
        (200, True, STREAM, 3, ""),
        (200, True, STREAM, 0, ""),
        (200, True, STREAM, 4, "short"),
        (200, True, STREAM[:-20], 0, "unfinished"),
        (200, True, b'data: {"error": {}}\n\n', 0, "event"),
        (429, True, b"", 3, "429"),
        (200, False, b'{"content":" xaaaaaaaaaaaaaaab"}\n', 1, ""),
        (503, False, b"", 1, "503"),
    ],
)
def test_answer_is_judged_by_status_end_and_number_of_tokens(
    status: int, stream: bool, sent: bytes, expected: int, kind: str
) -> None:
    counter = SseCounter()
    counter.feed(sent)
    assert verdict(status, stream, counter, expected) == kind


def test_errors_outside_the_window_count_and_latencies_do_not() -> None:
    tally = Tally()
    tally.ended_well(5_000_000)
    tally.failed("429", b"slow down")
    tally.begin()
    tally.ended_well(1_000_000)
    tally.end()
    tally.failed("429", b"again")
    found = tally.report()
    assert (found["completed"], found["good"], found["errors"]) == (1, 2, 2)
    assert found["latency_ms"]["max"] == 1.0
    assert found["errors_by_kind"] == {"429": 2}
    assert found["examples"] == {"429": "slow down"}


def test_faults_are_read_from_the_prompt_and_struck_out_when_spent() -> None:
    message = b'{"role":"user","content":"@@cut=5 @@times=2 @@id=a-1"}'
    body = b'{"model":"m","stream":true,"max_tokens":9,"messages":[%s]}' % message
    asked = script.read(body)
    assert (asked.model, asked.stream, asked.tokens, asked.cut, asked.times, asked.ledger_id) == (
        "m", True, 9, 5, 2, "a-1",
    )  # fmt: skip
    assert script.without_faults(asked).cut is None
    assert script.read(body, "header").ledger_id == "header"


def test_completion_is_told_from_a_chat_and_its_words_are_counted() -> None:
    asked = script.read(b'{"model":"m","prompt":["one two","@@cut=1"],"max_tokens":3}')
    assert (asked.text, asked.prompt_tokens, asked.tokens, asked.cut) == (True, 3, 3, 1)
    assert not script.read(b'{"messages":[]}').text


def test_vectors_say_the_same_in_both_forms() -> None:
    plain = orjson.loads(wire.embeddings("m", ["abc", "d"], False).partition(b"\r\n\r\n")[2])
    packed = orjson.loads(wire.embeddings("m", ["abc", "d"], True).partition(b"\r\n\r\n")[2])
    assert plain["usage"] == {"prompt_tokens": 2, "total_tokens": 2}
    for one, other in zip(plain["data"], packed["data"], strict=True):
        numbers = struct.unpack(f"<{wire.DIMENSIONS}f", base64.b64decode(other["embedding"]))
        assert numbers == pytest.approx(one["embedding"], abs=1e-6)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"messages": 3}', b'{"prompt": [1]}', b'{"prompt": []}'])
def test_body_that_is_no_request_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError):
        script.read(body)


@pytest.mark.parametrize("model", ["mock", 'a "quoted" ü'])
def test_chunk_length_of_a_stream_is_right_for_any_model_name(model: str) -> None:
    made = wire.StreamBytes("id", model, True)
    chunk = made.before + stamps.token() + made.after
    size, rest = chunk.split(b"\r\n", 1)
    assert len(rest) == int(size, 16) + 2


def result_of(**changes: object) -> dict[str, object]:
    base: dict[str, object] = {
        "requests_per_s": 100.0, "tokens_per_s": 0.0, "tokens": 0, "completed": 200, "errors": 0, "window_s": 2.0,
        "latency_ms": {"n": 200, "p50": 2.0, "p99": 9.0}, "ttft_ms": {"n": 0}, "lag_ms": {"n": 0},
        "cpu_s": {"ingress": 0.1, "valkey": 0.02}, "memory": {}, "errors_by_kind": {}, "examples": {},
        "load_cpu_s": 0.1, "mock_cpu_s": 0.1, "others_cpu_s": 0.0, "unsent": 0, "run": 0, "cell": "c", "peer": "p",
        "engine": {"requests": 200, "aborted": 0, "live": 0},
    }  # fmt: skip
    return {**base, **changes}


def test_cpu_per_request_is_told_by_process_and_together() -> None:
    found = {value.figure: value.value for value in cells.figures(cells.rate(300, 1), result_of())}
    assert found["CPU per request at 300/s, all"] == pytest.approx(0.6)
    assert found["CPU per request at 300/s: ingress"] == pytest.approx(0.5)


def test_added_latency_is_the_difference_to_direct_in_the_same_run() -> None:
    cell = cells.rate(300, 1)
    direct = [(cell, result_of(latency_ms={"n": 1, "p50": 0.5, "p99": 1.0}, cpu_s={}))]
    found = {value.figure: value.value for value in cells.run_of([(cell, result_of())], direct)}
    assert found["added latency at 300/s p50"] == pytest.approx(1.5)
    assert not any(value.figure.startswith(("added", "CPU")) for value in cells.run_of(direct, direct))


def test_rung_with_an_error_is_worth_nothing() -> None:
    low, high = cells.ladder(8, 1), cells.ladder(32, 1)
    climbed = [(low, result_of(requests_per_s=500.0)), (high, result_of(requests_per_s=900.0, errors=1))]
    found = {value.figure: value.value for value in cells.run_of(climbed, climbed)}
    assert found["short requests/s sustained, 0 errors"] == 500.0
    assert found["errors, all cells"] == 1


def test_names_of_cells_are_unique() -> None:
    for chosen in (cells.full(), cells.quick()):
        assert len({cell.name for cell in chosen}) == len(chosen)


def test_table_shows_median_and_spread_with_direct_first() -> None:
    runs = {
        "headrace": [[Value("lag p99", "ms", 3.0), Value("ready", "s", 8.25)], [Value("lag p99", "ms", 1.0)]],
        "direct": [[Value("lag p99", "ms", 0.25)]],
    }
    rows = report.table(runs)
    assert rows == [
        ["figure", "unit", "direct", "headrace"],
        ["lag p99", "ms", "0.250", "2 (1..3)"],
        ["ready", "s", "", "8.25"],
    ]
    assert report.markdown(rows).splitlines()[1] == "|---|---|---:|---:|"
    assert "| lag p99 | ms | 0.250 | 2 (1..3) |" in report.markdown(rows)
    assert len({len(line) for line in report.text(rows).splitlines()}) == 1
    assert report.plain(runs)[0]["values"] == [3.0, 1.0]


def test_numbers_are_short_and_never_exponents() -> None:
    shown = [report.number(value) for value in (0.0, 12345.6, 123.45, 1.234, 0.01234, -2.5)]
    assert shown == ["0", "12,346", "123.5", "1.23", "0.012", "-2.50"]


def test_remarks_name_busy_harness_busy_machine_and_errors() -> None:
    assert run.remarks([result_of()]) == []
    bad = result_of(load_cpu_s=1.9, others_cpu_s=1.0, errors=2, errors_by_kind={"429": 2}, examples={"429": "why"})
    words = "\n".join(run.remarks([bad]))
    assert "near its limit in 1 of 1" in words
    assert "30 % of a core" in words
    assert "2 x 429 from p: why" in words


def test_process_counts_for_its_nearest_named_ancestor() -> None:
    row = processes.Row
    rows = {1: row(0, 0), 10: row(1, 5), 11: row(10, 7), 12: row(11, 9), 13: row(10, 2), 99: row(1, 4)}
    assert processes.members({"supervisor": [10], "ingress": [11]}, rows) == {
        "supervisor": [10, 13],
        "ingress": [11, 12],
    }


def test_names_that_share_a_process_become_one_group() -> None:
    shared = processes.merge_shared({"audit": 7, "router": 7, "valkey": 8})
    assert shared == {"audit+router": (7,), "valkey": (8,)}


def test_command_in_brackets_does_not_confuse_the_process_table() -> None:
    fields = "S 42 1 1 0 -1 0 0 0 0 0 10 5 2 1 20 0 1 0 100"
    assert processes.parse_stat(f"7 (a ) b (c) {fields}") == processes.Row(parent=42, ticks=18)


def test_peer_beside_without_processes_is_whoever_listens_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert peers.beside(f"other=http://127.0.0.1:{port}/v1").groups == {"all processes": (os.getpid(),)}
    assert peers.beside(f"other=http://127.0.0.1:{port}/v1").groups == {}


def test_peer_beside_is_read_with_its_options() -> None:
    peer = peers.beside("other=http://127.0.0.1:4000;key=K;model=m;header=x-a: b;pids=web:1+web:2+redis:3")
    assert (peer.name, peer.url, peer.model, peer.key) == ("other", "http://127.0.0.1:4000/v1", "m", "K")
    assert peer.headers == ("x-a: b",)
    assert peer.groups == {"web": (1, 2), "redis": (3,)}


@pytest.mark.parametrize("text", ["other", "other=https://x/v1", "=http://x/v1", "other=http://x/v1;pid=3"])
def test_unclear_peer_is_refused_with_the_way_to_write_it(text: str) -> None:
    with pytest.raises(ValueError, match=r"write NAME=|known are"):
        peers.beside(text)


def test_figures_come_with_machine_versions_and_command() -> None:
    about = machine.describe({})
    assert set(about) == {"machine", "speed", "passage", "Python", "valkey", "postgres", "revision", "command"}
    assert "cores" in about["machine"]


def test_rungs_of_the_ladder_rise() -> None:
    rungs = [cell.load["connections"] for cell in cells.full() if cell.kind == "ladder"]
    assert all(low < high for low, high in pairwise(rungs))


def test_the_speed_of_the_machine_is_told_with_its_name() -> None:
    assert re.fullmatch(
        r"200 bytes there and back \d+\.\d us, 50 steps of Python \d+\.\d us", machine.describe({})["speed"]
    )


def test_a_passage_is_measured_at_a_server_of_its_own() -> None:
    seen = passage.measure()
    assert min(seen.wall, seen.client) > 1
    assert re.fullmatch(r"PING there and back \d+ us, CPU \d+ us here, \d+ in the server", str(seen))


def test_a_command_is_told_without_the_place_of_its_figures() -> None:
    told = machine.command(
        "scripts/bench", ["--json", "some/where.json", "--runs", "3", "--json=there", "--note", "a b"]
    )
    assert told == "scripts/bench --runs 3 --note 'a b'"


def test_a_quick_run_has_a_cell_of_each_kind() -> None:
    assert [cell.kind for cell in cells.quick()] == list(dict.fromkeys(cell.kind for cell in cells.full()))


def test_streams_begin_evenly_over_their_life_and_none_begins_or_ends_while_they_flow() -> None:
    held, flowing = cells.hold(1000, 10, 4), cells.flow(500, 20, 4)
    assert held.load["ramp"] == held.load["tokens"] / 10 == 10.0
    life = flowing.load["tokens"] / 20
    assert flowing.load["ramp"] < flowing.load["warmup"] and flowing.load["warmup"] + flowing.load["duration"] < life
