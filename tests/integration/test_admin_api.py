"""The admin API over HTTP, on memory twins: who may come in, what each route does, how it fails."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.routing import Route

from base.credentials import open_credential
from base.crypto import Sealer
from base.ids import SystemRandom
from console.admin import gate
from console.admin.app import DOCUMENT, build
from console.desks import KeyWish
from policy.api_keys import present
from policy.decision import authenticate
from schemas.commands import DeployModel, ScaleDeployment, StopDeployment
from schemas.errors import Unavailable
from schemas.events import DrainAsked
from schemas.records import DeploymentRecord, ProcessRecord
from tests.console_support import RUN, Desk, admin_server, deploy_model, letter
from tests.storage_support import fact, request
from workers.provisioner.wishes import desired

MODEL = {"name": "small", "url": "http://127.0.0.1:9/v1", "api_key": "canary-key"}


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with admin_server(tmp_path) as made:
        yield made


async def ask(
    desk: Desk, method: str, path: str, body: object = None, *, token: str | None = None, raw: bytes | None = None
) -> tuple[int, Any, Mapping[str, str]]:
    """Status, JSON, headers."""
    headers = {"authorization": f"Bearer {desk.token if token is None else token}"}
    data = raw if raw is not None else (json.dumps(body).encode() if body is not None else None)
    if data is not None:
        headers["content-type"] = "application/json"
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, f"{desk.url}/admin/v1{path}", headers=headers, data=data) as answer,
    ):
        text = await answer.text()
        return answer.status, json.loads(text), {name.lower(): value for name, value in answer.headers.items()}


def is_openai_error(found: Any) -> bool:
    return set(found) == {"error"} and set(found["error"]) == {"message", "type", "param", "code", "doc_url"}


def routes_of(app: FastAPI) -> list[tuple[str, str]]:
    """(method, path) of every route, as the framework itself walks them. A mount would hide routes: none may exist."""
    found: list[tuple[str, str]] = []
    for context in iter_route_contexts(app.routes):
        assert isinstance(context.original_route, Route), context
        assert context.methods and context.path
        found += [(method, context.path) for method in sorted(context.methods - {"HEAD"})]
    return found


# --- who may come in --------------------------------------------------------------------------------------------------


async def test_every_route_refuses_whoever_has_no_admin_key(desk: Desk) -> None:
    application = await desk.parts.key_desk.create(KeyWish(name="app"))
    routes = [(method, path) for method, path in routes_of(build(desk.parts)) if path not in DOCUMENT.public]
    assert len(routes) >= 20
    for method, path in routes:
        place = path.removeprefix("/admin/v1").replace("{run}", RUN).replace("{", "").replace("}", "")
        for token, status in (("", 401), ("hr_0_1_2", 401), (desk.token[:-1] + "g", 401), (application.token, 403)):
            got, found, _ = await ask(desk, method, place.replace(":path", ""), token=token)
            assert (method, place, got) == (method, place, status)
            assert is_openai_error(found)


async def test_unknown_paths_are_not_told_to_strangers(desk: Desk) -> None:
    assert (await ask(desk, "GET", "/nothing", token=""))[0] == 401
    status, found, _ = await ask(desk, "GET", "/nothing")
    assert (status, is_openai_error(found)) == (404, True)
    assert (await ask(desk, "PUT", "/keys"))[0] == 405


async def test_the_document_asks_for_a_key_and_the_pages_of_errors_do_not(desk: Desk) -> None:
    assert (await ask(desk, "GET", "/openapi.json", token=""))[0] == 401
    status, found, _ = await ask(desk, "GET", "/openapi.json")
    assert (status, found["openapi"][:3]) == (200, "3.1") and "/admin/v1/keys/{key_id}" in found["paths"]
    error = (await ask(desk, "GET", "/keys", token=""))[1]["error"]
    async with aiohttp.ClientSession() as session, session.get(desk.url + error["doc_url"]) as page:
        assert (page.status, (await page.text()).startswith("# invalid_api_key\n")) == (200, True)


async def test_a_key_may_come_in_x_api_key_too(desk: Desk) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{desk.url}/admin/v1/keys", headers={"x-api-key": desk.token}) as answer,
    ):
        assert answer.status == 200


async def test_a_405_names_every_method_of_the_path(desk: Desk) -> None:
    status, _, headers = await ask(desk, "PUT", "/keys")
    assert (status, headers["allow"]) == (405, "GET, POST")


@pytest.mark.parametrize("wrong", [{"slots": True}, {"slots": "8"}, {"private": 1}])
async def test_a_value_of_another_type_is_not_guessed_at(desk: Desk, wrong: dict[str, object]) -> None:
    status, found, _ = await ask(desk, "POST", "/models", {**MODEL, **wrong})
    assert (status, found["error"]["param"]) == (400, next(iter(wrong)))


async def test_a_revoked_admin_key_is_out_at_once(desk: Desk) -> None:
    other = await desk.parts.key_desk.create(KeyWish(name="other", scopes=("admin",)))
    assert (await ask(desk, "GET", "/keys", token=other.token))[0] == 200
    assert (await ask(desk, "DELETE", f"/keys/{other.record.key_id}"))[0] == 200
    assert (await ask(desk, "GET", "/keys", token=other.token))[0] == 401


async def test_no_documents_are_served(desk: Desk) -> None:
    for path in ("/docs", "/openapi.json", "/redoc"):
        async with aiohttp.ClientSession() as session, session.get(desk.url + path) as answer:
            assert answer.status == 401


# --- bodies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"{", "JSON"),
        (b"[]", "body"),
        (b'{"name": NaN}', "name"),
        (b'{"name": "x", "nmae": 1}', "nmae"),
        (b'{"name": "x", "scopes": ["root"]}', "unknown scopes: root"),
        (b'{"name": "x", "requests_per_minute": -1}', "requests_per_minute"),
        (b"\xff\xfe", ""),
        (b"[" * 100_000, ""),
    ],
)
async def test_a_wrong_body_is_a_400_in_openais_shape_that_names_the_field(desk: Desk, raw: bytes, said: str) -> None:
    status, found, _ = await ask(desk, "POST", "/keys", raw=raw)
    assert (status, is_openai_error(found)) == (400, True)
    assert said in found["error"]["message"]


async def test_a_body_over_the_limit_is_refused_before_it_is_parsed(desk: Desk) -> None:
    status, found, _ = await ask(desk, "POST", "/keys", raw=b" " * (gate.MOST_BYTES + 1))
    assert (status, found["error"]["code"]) == (413, "request_too_large")


async def test_what_was_sent_is_not_repeated_in_an_error(desk: Desk) -> None:
    status, found, _ = await ask(desk, "POST", "/models", {**MODEL, "slots": "canary-slots", "url": ["canary-url"]})
    assert status == 400
    assert "canary" not in json.dumps(found)


async def test_an_absent_store_is_a_503_that_says_when_to_come_back(desk: Desk) -> None:
    desk.said.fail = Unavailable("Redis is away")
    status, found, headers = await ask(desk, "POST", "/models", MODEL)
    assert (status, found["error"]["code"]) == (503, "store_unavailable")
    assert int(headers["retry-after"]) >= 1


# --- keys -------------------------------------------------------------------------------------------------------------


async def test_a_token_is_shown_once_and_proves_the_key(desk: Desk) -> None:
    status, made, _ = await ask(desk, "POST", "/keys", {"name": "app", "tenant": "acme", "models": ["small*"]})
    assert status == 201
    record = await desk.store.keys.find(made["key_id"])
    credential = present(made["token"], desk.parts.ring)
    assert record is not None and credential is not None
    assert authenticate(record, credential, desk.parts.clock.now_ms())
    _, listed, _ = await ask(desk, "GET", "/keys")
    _, shown, _ = await ask(desk, "GET", f"/keys/{made['key_id']}")
    for text in (json.dumps(listed), json.dumps(shown)):
        assert made["token"].split("_")[2] not in text
        assert "mac" not in text
    assert desk.said.kinds() == ["KeyChanged"]


async def test_after_a_rotation_old_and_new_tokens_work_until_the_overlap_ends(desk: Desk) -> None:
    _, made, _ = await ask(desk, "POST", "/keys", {"name": "app", "scopes": ["admin"]})
    _, turned, _ = await ask(desk, "POST", f"/keys/{made['key_id']}/rotate", {"overlap_s": 60})
    assert turned["key_id"] == made["key_id"]
    assert [(await ask(desk, "GET", "/keys", token=found["token"]))[0] for found in (made, turned)] == [200, 200]
    _, last, _ = await ask(desk, "POST", f"/keys/{made['key_id']}/rotate", {"overlap_s": 0})
    answers = [(await ask(desk, "GET", "/keys", token=found["token"]))[0] for found in (made, turned, last)]
    assert answers == [401, 401, 200]


async def test_a_revoked_key_leaves_the_list_but_not_the_record(desk: Desk) -> None:
    _, made, _ = await ask(desk, "POST", "/keys", {"name": "app"})
    status, found, _ = await ask(desk, "DELETE", f"/keys/{made['key_id']}")
    assert (status, found["state"]) == (200, "revoked")
    assert made["key_id"] not in [row["key_id"] for row in (await ask(desk, "GET", "/keys"))[1]["data"]]
    assert made["key_id"] in [row["key_id"] for row in (await ask(desk, "GET", "/keys?all=true"))[1]["data"]]
    assert (await ask(desk, "POST", f"/keys/{made['key_id']}/rotate"))[0] == 404


async def test_a_new_token_reaches_its_owner_even_when_redis_is_away(desk: Desk) -> None:
    desk.said.fail = Unavailable("Redis is away")
    status, made, _ = await ask(desk, "POST", "/keys", {"name": "app"})
    assert status == 201
    assert (await ask(desk, "DELETE", f"/keys/{made['key_id']}"))[0] == 503  # a revocation that nobody heard of
    desk.said.fail = None
    assert (await ask(desk, "DELETE", f"/keys/{made['key_id']}"))[0] == 200


# --- models -----------------------------------------------------------------------------------------------------------


def commands(desk: Desk) -> list[Any]:
    return [event for stream, event, _ in desk.said.events if stream == "commands"]


async def stand(desk: Desk, state: str = "ready") -> DeploymentRecord:
    """The provisioner carried the last command out."""
    command = commands(desk)[-1]
    assert isinstance(command, DeployModel)
    record = desired(command, None, 1_000)
    await desk.store.deployments.put(record)
    found = await desk.store.deployments.set_state(record.deployment, state, "", 2_000)
    assert found is not None
    return found


async def test_adding_a_model_publishes_one_command_with_a_sealed_key(desk: Desk) -> None:
    assert (await ask(desk, "POST", "/models", MODEL))[0] == 202
    [command] = commands(desk)
    assert "canary" not in repr(command)
    assert open_credential(Sealer(desk.parts.ring, SystemRandom()), "small", command.credential) == "canary-key"
    assert (command.target, command.pool, command.private) == ("external", "small", True)
    assert desk.said.events[0][2] == command.command_id


async def test_asking_twice_before_it_is_done_is_the_same_command(desk: Desk) -> None:
    for _ in range(2):
        await ask(desk, "POST", "/models", MODEL)
    first, second = commands(desk)
    assert first.command_id == second.command_id


async def test_what_stands_already_needs_no_command(desk: Desk) -> None:
    await ask(desk, "POST", "/models", MODEL)
    await stand(desk)
    await ask(desk, "POST", "/models", MODEL)
    assert len(commands(desk)) == 1


@pytest.mark.parametrize("change", [{"slots": 2}, {"api_key": "other"}, {"url": "http://127.0.0.1:10/v1"}])
async def test_a_changed_entry_is_a_new_command_also_when_it_changes_back(desk: Desk, change: dict[str, Any]) -> None:
    for entry in (MODEL, {**MODEL, **change}, MODEL):
        await ask(desk, "POST", "/models", entry)
        await stand(desk)
    assert len({command.command_id for command in commands(desk)}) == 3


async def test_a_model_added_after_its_stop_is_a_new_command(desk: Desk) -> None:
    await ask(desk, "POST", "/models", MODEL)
    await stand(desk)
    assert (await ask(desk, "DELETE", "/models/small"))[0] == 202
    await stand_stopped(desk)
    await ask(desk, "POST", "/models", MODEL)
    first, stop, second = commands(desk)
    assert len({first.command_id, stop.command_id, second.command_id}) == 3


async def stand_stopped(desk: Desk) -> None:
    await desk.store.deployments.set_state("small", "stopped", "stopped by command", 3_000)


async def test_a_deployment_name_cannot_be_taken_over_by_another_model(desk: Desk) -> None:
    await ask(desk, "POST", "/models", MODEL)
    await stand(desk)
    status, found, _ = await ask(desk, "POST", "/models", {**MODEL, "name": "big", "deployment": "small"})
    assert (status, found["error"]["param"]) == (400, "deployment")


async def test_models_and_deployments_show_state_but_no_credential(desk: Desk) -> None:
    await ask(desk, "POST", "/models", MODEL)
    record = await stand(desk)
    _, models, _ = await ask(desk, "GET", "/models")
    _, shown, _ = await ask(desk, "GET", "/deployments/small")
    assert (models["data"][0]["name"], models["data"][0]["ready"]) == ("small", 1)
    assert (shown["state"], shown["credential"]) == ("ready", True)
    assert record.credential not in json.dumps([models, shown])


@pytest.mark.parametrize("path", ["/models/none", "/deployments/none"])
async def test_stopping_what_is_not_there_is_a_404(desk: Desk, path: str) -> None:
    assert (await ask(desk, "DELETE", path))[0] == 404


async def test_models_with_a_slash_can_be_removed(desk: Desk) -> None:
    await ask(desk, "POST", "/models", {**MODEL, "name": "org/small"})
    record = await stand(desk)
    assert record.deployment == "org-small"
    assert (await ask(desk, "DELETE", "/models/org/small"))[1] == {"stopping": ["org-small"]}


async def test_logs_of_a_local_engine_are_its_last_lines(desk: Desk) -> None:
    await ask(desk, "POST", "/models", {"name": "small", "command": ["engine"]})
    await stand(desk)
    assert (await ask(desk, "GET", "/deployments/small/logs"))[0] == 404
    await asyncio.to_thread(_write_log, desk.data)
    assert (await ask(desk, "GET", "/deployments/small/logs?lines=2"))[1]["log"] == "b\nc"


def _write_log(data: Path) -> None:
    (data / "engines").mkdir()
    (data / "engines" / "small.log").write_text("a\nb\nc\n")


async def test_logs_of_an_external_engine_are_said_to_be_elsewhere(desk: Desk) -> None:
    await desk.store.deployments.put(desired(deploy_model(), None, 1))
    status, found, _ = await ask(desk, "GET", "/deployments/small/logs")
    assert status == 404
    assert "http://127.0.0.1:9/v1" in found["error"]["message"]


async def scaled_by(desk: Desk, replicas: int) -> str:
    """Ask for it; the command's id."""
    status, found, _ = await ask(desk, "POST", "/deployments/small/scale", {"replicas": replicas})
    assert status == 202
    return str(found["command_id"])


