"""The benchmark's programs on real sockets: the mock engine under the official client, the load on the mock engine."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import openai
import pytest

from base.ports import free_port
from bench import run
from bench.measure import MockEngine
from bench.peers import Headrace, fetch

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MockEngine]:
    started = MockEngine(tmp_path_factory.mktemp("bench") / "mock.log", None)
    yield started
    started.program.stop(5)


@pytest.fixture
def client(engine: MockEngine) -> Iterator[openai.OpenAI]:
    engine.set({"ttft_ms": 0, "itl_ms": 0, "tokens": 16})
    with openai.OpenAI(base_url=engine.url, api_key="none", max_retries=0, timeout=30) as made:
        yield made


def prompt(text: str) -> Any:
    return [{"role": "user", "content": text}]


def ledger(engine: MockEngine, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = fetch(f"{engine.root}/_mock/ledger?id={name}")[name]
    return found


def stats(engine: MockEngine) -> dict[str, int]:
    found: dict[str, int] = fetch(f"{engine.root}/_mock/stats")
    return found


def test_official_client_gets_a_whole_answer_and_the_ledger_has_it(engine: MockEngine, client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="any", messages=prompt("two words @@id=whole"), max_tokens=5)
    text = answer.choices[0].message.content
    assert answer.model == "any"
    assert answer.usage
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 5)
    assert [(entry["state"], entry["text"]) for entry in ledger(engine, "whole")] == [("finished", text)]


def test_official_client_gets_every_token_of_a_stream_and_the_usage(engine: MockEngine, client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="mock", messages=prompt("@@id=stream"), max_tokens=7, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert chunks[-1].usage
    assert chunks[-1].usage.completion_tokens == 7
    assert chunks[-2].choices[0].finish_reason == "length"
    assert ledger(engine, "stream")[0]["text"] == text


def test_model_list_names_the_mock(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["mock"]


def test_asked_for_status_is_answered_in_the_shape_of_openai(client: openai.OpenAI) -> None:
    with pytest.raises(openai.RateLimitError, match="asked for in the prompt"):
        client.chat.completions.create(model="mock", messages=prompt("@@err=429"))
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model="mock", messages=prompt("@@err=503"), stream=True)


def test_cut_stream_breaks_after_the_tokens_asked_for(engine: MockEngine, client: openai.OpenAI) -> None:
    got = 0
    with pytest.raises(openai.APIError):
        for chunk in client.chat.completions.create(model="mock", messages=prompt("@@cut=5 @@id=cut"), stream=True):
            got += bool(chunk.choices[0].delta.content)
    assert got == 5
    assert [(entry["state"], entry["tokens"]) for entry in ledger(engine, "cut")] == [("cut", 5)]


def test_fault_that_strikes_once_lets_the_second_attempt_pass(engine: MockEngine, client: openai.OpenAI) -> None:
    for expected in (500, 200):
        answer = client.chat.completions.with_raw_response
        try:
            status = answer.create(model="mock", messages=prompt("@@err=500 @@times=1 @@id=once")).status_code
        except openai.InternalServerError as error:
            status = error.status_code
        assert status == expected
    assert [entry["state"] for entry in ledger(engine, "once")] == ["err", "finished"]


def test_client_that_leaves_a_silent_stream_is_counted_as_aborted(engine: MockEngine, client: openai.OpenAI) -> None:
    before = stats(engine)
    stream = client.chat.completions.create(model="mock", messages=prompt("@@hang=3 @@id=silent"), stream=True)
    for count, _ in enumerate(stream):
        if count == 3:  # the role and three tokens
            break
    closed = monotonic()
    stream.close()
    end = monotonic() + 30
    while stats(engine)["aborted"] == before["aborted"]:
        assert monotonic() < end, "the engine did not see its client leave"
    assert [(entry["state"], entry["tokens"]) for entry in ledger(engine, "silent")] == [("hang", 3)]
    assert stats(engine)["live"] == before["live"]
    assert closed <= ledger(engine, "silent")[0]["left_s"] <= monotonic()  # one clock for the whole machine


@pytest.mark.parametrize(
    "request_line", [b"GET /nowhere HTTP/1.1\r\n\r\n", b"nonsense\r\n\r\n", b"GET /_mock/set?foo=1 HTTP/1.1\r\n\r\n"]
)
async def test_strange_request_is_answered_and_harms_nobody(engine: MockEngine, request_line: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(engine.root.rsplit(":", 1)[1]))
    writer.write(request_line)
    line = await reader.readline()
    writer.close()
    assert line.split()[1] in (b"404", b"400")
    assert fetch(f"{engine.root}/health") == {"status": "ok"}


def load(engine: MockEngine, *more: str) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, "-m", "bench.load", "--url", engine.url, "--warmup", "0.1", "--duration", "0.5", *more]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "how",
    [
        ["--connections", "4"],
        ["--rate", "100"],
        ["--connections", "4", "--stream", "--usage", "--ramp", "0.1"],
        ["--rate", "50", "--stream"],
    ],
    ids=lambda how: " ".join(how),
)
def test_load_on_the_mock_engine_finds_no_error(engine: MockEngine, how: list[str]) -> None:
    engine.set({"ttft_ms": 2, "itl_ms": 2})
    code, found = load(engine, "--tokens", "8", "--expect", "8", *how)
    assert (code, found["errors"], found["errors_by_kind"]) == (0, 0, {})
    assert found["sent"] == found["good"] > 0
    assert found["latency_ms"]["n"] == found["completed"] > 0
    if "--stream" in how:
        assert found["lag_ms"]["n"] == found["tokens"] > 0
        assert found["ttft_ms"]["n"] > 0


def test_load_calls_an_answer_with_too_few_tokens_short(engine: MockEngine) -> None:
    engine.set({"ttft_ms": 0, "itl_ms": 0})
    code, found = load(engine, "--rate", "20", "--stream", "--tokens", "4", "--expect", "5")
    assert code == 1
    assert found["errors_by_kind"] == {"short": found["sent"]}


def test_load_without_a_server_says_so_and_sends_nothing() -> None:
    command = [sys.executable, "-m", "bench.load", "--url", f"http://127.0.0.1:{free_port()}/v1", "--rate", "20",
               "--duration", "0.2", "--warmup", "0"]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 2
    assert "connect" in json.loads(done.stdout)["errors_by_kind"]


#: Stands where `headrace up` will: it says that the engine itself is the gateway, and waits to be stopped.
STAND_IN = """#!{python}
import json, os, signal, sys
given = dict(zip(sys.argv[2::2], sys.argv[3::2]))
engine = given["--engine"].removeprefix("mock=")
connection = {{"base_url": engine, "api_key": "k", "models": ["mock"], "pids": {{"door": os.getpid()}}}}
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
with open(given["--data"] + "/half", "w") as file:
    json.dump(connection, file)
