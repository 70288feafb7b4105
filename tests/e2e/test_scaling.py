"""A deployment grows and shrinks under load, loses an engine, loses its provisioner: no request notices."""

from __future__ import annotations

import json
import os
import signal
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from console.cli import main
from tests.e2e.conftest import client_of
from tests.e2e.house import House, headrace, until
from tests.e2e.load import LONG, SHORT, Load, stream

PROCESSES = "ingress|authorization,rules,persons,router,audit,console|provisioner"
SETTINGS = f"""
guardrails: {{families: {{persons: {{enabled: false}}}}}}
provisioner: {{interval_s: 1}}
models:
  - name: grown
    slots: 16
    command: ["{sys.executable}", -m, bench.mock_engine, --port, "{{port}}", --itl-ms, "20"]
"""
MODEL = "grown"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("scaling")
    with headrace(folder, "--processes", PROCESSES, "--no-model", settings=SETTINGS) as house:
        yield house


@pytest.fixture
def client(house: House) -> Iterator[OpenAI]:
    with client_of(house, house.key) as made:
        yield made


def shown(house: House) -> dict[str, Any]:
    status, found = house.request("/admin/v1/deployments/grown")
    assert status == 200
    return dict(found)


def scaled_to(house: House, number: int) -> bool:
    """Whether the provisioner has taken the command up."""
    return bool(shown(house)["replicas"] == number)


def scale(house: House, number: int) -> None:
    """As an operator does it; waits until it is so."""
    assert main.run(["deployments", "scale", "grown", str(number), "--wait", "--data", str(house.folder)]) == 0


def engines(house: House, number: int) -> dict[int, int]:
    """Wait for so many ready ones; replica -> pid."""

    def ready() -> dict[int, int] | None:
        found = shown(house)
        rows = found["engines"]
        whole = found["ready"] == len(rows) == number
        return {row["replica"]: row["pid"] for row in rows} if whole else None

    return dict(until(ready, 60))


def test_a_deployment_grows_and_shrinks_under_load_without_a_failed_request(house: House, client: OpenAI) -> None:
    with Load(client, MODEL) as load:
        scale(house, 3)
        pids = engines(house, 3)
        answers = load.long(6)

        def spread() -> bool:
            return all(_running(row["url"]) >= 2 for row in shown(house)["engines"])

        until(spread)
        house.request("/admin/v1/deployments/grown/scale", {"replicas": 1})
        until(lambda: any("requests still run" in row["reason"] for row in shown(house)["engines"]))
        assert all(os.path.exists(f"/proc/{pid}") for pid in pids.values())  # nobody is ended while it answers
        assert [answer.result(60) for answer in answers] == [LONG] * 6
        assert engines(house, 1) == {1: pids[1]}
    assert not any(os.path.exists(f"/proc/{pids[number]}") for number in (2, 3))


def _running(url: str) -> int:
    """Answers that an engine is giving now."""
    with urllib.request.urlopen(url.removesuffix("/v1") + "/_mock/stats", timeout=5) as reply:
        return int(json.loads(reply.read())["live"])


def test_an_engine_killed_with_9_is_restarted_while_others_serve(house: House, client: OpenAI) -> None:
    scale(house, 2)
    before = engines(house, 2)
    os.kill(before[2], signal.SIGKILL)
    assert [stream(client, MODEL, SHORT) for _ in range(10)] == [SHORT] * 10
    until(lambda: engines(house, 2)[2] != before[2])
    [_, second] = shown(house)["engines"]
    assert (second["restarts"], engines(house, 2)[1]) == (1, before[1])


def test_a_provisioner_killed_while_it_scales_finishes_in_its_next_life(house: House, client: OpenAI) -> None:
    scale(house, 2)
    before = engines(house, 2)
    with Load(client, MODEL):
        for number in (4, 2):
            house.request("/admin/v1/deployments/grown/scale", {"replicas": number})
            until(partial(scaled_to, house, number))
            old = house.kill("provisioner")
            house.restarted("provisioner", old)
            after = engines(house, number)
            assert (after[1], after[2]) == (before[1], before[2])


def test_a_paused_model_stays_known_and_says_that_no_engine_serves_it(house: House, client: OpenAI) -> None:
    scale(house, 0)
    assert "grown" in [model.id for model in client.models.list()]
    body = {"model": "grown", "messages": [{"role": "user", "content": "go"}]}
    status, found = house.request("/v1/chat/completions", body)
    assert (status, found["error"]["code"]) == (503, "server_is_overloaded")
    assert found["error"]["message"].startswith("No engine serves this model now.")
    scale(house, 1)
    assert stream(client, MODEL, SHORT) == SHORT


def test_the_words_of_an_engine_outlive_it(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    logs = ["deployments", "logs", "grown", "--previous", "--data", str(house.folder)]
    assert main.run(logs) == 0
    assert "mock engine on http" in capsys.readouterr().out


def test_the_logs_lie_in_the_data_folder_for_nobody_else(house: House) -> None:
    files = list(Path(house.folder / "engines").glob("grown*.log*"))
    assert files and not [file for file in files if file.stat().st_mode & 0o077]


def operate(house: House, *words: str) -> None:
    assert main.run([*words, "--data", str(house.folder)]) == 0


def begun(house: House, client: OpenAI, pool: ThreadPoolExecutor) -> Future[int]:
    """A long answer that an engine is giving."""
    answer = pool.submit(stream, client, MODEL, LONG)
    [engine] = shown(house)["engines"]
    until(lambda: _running(engine["url"]) == 1)
    return answer


def test_a_drained_deployment_finishes_its_answers_and_is_gone(
    house: House, client: OpenAI, capsys: pytest.CaptureFixture[str]
) -> None:
    operate(house, "deployments", "list")
    operate(house, "deployments", "show", "grown")
    assert "1/1" in capsys.readouterr().out
    with ThreadPoolExecutor(1) as pool:
        answer = begun(house, client, pool)
        operate(house, "deployments", "drain", "grown")
        assert answer.result(60) == LONG
    assert (shown(house)["state"], shown(house)["engines"]) == ("stopped", [])
    assert "grown" not in [model.id for model in client.models.list()]


def test_stop_now_does_not_wait(house: House, client: OpenAI) -> None:
    operate(house, "models", "apply", "--config", str(house.folder / "headrace.yaml"))
    engines(house, 1)
    with ThreadPoolExecutor(1) as pool:
        answer = begun(house, client, pool)
        operate(house, "deployments", "stop", "grown", "--now")
        with pytest.raises(openai.APIError) as caught:
            answer.result(60)
    assert caught.value.code == "upstream_interrupted"
    until(lambda: shown(house)["state"] == "stopped")