async def test_scaling_is_one_command_until_something_has_changed(desk: Desk) -> None:
    await ask(desk, "POST", "/models", {"name": "small", "command": ["engine"]})
    record = await stand(desk, "ready")
    assert await scaled_by(desk, 1) == record.command_id  # it stands already
    first = await scaled_by(desk, 3)
    assert await scaled_by(desk, 3) == first
    assert [(event, id) for _, event, id in desk.said.events[1:]] == [
        (ScaleDeployment(command_id=first, deployment="small", replicas=3), first)
    ] * 2
    record = replace(record, command_id=first, replicas=3)
    await desk.store.deployments.put(record)
    assert await scaled_by(desk, 3) == first
    await desk.store.deployments.put(replace(record, state="failed"))
    assert await scaled_by(desk, 3) != first  # try those again that were given up


async def test_what_the_file_does_not_say_leaves_a_scaled_deployment_alone(desk: Desk) -> None:
    entry = {"name": "small", "command": ["engine"]}
    await ask(desk, "POST", "/models", entry)
    record = await stand(desk, "ready")
    await desk.store.deployments.put(replace(record, replicas=3, command_id="scaled"))
    desk.said.events.clear()
    await ask(desk, "POST", "/models", entry)
    assert desk.said.events == []
    await ask(desk, "POST", "/models", {**entry, "slots": 5})
    await ask(desk, "POST", "/models", {**entry, "replicas": 2, "restart": "never"})
    asked = [event for _, event, _ in desk.said.events if isinstance(event, DeployModel)]
    assert [(event.replicas, event.restart) for event in asked] == [(3, "always"), (2, "never")]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"replicas": -1}, "replicas"),
        ({"replicas": 1001}, "replicas"),
        ({"replicas": "many"}, "replicas"),
        ({}, "replicas"),
        ({"replicas": 2, "now": True}, "now"),
    ],
)
async def test_a_number_of_engines_that_makes_no_sense_is_refused(desk: Desk, body: object, param: str) -> None:
    status, found, _ = await ask(desk, "POST", "/deployments/small/scale", body)
    assert (status, found["error"]["param"], is_openai_error(found)) == (400, param, True)


