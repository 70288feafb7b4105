"""The command line against a running admin API: what people see, what programs get, exit codes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from console.cli import main
from policy.breaker import Breaker
from schemas.records import EndpointRecord, ModelRecord
from state.memory import MemoryCatalog
from tests.console_support import RUN, Desk, admin_server, letter, until
from tests.storage_support import fact, request
from workers.provisioner.rules import desired


@pytest.fixture
async def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    async with admin_server(tmp_path) as made:
        connection = {"admin_url": made.url, "admin_key": made.token}
        await asyncio.to_thread((tmp_path / "connection.json").write_text, json.dumps(connection))
        yield made


class Cli:
    """Runs commands in a thread, as the server needs this one."""

    def __init__(self, desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
        self._desk, self._capsys = desk, capsys

    async def run(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, stdout, stderr."""
        code = await asyncio.to_thread(main.run, [*arguments, "--data", str(self._desk.data)])
        out, err = self._capsys.readouterr()
        return code, out, err

    async def json(self, *arguments: str) -> Any:
        """The JSON a program gets."""
        code, out, err = await self.run(*arguments, "--json")
        assert (code, err) == (0, "")
        return json.loads(out)


@pytest.fixture
def cli(desk: Desk, capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(desk, capsys)


async def test_a_key_is_created_listed_rotated_and_revoked(cli: Cli) -> None:
    code, out, err = await cli.run("keys", "create", "app", "--tenant", "acme", "--rpm", "60", "--model", "small*")
    assert (code, out.startswith("hr_"), out.count("\n")) == (0, True, 1)  # only the token: it can be piped
    key_id = out.split("_")[1]
    assert "shown only now" in err
    listed = await cli.json("keys", "list")
    [row] = [row for row in listed["data"] if row["key_id"] == key_id]
    assert (row["tenant"], row["requests_per_minute"], row["models"]) == ("acme", 60, ["small*"])
    assert key_id in (await cli.run("keys", "list"))[1]
    assert (await cli.json("keys", "rotate", key_id, "--overlap", "0"))["token"].startswith(f"hr_{key_id}_")
    assert (await cli.run("keys", "revoke", key_id))[1] == f"Revoked {key_id} (app).\n"
    assert key_id not in (await cli.run("keys", "list"))[1]
    assert "revoked" in (await cli.run("keys", "list", "--all"))[1]


async def test_a_servers_refusal_is_one_line_with_exit_code_2(cli: Cli) -> None:
    for arguments in (
        ("keys", "create", "app", "--scope", "root"),
        ("keys", "revoke", "nobody"),
        ("deployments", "logs", "none"),
        ("requests", "show", RUN),
        ("trace", "not-a-run"),
        ("dlq", "show", "odd"),
    ):
        code, out, err = await cli.run(*arguments)
        assert (arguments, code, out, err.count("\n")) == (arguments, 2, "", 1)
        assert err.startswith("error: ")


async def test_adding_a_model_can_wait_until_it_is_ready(cli: Cli, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPSTREAM_KEY", "canary")
    adding = asyncio.create_task(
        cli.run("models", "add", "m", "--url", "http://127.0.0.1:9/v1", "--api-key-env", "UPSTREAM_KEY", "--wait")
    )
    record = await carried_out(desk)
    assert record.credential and "canary" not in record.credential
    await desk.store.deployments.set_state("m", "ready", "", 2_000)
    assert (await adding)[:2] == (0, "m is ready.\n")
    assert "1/1" in (await cli.run("models", "list"))[1]
    assert "external" in (await cli.run("deployments", "list"))[1]
    assert (await cli.json("models", "remove", "m")) == {"stopping": ["m"]}


async def test_waiting_for_a_model_that_fails_ends_with_its_reason(cli: Cli, desk: Desk) -> None:
    adding = asyncio.create_task(cli.run("models", "add", "m", "--url", "http://127.0.0.1:9/v1", "--wait"))
    await carried_out(desk)
    await desk.store.deployments.set_state("m", "failed", "the engine's credential is missing", 2_000)
    assert await adding == (2, "", "error: m failed: the engine's credential is missing\n")


async def test_waiting_for_a_model_ends_in_time(cli: Cli) -> None:
    code, _, err = await cli.run("models", "add", "m", "--url", "http://127.0.0.1:9/v1", "--wait", "--timeout", "0.3")
    assert (code, "the provisioner has not taken it up yet" in err) == (2, True)


async def test_a_command_after_two_dashes_runs_on_the_servers_machine(cli: Cli, desk: Desk) -> None:
    code, _, err = await cli.run("deployments", "create", "m", "--slots", "2", "--data", str(desk.data))
    assert (code, "give either --url URL" in err) == (2, True)
    code = await asyncio.to_thread(
        main.run, ["deployments", "create", "m", "--data", str(desk.data), "--", "my-engine", "--port", "{port}"]
    )
    record = await carried_out(desk)
    assert (code, record.target, record.command) == (0, "local", ("my-engine", "--port", "{port}"))


async def test_ended_requests_and_timelines_are_shown(cli: Cli, desk: Desk) -> None:
    rows = [request(number) for number in range(3)]
    await desk.store.requests.write([fact(row) for row in rows], rows)
    code, out, err = await cli.run("requests", "list", "--limit", "2")
    assert (code, rows[2].run in out, rows[0].run in out) == (0, True, False)
    after = err.split()[-1]
    assert rows[0].run in (await cli.run("requests", "list", "--limit", "2", "--after", after))[1]
    assert (await cli.json("requests", "show", rows[0].run))["tenant"] == "acme"
    assert "RequestCompleted" in (await cli.run("trace", rows[0].run))[1]
    assert "claimed" in (await cli.run("trace", RUN))[1]


async def test_dead_letters_are_handled_from_the_command_line(cli: Cli, desk: Desk) -> None:
    ids = [f"0:170000000000{number}-0" for number in range(3)]
    desk.letters.letters = {id: letter(id) for id in ids}
    assert ids[0] in (await cli.run("dlq", "list"))[1]
    assert "poison" in (await cli.run("dlq", "show", ids[0]))[1]
    assert (await cli.run("dlq", "replay", ids[0]))[1] == "Replayed as 9-0.\n"
    assert (await cli.run("dlq", "purge", ids[1]))[1] == "Purged 1.\n"
    assert await cli.json("dlq", "purge", "--all") == {"purged": 1}
    assert (await cli.run("dlq", "list"))[1] == "No dead letters.\n"


async def test_the_backlog_is_a_table_and_json(cli: Cli) -> None:
    assert "audit" in (await cli.run("lag"))[1]
    assert (await cli.json("lag"))["data"][0]["lag"] == 2


async def test_a_text_that_would_be_blocked_ends_with_exit_code_1(cli: Cli, desk: Desk) -> None:
    assert "pass: hello" in (await cli.run("guardrails", "test", "hello"))[1]
    code, out, _ = await cli.run("guardrails", "test", "card 4111 1111 1111 1111")
    assert (code, "edits: card [CARD]" in out, "rules ran" in out) == (0, True, True)


async def test_a_request_in_a_file_is_judged_whole(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "request.json"
    file.write_text('{"model": "m", "input": ["card 4111 1111 1111 1111"]}')
    code, out, _ = await cli.run("guardrails", "test", "--request", str(file), "--route", "/v1/embeddings")
    assert (code, "/input/0" in out, '"card [CARD]"' in out) == (0, True, True)
    for words in (["text", "--request", str(file)], [], ["--request", str(tmp_path / "none")]):
        code, _, said = await cli.run("guardrails", "test", *words)
        assert code == 2 and said.count("\n") == 1


async def carried_out(desk: Desk) -> Any:
    """The record of the last command, as the provisioner would write it."""

    async def published() -> Any:
        return [event for stream, event, _ in desk.said.events if stream == "commands"]

    command = (await until(published))[-1]
    record = desired(command, None, 1_000)
    await desk.store.deployments.put(record)
    return record


# --- routes -----------------------------------------------------------------------------------------------------------

WHY = {
    "pool": "small",
    "strategy": "peak_ewma",
    "of": 9,
    "seen": [
        {
            "endpoint": "e1",
            "state": "open",
            "in_use": 0,
            "slots": 8,
            "weight": 1,
            "ttft_ms": 20,
            "peak_ms": 35,
            "price": 0,
        },
        {
            "endpoint": "e2",
            "state": "fit",
            "in_use": 3,
            "slots": 8,
            "weight": 2,
            "ttft_ms": 40,
            "peak_ms": 41,
            "price": 7,
        },
    ],
}


async def test_an_ended_run_says_where_it_went_and_why(desk: Desk, cli: Cli) -> None:
    call = {"endpoint": "e2", "started_ms": 1, "ended_ms": 90, "outcome": "ok", "status": 200}
    row = request(7, attempts=[{**call, "why": WHY}])
    await desk.store.requests.write([fact(row)], [row])
    found = await cli.json("route", "explain", row.run)
    assert (found["run"], found["attempts"][0]["why"]) == (row.run, WHY)
    _, out, _ = await cli.run("route", "explain", row.run)
    assert "Attempt 1: e2: ok status 200" in out and "strategy peak_ewma, 9 endpoints, 7 more not shown" in out
    (line,) = [line for line in out.splitlines() if line.startswith("e1")]
    assert line.split() == ["e1", "open", "0", "8", "1", "20", "35", "0", "no"]
    assert next(line for line in out.splitlines() if line.startswith("e2")).split()[-1] == "yes"


async def test_a_run_of_an_older_version_says_that_its_choice_was_not_recorded(desk: Desk, cli: Cli) -> None:
    row = request(8, attempts=[{"endpoint": "", "started_ms": 1, "ended_ms": 1, "outcome": "no_engine", "status": 0}])
    await desk.store.requests.write([fact(row)], [row])
    out = (await cli.run("route", "explain", row.run))[1]
    assert "no endpoint could be called: no_engine" in out and "not recorded" in out


async def test_what_would_be_chosen_now_is_told_with_its_reasons(desk: Desk, cli: Cli) -> None:
    routing = desk.parts.routing
    assert isinstance(routing.catalog, MemoryCatalog)
    endpoints = [
        EndpointRecord(
            endpoint=name, deployment=name, pool="small", model="org/small", url="http://x/v1", up=name != "e3"
        )
        for name in ("e1", "e2", "e3")
    ]
    await routing.catalog.publish([ModelRecord(name="org/small", pool="small")], endpoints)
    for _ in range(5):
        left: Breaker = await routing.breakers.failed("e1", 0)
    assert not left.closed
    await routing.latencies.exchange("router-1", {"e2": 3}, {})
    await routing.latencies.exchange("router-2", {"e2": 1}, {})
    found = await cli.json("route", "explain", "--model", "org/small")
    assert (found["endpoint"], found["routers"]) == ("e2", ["router-1", "router-2"])
    seen = {one["endpoint"]: (one["state"], one["in_use"]) for one in found["why"]["seen"]}
    assert seen == {"e1": ("open", 0), "e2": ("fit", 4), "e3": ("down", 0)}
    assert (
        "org/small: e2  (in use: as router-1, router-2 said)"
        in (await cli.run("route", "explain", "--model", "org/small"))[1]
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "either a run id"),
        ((RUN, "--model", "m"), "either a run id"),
        (("--model", "none"), "no model"),
        (("x",), "not a run id"),
    ],
)
async def test_a_wrong_question_about_routes_is_one_line(cli: Cli, arguments: tuple[str, ...], said: str) -> None:
    code, _, err = await cli.run("route", "explain", *arguments)
    assert code == 2 and said in err and err.count("\n") == 1
