"""The command line against a running admin API: what people see, what programs get, exit codes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from console.cli import main
from console.entries import ModelEntry
from console.stack import ROOMS
from policy.breaker import Breaker
from schemas.commands import ScaleDeployment, StopDeployment
from schemas.records import DeploymentRecord, EndpointRecord, ModelRecord, ProcessRecord, ReplicaRecord
from state.inflight import Report
from state.memory import MemoryCatalog, MemoryInflight
from tests.console_support import RUN, Desk, admin_server, deploy_model, letter, until
from tests.storage_support import fact, request
from workers.provisioner.wishes import desired


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
    await desk.store.deployments.put_replica(engine("m", 1, "ready", record.command_id))
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


def engine(deployment: str, replica: int, state: str, command_id: str, **more: Any) -> ReplicaRecord:
    """A row as the provisioner writes it."""
    return ReplicaRecord(deployment=deployment, replica=replica, state=state, command_id=command_id, **more)


async def deployed(desk: Desk) -> DeploymentRecord:
    """A local deployment `m` that is ready."""
    await desk.parts.model_desk.add(ModelEntry(name="m", command=("my-engine",)))
    record = await carried_out(desk)
    await desk.store.deployments.put_replica(engine("m", 1, "ready", record.command_id, pid=11))
    found = await desk.store.deployments.set_state("m", "ready", "", 2_000)
    assert found is not None
    return found


async def test_scaling_waits_until_so_many_engines_serve(cli: Cli, desk: Desk) -> None:
    await deployed(desk)
    scaling = asyncio.create_task(cli.run("deployments", "scale", "m", "2", "--wait"))

    async def asked() -> ScaleDeployment | None:
        return next((event for _, event, _ in desk.said.events if isinstance(event, ScaleDeployment)), None)

    command = await until(asked)
    assert (command.deployment, command.replicas) == ("m", 2)
    record = await desk.store.deployments.find("m")
    assert record is not None
    await desk.store.deployments.put(replace(record, command_id=command.command_id, replicas=2))
    for number in (1, 2):
        await desk.store.deployments.put_replica(engine("m", number, "ready", command.command_id, pid=10 + number))
    assert (await scaling)[:2] == (0, "m now has 2 engines.\n")
    assert ["2/2" in line and "11, 12" in line for line in (await cli.run("deployments", "list"))[1].splitlines()][1]
    assert (await cli.json("deployments", "scale", "m", "2"))["command_id"] == command.command_id  # it stands already
    assert desk.said.kinds().count("ScaleDeployment") == 1


async def test_scaling_that_fails_says_why_with_the_last_words_of_the_engine(cli: Cli, desk: Desk) -> None:
    await deployed(desk)
    scaling = asyncio.create_task(cli.run("deployments", "scale", "m", "2", "--wait"))

    async def asked() -> str:
        return next((event.command_id for _, event, _ in desk.said.events if isinstance(event, ScaleDeployment)), "")

    command_id = await until(asked)
    log(desk, "m.log", "loading\nout of memory\n")
    failed = engine("m", 1, "failed", command_id, reason="the engine ended (exit code 1)")
    await desk.store.deployments.put_replica(failed)
    record = await desk.store.deployments.find("m")
    assert record is not None
    failing = replace(record, command_id=command_id, replicas=2, state="failed", reason=failed.reason)
    await desk.store.deployments.put(failing)
    said = "error: m failed: the engine ended (exit code 1); its last line: out of memory\n"
    assert await scaling == (2, "", said)
    shown = (await cli.run("deployments", "show", "m"))[1]
    assert "out of memory" in shown and "exit code 1" in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("scale", "m", "-1"), "-1"),
        (("scale", "nobody", "2"), "There is no deployment 'nobody'"),
        (("scale", "elsewhere", "2"), "runs elsewhere (http://127.0.0.1:9/v1), it is one endpoint"),
        (("logs", "m", "--follow", "--previous"), "leave --previous and --json away"),
        (("logs", "m", "--replica", "7"), "no log of replica 7"),
        (("drain", "nobody"), "There is no deployment 'nobody'"),
    ],
)
async def test_what_cannot_be_done_to_a_deployment_is_one_line(
    cli: Cli, desk: Desk, arguments: tuple[str, ...], said: str
) -> None:
    await deployed(desk)
    await desk.store.deployments.put(desired(deploy_model("c9", deployment="elsewhere"), None, 1))
    code, out, err = await cli.run("deployments", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err


async def test_draining_waits_and_stop_now_hurries(cli: Cli, desk: Desk) -> None:
    record = await deployed(desk)
    draining = asyncio.create_task(cli.run("deployments", "drain", "m"))

    async def asked() -> StopDeployment | None:
        return next((event for _, event, _ in desk.said.events if isinstance(event, StopDeployment)), None)

    command = await until(asked)
    assert not command.now
    stopping = replace(record, command_id=command.command_id, state="stopping")
    await desk.store.deployments.put(stopping)
    await cli.run("deployments", "stop", "m", "--now")
    hurried = desk.said.events[-1][1]
    assert isinstance(hurried, StopDeployment) and hurried.now
    await desk.store.deployments.set_state("m", "stopped", "stopped by command", 3_000)
    assert (await draining)[:2] == (0, "m is drained and stopped.\n")


def log(desk: Desk, name: str, text: str) -> None:
    folder = desk.data / "engines"
    folder.mkdir(exist_ok=True)
    with (folder / name).open("a") as file:
        file.write(text)


async def test_logs_are_shown_by_replica_by_life_and_live(
    cli: Cli, desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    await deployed(desk)
    log(desk, "m@2.log", "== headrace: engine starts 1\nfirst\n== headrace: engine starts 2\nsecond\nthird\n")
    two = ("deployments", "logs", "m", "--replica", "2")
    assert (await cli.run(*two, "--lines", "2"))[1] == "second\nthird\n"
    assert (await cli.run(*two, "--previous"))[1] == "== headrace: engine starts 1\nfirst\n"
    following = asyncio.create_task(cli.run(*two, "--follow", "--lines", "1"))
    shown = ""

    async def has(text: str) -> None:
        async def there() -> bool:
            nonlocal shown
            shown += capsys.readouterr().out
            return text in shown

        await until(there)

    await has("third\n")
    log(desk, "m@2.log", "fourth ä\nfif")
    await has("fourth ä\n")
    log(desk, "m@2.log", "th\n")
    await has("fifth\n")
    (desk.data / "engines" / "m@2.log").write_text("anew\n")  # set aside meanwhile
    await has("anew\n")
    desk.parts.engine_logs.close()
    assert (await following)[0] == 0


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


async def test_consumers_are_a_table_and_json(cli: Cli) -> None:
    _, out, _ = await cli.run("lag", "--consumers")
    assert "workers-9-old" in out and "ALIVE" in out and "9000000" in out
    assert len((await cli.json("lag", "--consumers"))["data"]) == 2


async def test_status_ends_with_1_for_a_sick_system_and_0_for_a_sound_one(cli: Cli, desk: Desk) -> None:
    code, out, _ = await cli.run("status")
    assert code == 1 and out.endswith("unhealthy\n")
    assert "problem: the group audit has no consumer: `headrace start audit`" in out
    now = desk.parts.clock.now_ms()
    everything = ProcessRecord(
        consumer="all-7-abc", rooms=ROOMS, pid=7, host="h", started_ms=now - 3_700_000, version="0.1.0"
    )
    await desk.processes.announce(everything)
    code, out, _ = await cli.run("status")
    assert code == 0 and out.endswith("healthy\n") and "1h 1m" in out and "all-7-abc" in out
    assert (await cli.json("status"))["groups"][0] == {
        "group": "authorization",
        "lag": 0,
        "pending": 0,
        "waiting": 0,
        "oldest_ms": 0,
        "consumers": 1,
    }


async def test_a_drain_is_waited_for_or_only_asked(cli: Cli, desk: Desk) -> None:
    for name in ("audit-1-abc", "audit-2-def"):
        await desk.processes.announce(
            ProcessRecord(consumer=name, rooms=("audit",), pid=1, host="h", started_ms=1, version="0.1.0")
        )
    assert (await cli.run("drain", "audit-1-abc", "--timeout", "0"))[1] == "audit-1-abc was asked to drain\n"
    code, _, err = await cli.run("drain", "audit-1-abc", "--timeout", "0.1")
    assert code == 2 and "still drains after 0.1 s" in err
    waiting = asyncio.create_task(cli.run("drain", "audit-1-abc"))
    await until(lambda: asked(desk, 3))
    await desk.processes.withdraw("audit-1-abc")
    assert (await waiting)[:2] == (0, "audit-1-abc has drained and is gone\n")
    code, _, err = await cli.run("drain", "audit-2-def")
    assert code == 2 and "last process of audit" in err and "--force" in err


async def asked(desk: Desk, count: int) -> bool:
    return desk.said.kinds().count("DrainAsked") == count


async def test_scaling_needs_a_supervisor_on_this_machine(cli: Cli) -> None:
    code, _, err = await cli.run("scale", "rules", "2")
    assert code == 2 and "no supervisor answers" in err and err.count("\n") == 1


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
        left: Breaker = await routing.peers.breakers.failed("e1", 0)
    assert not left.closed
    assert isinstance(routing.inflight, MemoryInflight)
    for router, requests in (("router-1", 3), ("router-2", 1)):
        await routing.inflight.report(router, Report(at_ms=routing.clock.now_ms(), used={"e2": requests}))
    found = await cli.json("route", "explain", "--model", "org/small")
    assert found["endpoint"] == "e2"
    seen = {one["endpoint"]: (one["state"], one["in_use"]) for one in found["why"]["seen"]}
    assert seen == {"e1": ("open", 0), "e2": ("fit", 4), "e3": ("down", 0)}
    assert "org/small: e2\n" in (await cli.run("route", "explain", "--model", "org/small"))[1]


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