async def test_what_runs_elsewhere_or_is_going_cannot_be_scaled(desk: Desk) -> None:
    assert (await ask(desk, "POST", "/deployments/small/scale", {"replicas": 2}))[0] == 404
    await ask(desk, "POST", "/models", MODEL)
    await stand(desk, "ready")
    status, found, _ = await ask(desk, "POST", "/deployments/small/scale", {"replicas": 2})
    assert (status, "it is one endpoint" in found["error"]["message"]) == (400, True)
    status, found, _ = await ask(desk, "POST", "/models", {**MODEL, "replicas": 2})
    assert (status, "add another deployment" in found["error"]["message"]) == (400, True)
    await ask(desk, "POST", "/models", {"name": "other", "command": ["engine"]})
    record = desired(deploy_model("c7", deployment="other", name="other", target="local", url=""), None, 1)
    await desk.store.deployments.put(replace(record, state="stopping"))
    status, found, _ = await ask(desk, "POST", "/deployments/other/scale", {"replicas": 2})
    assert (status, "is stopping" in found["error"]["message"]) == (400, True)


async def test_a_drain_can_be_hurried_once(desk: Desk) -> None:
    await ask(desk, "POST", "/models", {"name": "small", "command": ["engine"]})
    record = await stand(desk, "ready")
    desk.said.events.clear()
    assert (await ask(desk, "POST", "/deployments/small/drain"))[:2] == (202, {"stopping": ["small"]})
    await desk.store.deployments.put(replace(record, state="stopping"))
    await ask(desk, "POST", "/deployments/small/drain")
    await ask(desk, "DELETE", "/deployments/small?now=true")
    await desk.store.deployments.put(replace(record, state="stopping", drain=False))
    await ask(desk, "DELETE", "/deployments/small?now=true")
    assert [event.now for _, event, _ in desk.said.events if isinstance(event, StopDeployment)] == [False, True]


