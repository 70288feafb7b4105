"""workers/provisioner/rules.py and the judgement of probes: values in, values out."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from schemas.records import DeploymentRecord
from tests.console_support import deploy_model
from workers.provisioner.ports import Handle, Health, Spec
from workers.provisioner.rules import (
    Limits,
    Mark,
    Memory,
    Plan,
    Publish,
    Step,
    Stop,
    Withdraw,
    desired,
    endpoint_of,
    may_mark,
    plan,
    wish,
)
from workers.provisioner.targets.models import judge

LIMITS = Limits(start_timeout_s=100, bad_probes=3, drain_s=5, restart_most_s=60)
RECORD = desired(deploy_model(target="local", url="", command=("engine",)), None, 1_000)
HANDLE = Handle(deployment="small", digest=wish(RECORD), url="http://127.0.0.1:1/v1", pid=7, born=1)
UP, DOWN = Health(up=True, upstream_model="m"), Health(up=False, reason="refused")
MEMORY = Memory(command_id=RECORD.command_id)


def look(
    record: DeploymentRecord = RECORD,
    handle: Handle | None = HANDLE,
    health: Health | None = None,
    memory: Memory = MEMORY,
    now: float = 1_000.0,
) -> Plan:
    return plan(record, handle, health, memory, now, LIMITS)


def kinds(steps: tuple[Step, ...]) -> list[str]:
    return [type(step).__name__ for step in steps]


def test_what_is_wanted_and_absent_is_started() -> None:
    found = look(handle=None)
    assert kinds(found.steps) == ["Mark", "Start"]
    assert found.memory.starts == 1


def test_a_healthy_engine_is_published_and_ready_once() -> None:
    found = look(health=UP)
    assert found.steps == (Publish(True, "m"), Mark("ready"))
    again = look(replace(RECORD, state="ready"), health=UP, memory=found.memory, now=1_001)
    assert again.steps == ()


def test_an_unchanged_endpoint_is_published_again_after_a_while() -> None:
    memory = look(health=UP).memory
    assert look(replace(RECORD, state="ready"), health=UP, memory=memory, now=1_031).steps == (Publish(True, "m"),)


def test_a_new_command_publishes_again_at_once() -> None:
    memory = look(health=UP).memory
    record = replace(RECORD, state="ready", command_id="c2", slots=99)
    assert look(record, health=UP, memory=memory).steps == (Publish(True, "m"),)


def test_an_engine_that_died_is_down_at_once_and_started_again() -> None:
    memory = look(health=UP).memory
    found = look(replace(RECORD, state="ready", pid=7), handle=None, memory=memory, now=1_010)
    assert kinds(found.steps) == ["Publish", "Mark", "Start"]
    assert found.steps[0] == Publish(False)


def test_an_engine_that_died_while_nobody_looked_is_started_again() -> None:
    found = look(replace(RECORD, state="ready", pid=7), handle=None, memory=Memory())
    assert kinds(found.steps) == ["Publish", "Mark", "Start"]


def test_pauses_between_starts_grow_to_their_limit() -> None:
    memory, now, pauses = MEMORY, 0.0, []
    for _ in range(10):
        memory = look(handle=None, memory=memory, now=now).memory
        pauses.append(memory.not_before - now)
        assert look(handle=None, memory=memory, now=memory.not_before - 0.01).steps == () or pauses[-1] == 0
        now = memory.not_before
    assert pauses == [0, 1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_an_engine_that_keeps_dying_counts_as_failed() -> None:
    memory, states = MEMORY, []
    for now in range(0, 500, 100):
        found = look(handle=None, memory=memory, now=float(now))
        memory = found.memory
        states += [step.state for step in found.steps if isinstance(step, Mark)]
    assert states == ["starting", "starting", "starting", "failed", "failed"]


def test_a_steady_life_forgives_earlier_failures() -> None:
    memory = replace(look(health=UP).memory, starts=5)
    memory = look(replace(RECORD, state="ready"), health=UP, memory=memory, now=1_061).memory
    assert memory.starts == 0


def test_one_bad_look_does_not_take_a_ready_endpoint_down_but_three_do() -> None:
    record, memory = replace(RECORD, state="ready"), look(health=UP).memory
    for _ in range(2):
        found = look(record, health=DOWN, memory=memory)
        assert found.steps == ()
        memory = found.memory
    assert look(record, health=DOWN, memory=memory).steps == (Publish(False), Mark("failed", "refused"))


def test_an_endpoint_that_answers_again_is_up_again() -> None:
    memory = replace(MEMORY, published=Publish(False), ready_since=0.0)
    record = replace(RECORD, state="failed", reason="refused")
    assert look(record, health=UP, memory=memory).steps == (Publish(True, "m"), Mark("ready"))


def test_a_start_that_never_answers_is_given_up() -> None:
    record, memory = replace(RECORD, state="starting", reason="refused"), replace(MEMORY, started=900.0, starts=1)
    assert look(record, health=DOWN, memory=memory, now=999).steps == ()
    assert kinds(look(record, health=DOWN, memory=memory, now=1_001).steps) == ["Stop", "Mark"]


def test_a_mistake_that_waiting_will_not_mend_fails_at_once() -> None:
    found = look(health=Health(up=False, reason="credential", final=True))
    assert found.steps == (Mark("failed", "credential"),)


def test_an_engine_of_an_older_wish_is_stopped_before_the_new_one_starts() -> None:
    memory = look(health=UP).memory
    found = look(handle=replace(HANDLE, digest="old"), memory=memory)
    assert found.steps == (Publish(False), Stop())
    assert kinds(look(handle=None, memory=found.memory).steps) == ["Mark", "Start"]


def test_stopping_withdraws_drains_stops_and_says_so() -> None:
    record = replace(RECORD, state="stopping")
    first = look(record)
    assert first.steps == (Withdraw(),)
    assert look(record, memory=first.memory, now=1_004).steps == ()
    assert look(record, memory=first.memory, now=1_005).steps == (Stop(), Mark("stopped", "stopped by command"))


def test_an_engine_of_a_stopped_deployment_is_ended() -> None:
    assert look(replace(RECORD, state="stopped")).steps == (Withdraw(), Stop())


def test_a_state_planned_before_a_command_is_not_written_after_it() -> None:
    assert may_mark(RECORD, RECORD, "ready")
    assert not may_mark(RECORD, replace(RECORD, command_id="c2"), "ready")
    assert not may_mark(RECORD, replace(RECORD, state="stopping"), "ready")
    assert may_mark(RECORD, replace(RECORD, state="stopping"), "stopped")
    assert not may_mark(RECORD, None, "ready")


def test_deploying_the_same_again_keeps_what_runs() -> None:
    ready = replace(RECORD, state="ready", pid=7)
    again = desired(deploy_model("c2", target="local", url="", command=("engine",), slots=3), ready, 2_000)
    assert (again.state, again.pid, again.slots, again.created_ms) == ("ready", 7, 3, 1_000)
    other = desired(deploy_model("c2", target="local", url="", command=("other",)), ready, 2_000)
    assert (other.state, other.pid) == ("pending", 0)


def test_deploying_after_a_stop_begins_anew() -> None:
    stopped = replace(RECORD, state="stopped")
    assert desired(deploy_model("c2", target="local", url="", command=("engine",)), stopped, 2_000).state == "pending"


def test_an_endpoint_carries_what_routers_need() -> None:
    record = desired(deploy_model(pool="p", slots=3, weight=2, credential="sealed"), None, 1)
    found = endpoint_of(record, record.url, Publish(True, "big"))
    assert (found.endpoint, found.pool, found.upstream_model, found.slots, found.weight) == ("small", "p", "big", 3, 2)
    assert (found.credential, found.private, found.up) == ("sealed", True, True)


SPEC = Spec(deployment="d", name="small", digest="x")


def listing(*names: str) -> bytes:
    return json.dumps({"data": [{"id": name} for name in names]}).encode()


@pytest.mark.parametrize(
    ("status", "body", "upstream", "up", "model", "final"),
    [
        (200, listing("small", "other"), "", True, "small", False),
        (200, listing("only"), "", True, "only", False),
        (200, listing("a", "b"), "", False, "", True),
        (200, listing(), "", False, "", False),
        (200, listing("a", "b"), "b", True, "b", False),
        (200, b"<html>", "", False, "", False),
        (404, b"", "", False, "", False),
        (404, b"", "b", True, "b", False),
        (401, b"", "b", False, "", True),
        (403, b"", "", False, "", True),
        (503, b"", "b", False, "", False),
    ],
)
def test_a_listing_of_models_is_judged(
    status: int, body: bytes, upstream: str, up: bool, model: str, final: bool
) -> None:
    found = judge(status, body, replace(SPEC, upstream_model=upstream))
    assert (found.up, found.upstream_model, found.final) == (up, model, final)
    assert found.up or found.reason