os.rename(given["--data"] + "/half", given["--data"] + "/connection.json")
signal.pause()
"""


def bench(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "bench.run", "--quick", "--only", "rate", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)


def test_whole_run_starts_measures_and_stops_what_answers_as_headrace(tmp_path: Path) -> None:
    program = tmp_path / "headrace"
    program.write_text(STAND_IN.format(python=sys.executable))
    program.chmod(0o755)
    done = bench("--headrace", str(program), "--json", str(tmp_path / "figures.json"), "--markdown")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "figures.json").read_text())
    told = {(figure["figure"], figure["peer"]) for figure in found["figures"]}
    assert ("ready after start", "headrace") in told
    assert ("added latency at 100/s p50", "headrace") in told
    assert ("CPU per request at 100/s: door", "headrace") in told
    assert ("latency at 100/s p50", "direct") in told
    assert [cell["errors"] for cell in found["cells"]] == [0, 0]
    assert "| figure | unit | direct | headrace |" in done.stdout


def test_layouts_stand_side_by_side_in_one_run(tmp_path: Path) -> None:
    program = tmp_path / "headrace"
    program.write_text(STAND_IN.format(python=sys.executable))
    program.chmod(0o755)
    done = bench("--headrace", str(program), "--layouts", "merged,split", "--markdown")
    assert done.returncode == 0, done.stderr
    assert "| figure | unit | direct | headrace merged | headrace split |" in done.stdout
    row = next(line for line in done.stdout.splitlines() if line.startswith("| answered at 100/s offered"))
    assert all(cell.strip() for cell in row.split("|")[1:-1])


def test_each_layout_is_started_with_its_own_words() -> None:
    asked = run.parse(["--layouts", "split,merged", "--up-arg=--no-model"])
    assert run.wanted(asked) == {
        "headrace split": ["--no-model", "--processes", "split"],
        "headrace merged": ["--no-model", "--processes", "merged"],
    }
    assert run.wanted(run.parse([])) == {"headrace": []}
    assert run.wanted(run.parse(["--without-headrace", "--layouts", "merged"])) == {}


def test_unknown_layout_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run.parse(["--layouts", "merged,halved"])
    assert "'halved' is none of merged, split" in capsys.readouterr().err


def test_a_plot_has_no_column_for_the_bare_path(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        run.parse(["--plot", "--bare"])
    assert "--bare is a column of a run" in capsys.readouterr().err


def test_run_without_a_program_to_measure_says_what_to_do(tmp_path: Path) -> None:
    done = bench("--headrace", str(tmp_path / "absent"))
    assert done.returncode == 2
    assert "run scripts/install" in done.stderr


def test_program_that_ends_at_once_is_reported_with_its_last_words(tmp_path: Path) -> None:
    program = tmp_path / "headrace"
    program.write_text("#!/bin/sh\necho the port is taken\nexit 2\n")
    program.chmod(0o755)
    done = bench("--headrace", str(program))
    assert done.returncode == 2
    assert "ended with code 2" in done.stderr
    assert "the port is taken" in done.stderr


def test_a_measured_program_runs_its_own_code_wherever_the_benchmark_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    program = tmp_path / "headrace"
    program.write_text(f"#!{sys.executable} -S\nimport os, sys\nprint(os.getcwd(), sys.path, flush=True)\n")
    program.chmod(0o755)
    started = Headrace("headrace", program, tmp_path / "data", 0, "http://127.0.0.1:9/v1", [], None)
    started.process.wait(20)
    said = (tmp_path / "data.log").read_text()
    assert said.startswith(str(tmp_path / "data")) and f"'{ROOT}'" not in said