# --- what happened ----------------------------------------------------------------------------------------------------


async def test_requests_come_newest_first_a_page_at_a_time(desk: Desk) -> None:
    rows = [request(number) for number in range(5)]
    await desk.store.requests.write([fact(row) for row in rows], rows)
    seen, after = [], ""
    while True:
        _, page, _ = await ask(desk, "GET", f"/requests?limit=2&after={after}")
        seen += [row["run"] for row in page["data"]]
        if page["next"] is None:
            break
        after = page["next"]
    assert seen == [row.run for row in reversed(rows)]
    assert (await ask(desk, "GET", f"/requests/{rows[0].run}"))[1]["model"] == "small"
    assert (await ask(desk, "GET", "/requests?model=other"))[1]["data"] == []


@pytest.mark.parametrize("path", ["/requests?after=x", "/requests/not-a-run", "/trace/not-a-run", "/requests?page=2"])
async def test_odd_questions_are_400(desk: Desk, path: str) -> None:
    assert (await ask(desk, "GET", path))[0] == 400


async def test_a_live_run_has_a_timeline_from_its_hash(desk: Desk) -> None:
    _, found, _ = await ask(desk, "GET", f"/trace/{RUN}")
    assert (found["state"], found["live"]["sequence"]) == ("running", 3)
    assert [row["event"] for row in found["timeline"]] == ["accepted", "cleared", "claimed"]


async def test_an_ended_run_has_a_timeline_from_the_record(desk: Desk) -> None:
    row = request(7)
    await desk.store.requests.write([fact(row)], [row])
    _, found, _ = await ask(desk, "GET", f"/trace/{row.run}")
    assert (found["state"], found["live"]) == ("ended", None)
    assert {"accepted", "first", "ended", "fact RequestCompleted"} <= {step["event"] for step in found["timeline"]}


async def test_a_run_nobody_knows_is_a_404_and_a_live_one_can_be_cancelled(desk: Desk) -> None:
    other = RUN[:-1] + "9"
    assert (await ask(desk, "GET", f"/trace/{other}"))[0] == 404
    assert (await ask(desk, "GET", f"/requests/{other}"))[0] == 404
    assert (await ask(desk, "POST", f"/trace/{RUN}/cancel"))[1]["cancelled"]
    assert not (await ask(desk, "POST", f"/trace/{other}/cancel"))[1]["cancelled"]


async def test_dead_letters_are_listed_shown_replayed_and_purged(desk: Desk) -> None:
    ids = [f"0:170000000000{number}-0" for number in range(3)]
    desk.letters.letters = {id: letter(id) for id in ids}
    assert [row["id"] for row in (await ask(desk, "GET", "/dlq?count=2"))[1]["data"]] == [ids[2], ids[1]]
    assert (await ask(desk, "GET", f"/dlq/{ids[0]}"))[1]["reason"] == "poison"
    assert (await ask(desk, "POST", f"/dlq/{ids[0]}/replay"))[1] == {"id": ids[0], "entry": "9-0"}
    assert (await ask(desk, "POST", f"/dlq/{ids[0]}/replay"))[0] == 404
    assert (await ask(desk, "POST", "/dlq/purge", {"ids": ids}))[1] == {"purged": 2}
    assert (await ask(desk, "GET", "/dlq/odd"))[0] == 400


async def test_lag_shows_every_group_with_live_runs_and_dead_letters(desk: Desk) -> None:
    _, found, _ = await ask(desk, "GET", "/lag")
    assert (found["data"][0]["group"], found["data"][0]["lag"], found["live"], found["dead"]) == ("audit", 2, 4, 1)


WORKERS = ProcessRecord(
    consumer="workers-1-abc",
    rooms=("authorization", "audit", "console"),
    pid=1,
    host="h",
    started_ms=1,
    version="0.1.0",
)
DOOR = replace(WORKERS, consumer="ingress-2-def", rooms=("ingress",), addresses={"ingress": "http://h:1"})


async def test_lag_shows_who_serves_a_group_and_its_dead_letters(desk: Desk) -> None:
    await desk.processes.announce(WORKERS)
    await desk.processes.announce(replace(WORKERS, consumer="audit-3-ghi", rooms=("audit",), state="draining"))
    (row,) = (await ask(desk, "GET", "/lag"))[1]["data"]
    assert (row["serving"], row["dead"], row["consumers"]) == (1, 1, 1)


async def test_status_is_one_look_at_everything(desk: Desk) -> None:
    await desk.processes.announce(WORKERS)
    await desk.processes.announce(DOOR)
    await desk.store.deployments.put(desired(deploy_model(), None, 1_000))
    status, found, _ = await ask(desk, "GET", "/status")
    assert (status, found["healthy"], found["problems"]) == (200, True, [])
    assert found["servers"] == [
        {"name": "redis", "up": True, "reason": ""},
        {"name": "postgres", "up": True, "reason": ""},
    ]
    assert [row["consumer"] for row in found["processes"]] == ["ingress-2-def", "workers-1-abc"]
    assert [(row["group"], row["lag"], row["consumers"]) for row in found["groups"]] == [
        ("authorization", 0, 1),
        ("audit", 2, 1),
    ]
    assert (found["deployments"], found["live"], found["dead"]) == ({"ready": 0, "wanted": 1}, 4, 1)
    assert len(found["warnings"]) == 2


async def test_status_names_servers_that_are_away(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away() -> Any:
        raise Unavailable("refused")

    monkeypatch.setattr(desk.store.deployments, "list", away)
    monkeypatch.setattr(desk.processes, "list", away)
    status, found, _ = await ask(desk, "GET", "/status")
    assert (status, found["healthy"]) == (200, False)
    assert found["problems"] == ["redis does not answer: refused", "postgres does not answer: refused"]


async def test_consumers_are_told_apart_from_those_that_died(desk: Desk) -> None:
    await desk.processes.announce(WORKERS)
    rows = (await ask(desk, "GET", "/consumers"))[1]["data"]
    assert [(row["consumer"], row["pending"], row["alive"]) for row in rows] == [
        ("workers-1-abc", 1, True),
        ("workers-9-old", 0, False),
    ]


async def test_a_process_is_asked_to_drain_by_its_name(desk: Desk) -> None:
    second = replace(WORKERS, consumer="workers-2-xyz")
    for record in (WORKERS, DOOR, second):
        await desk.processes.announce(record)
    status, found, _ = await ask(desk, "POST", "/consumers/workers-1-abc/drain")
    assert (status, found) == (202, {"draining": "workers-1-abc", "left_alone": []})
    assert desk.said.events == [("control", DrainAsked(consumer="workers-1-abc"), "")]


async def test_the_last_process_of_a_room_drains_only_by_force(desk: Desk) -> None:
    await desk.processes.announce(DOOR)
    status, found, _ = await ask(desk, "POST", "/consumers/ingress-2-def/drain", {"force": False})
    assert status == 400 and "last process of ingress" in found["error"]["message"] and is_openai_error(found)
    assert desk.said.events == []
    status, found, _ = await ask(desk, "POST", "/consumers/ingress-2-def/drain", {"force": True})
    assert (status, found["left_alone"]) == (202, ["ingress"])
    assert (await ask(desk, "POST", "/consumers/nobody/drain", {"force": True}))[0] == 404
    assert (await ask(desk, "POST", "/consumers/ingress-2-def/drain", {"hard": True}))[0] == 400


async def test_a_text_is_judged_as_a_request_would_be(desk: Desk) -> None:
    _, found, _ = await ask(desk, "POST", "/guardrails/scan", {"text": "card 4111 1111 1111 1111, thanks"})
    assert (found["outcome"], found["text"]) == ("edits", "card [CARD], thanks")
    assert [item["kind"] for item in found["findings"]] == ["card"]
    assert found["families"] == {"rules": "ran", "persons": "nothing to look for"} and found["body"] is None
    assert (await ask(desk, "POST", "/guardrails/scan", {"text": "hello"}))[1]["outcome"] == "pass"


async def test_a_whole_request_is_judged_where_its_texts_stand(desk: Desk) -> None:
    body = {"model": "m", "prompt": ["hello", "card 4111 1111 1111 1111"]}
    _, found, _ = await ask(desk, "POST", "/guardrails/scan", {"body": body, "route": "/v1/completions"})
    assert (found["outcome"], found["body"]["prompt"]) == ("edits", ["hello", "card [CARD]"])
    assert [(item["pointer"], item["family"]) for item in found["findings"]] == [("/prompt/1", "rules")]
    for wrong in ({}, {"text": "x", "body": {}}, {"body": {}, "route": "/v1/nothing"}, {"text": "x", "more": 1}):
        assert (await ask(desk, "POST", "/guardrails/scan", wrong))[0] == 400
