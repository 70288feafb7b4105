"""workers/provisioner/rules.py, standing.py, wishes.py and the judgement of probes: values in, values out."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from schemas.commands import ScaleDeployment, StopDeployment
from schemas.records import DeploymentRecord, ReplicaRecord
from tests.console_support import deploy_model
from workers.provisioner.ports import Exit, Handle, Health, Spec
from workers.provisioner.rules import (
    Forget,
    Limits,
    Mark,
    Memory,
    Plan,
    Publish,
    Seen,
    Start,
    Step,
    Stop,
    Withdraw,
    could_not_start,
    plan,
    resting,
)
from workers.provisioner.standing import ready_of, standing
from workers.provisioner.targets.models import judge
from workers.provisioner.wishes import desired, endpoint_of, scaled, stopping, wanted, wish

LIMITS = Limits(start_timeout_s=100, bad_probes=3, drain_s=50, restart_most_s=60)
RECORD = desired(deploy_model(target="local", url="", command=("engine",)), None, 1_000)
HANDLE = Handle(deployment="small", digest=wish(RECORD), url="http://127.0.0.1:1/v1", pid=7, born=1)
UP, DOWN = Health(up=True, upstream_model="m"), Health(up=False, reason="refused")
MEMORY = Memory(command_id=RECORD.command_id)
ROW = ReplicaRecord(deployment="small", replica=1, command_id=RECORD.command_id, state="starting")
READY = replace(ROW, state="ready", pid=7)
BUSY = "1 request still runs"


def look(
    record: DeploymentRecord = RECORD,
    handle: Handle | None = HANDLE,
    health: Health | None = None,
    memory: Memory = MEMORY,
    now: float = 1_000.0,
    *,
    wanted: bool = True,
    **seen: Any,
) -> Plan:
    return plan(record, wanted, Seen(handle=handle, health=health, **seen), memory, now, LIMITS)


def kinds(steps: tuple[Step, ...]) -> list[str]:
    return [type(step).__name__ for step in steps]


# --- what should run --------------------------------------------------------------------------------------------------


def test_what_is_wanted_and_absent_is_started() -> None:
    found = look(handle=None)
    assert found.steps == (Mark("starting", "waiting for the engine's first answer"), Start())
    assert found.memory.starts == 1


def test_a_healthy_engine_is_published_and_ready_once() -> None:
    found = look(health=UP, row=ROW)
    assert found.steps == (Publish(True, "m"), Mark("ready"))
    assert look(health=UP, memory=found.memory, now=1_001, row=READY).steps == ()


def test_an_unchanged_endpoint_is_published_again_after_a_while() -> None:
    memory = look(health=UP).memory
    assert look(health=UP, memory=memory, now=1_031, row=READY).steps == (Publish(True, "m"),)


def test_a_new_command_publishes_and_marks_again_at_once() -> None:
    memory = look(health=UP).memory
    record = replace(RECORD, command_id="c2", slots=99)
    assert look(record, health=UP, memory=memory, row=READY).steps == (Publish(True, "m"), Mark("ready"))


def test_an_engine_that_died_is_down_at_once_and_started_again() -> None:
    memory = look(health=UP).memory
    found = look(handle=None, memory=memory, now=1_010, row=READY, exit=Exit(1))
    said = "the engine ended (exit code 1); it is started again (start 2)"
    assert found.steps == (Publish(False), Mark("starting", said), Start(again=True))


def test_an_engine_that_died_while_nobody_looked_is_started_again() -> None:
    found = look(handle=None, memory=Memory(), row=READY)
    assert kinds(found.steps) == ["Publish", "Mark", "Start"]
    assert "exit code unknown" in str(found.steps[1])


def test_a_url_elsewhere_is_not_down_because_the_provisioner_began_anew() -> None:
    record = desired(deploy_model(), None, 1)
    row = replace(READY, pid=0, command_id=record.command_id)
    assert look(record, handle=None, memory=Memory(), row=row).steps == (Start(),)


def test_an_engine_that_dies_in_its_pause_is_down_at_once_and_waits() -> None:
    memory = replace(look(health=UP).memory, starts=4, not_before=1_020.0)
    found = look(handle=None, memory=memory, now=1_010, row=READY)
    assert kinds(found.steps) == ["Publish", "Mark"]
    row = replace(ROW, state="failed", reason=found.steps[1].reason)  # type: ignore[union-attr]
    assert look(handle=None, memory=found.memory, now=1_011, row=row).steps == ()
    assert look(handle=None, memory=found.memory, now=1_021, row=row).steps == (Start(again=True),)


def test_engines_that_ended_together_are_started_again_at_moments_of_their_own() -> None:
    memory = replace(MEMORY, starts=5, not_before=0.0)
    pauses = [
        look(handle=None, memory=memory, exit=Exit(1), spread=spread).memory.not_before - 1_000.0
        for spread in (0.0, 0.5, 1.0)
    ]
    assert pauses == [16.0, 12.0, 8.0]


def test_pauses_between_starts_grow_to_their_limit() -> None:
    memory, now, pauses = MEMORY, 0.0, []
    for _ in range(10):
        memory = look(handle=None, memory=memory, now=now).memory
        pauses.append(memory.not_before - now)
        assert Start(again=True) not in look(handle=None, memory=memory, now=now).steps or pauses[-1] == 0
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
    memory = look(health=UP, memory=memory, now=1_061, row=READY).memory
    assert memory.starts == 0


def test_a_new_command_forgives_them_at_once() -> None:
    memory = replace(MEMORY, starts=9, not_before=5_000.0)
    row = replace(ROW, state="failed")
    assert Start() in look(replace(RECORD, command_id="c2"), handle=None, memory=memory, row=row).steps


def test_one_bad_look_does_not_take_a_ready_endpoint_down_but_three_do() -> None:
    memory = look(health=UP).memory
    for _ in range(2):
        found = look(health=DOWN, memory=memory, row=READY)
        assert found.steps == ()
        memory = found.memory
    assert look(health=DOWN, memory=memory, row=READY).steps == (Publish(False), Mark("failed", "refused"))


def test_an_endpoint_that_answers_again_is_up_again() -> None:
    memory, row = replace(MEMORY, published=Publish(False)), replace(READY, state="failed", reason="refused")
    assert look(health=UP, memory=memory, row=row).steps == (Publish(True, "m"), Mark("ready"))


def test_an_engine_that_hangs_gets_the_time_of_a_start_to_answer_again() -> None:
    memory = replace(look(health=UP).memory, started=1.0, bad=9)
    found = look(health=DOWN, memory=memory, row=READY)
    row = replace(READY, state="failed", reason="refused")
    assert look(health=DOWN, memory=found.memory, now=1_099, row=row).steps == ()
    assert kinds(look(health=DOWN, memory=found.memory, now=1_101, row=row).steps) == ["Stop", "Mark"]


def test_a_start_that_never_answers_is_given_up_and_started_again() -> None:
    row, memory = replace(ROW, reason="refused", pid=7), replace(MEMORY, started=900.0, starts=1)
    assert look(health=DOWN, memory=memory, now=999, row=row).steps == ()
    found = look(health=DOWN, memory=memory, now=1_001, row=row)
    assert found.steps == (Stop(), Mark("failed", "no answer within 100 s (refused)"))
    again = look(handle=None, memory=found.memory, now=1_002, row=replace(row, state="failed", pid=0), exit=Exit(0))
    assert again.steps[-1] == Start(again=True)


def test_a_url_that_never_answers_is_failed_after_the_time_of_a_start_and_ready_when_it_answers() -> None:
    record = desired(deploy_model(), None, 1)
    handle = Handle(deployment="small", digest=wish(record), url=record.url)
    row, memory = replace(ROW, reason="refused", command_id="c1"), replace(MEMORY, started=900.0, starts=1)
    assert look(record, handle, DOWN, memory, 999, row=row).steps == ()
    late = look(record, handle, DOWN, memory, 1_001, row=row)
    assert late.steps == (Mark("failed", "no answer within 100 s (refused)"),)
    row = replace(row, state="failed", reason="no answer within 100 s (refused)")
    assert look(record, handle, DOWN, late.memory, 1_010, row=row).steps == ()
    assert look(record, handle, UP, late.memory, 1_020, row=row).steps == (Publish(True, "m"), Mark("ready"))


def test_a_mistake_that_waiting_will_not_mend_fails_at_once() -> None:
    found = look(health=Health(up=False, reason="credential", final=True))
    assert found.steps == (Mark("failed", "credential"),)


@pytest.mark.parametrize(
    ("restart", "exit", "gave_up", "state"),
    [
        ("always", Exit(0), "", None),
        ("always", Exit(1), "", None),
        ("always", None, "", None),
        ("on-failure", Exit(0), "", "ended"),
        ("on-failure", Exit(1), "", None),
        ("on-failure", Exit(-9), "", None),
        ("on-failure", Exit(None), "", None),
        ("on-failure", Exit(0), "no answer within 100 s", None),
        ("never", Exit(0), "", "ended"),
        ("never", Exit(3), "", "crashed"),
        ("never", None, "", "crashed"),
        ("never", Exit(0), "no answer within 100 s", "crashed"),
    ],
)
def test_the_restart_policy_says_what_follows_an_end(
    restart: str, exit: Exit | None, gave_up: str, state: str | None
) -> None:
    found = resting(restart, exit, gave_up)
    assert (found.state if found else None) == state
    memory = replace(look(health=UP).memory, gave_up=gave_up)
    steps = look(replace(RECORD, restart=restart), handle=None, memory=memory, row=READY, exit=exit).steps
    assert (Start(again=True) in steps) == (state is None)
    assert steps[0] == Publish(False)


@pytest.mark.parametrize("state", ["ended", "crashed"])
def test_an_engine_at_rest_stays_so_until_the_next_command(state: str) -> None:
    record, row = replace(RECORD, restart="never"), replace(ROW, state=state)
    assert look(record, handle=None, memory=Memory(), row=row).steps == ()
    assert Start() in look(replace(record, command_id="c2"), handle=None, memory=Memory(), row=row).steps


@pytest.mark.parametrize(
    ("exit", "said"),
    [
        (Exit(2), "exit code 2"),
        (Exit(-9), "killed by SIGKILL"),
        (Exit(-99), "killed by signal 99"),
        (Exit(), "unknown"),
    ],
)
def test_a_reason_says_how_an_engine_ended(exit: Exit, said: str) -> None:
    assert said in str(exit)


def test_an_engine_that_cannot_be_started_is_left_alone_only_by_never() -> None:
    assert could_not_start(RECORD, "no such program") == Mark("failed", "no such program")
    assert could_not_start(replace(RECORD, restart="never"), "no such program").state == "crashed"


# --- what is to go ----------------------------------------------------------------------------------------------------


def test_what_is_not_wanted_is_withdrawn_drained_stopped_and_forgotten() -> None:
    first = look(wanted=False, memory=look(health=UP).memory, row=READY)
    assert first.steps == (Withdraw(), Mark("draining", "its endpoint was withdrawn"))
    row = replace(READY, state="draining", reason=BUSY)
    assert look(wanted=False, memory=first.memory, now=1_049, row=row, busy=BUSY).steps == ()
    assert look(wanted=False, memory=first.memory, now=1_001, row=row).steps == (Stop(), Forget("idle"))
    late = look(wanted=False, memory=first.memory, now=1_050, row=row, busy=BUSY)
    assert late.steps == (Stop(), Forget("timeout"))


def test_what_shall_go_now_is_not_waited_for() -> None:
    record = replace(RECORD, drain=False)
    assert look(record, wanted=False, row=READY).steps == (Withdraw(), Stop(), Forget("now"))
    begun = look(wanted=False, row=READY).memory
    assert look(record, wanted=False, memory=begun, row=READY, busy=BUSY).steps == (Stop(), Forget("now"))


def test_what_is_not_wanted_and_does_not_run_is_forgotten() -> None:
    assert look(wanted=False, handle=None, row=READY).steps == (Withdraw(), Forget())


def test_a_second_command_does_not_give_a_draining_engine_more_time() -> None:
    begun = look(wanted=False, row=READY).memory
    record = replace(RECORD, command_id="c2")
    assert look(record, wanted=False, memory=begun, now=1_050, row=READY, busy=BUSY).steps == (
        Stop(),
        Forget("timeout"),
    )


def test_an_engine_that_is_wanted_again_while_it_drains_is_published_again() -> None:
    begun = look(wanted=False, row=READY).memory
    row = replace(READY, state="draining", reason=BUSY)
    found = look(health=UP, memory=begun, now=1_001, row=row)
    assert found.steps == (Publish(True, "m"), Mark("ready"))
    assert look(wanted=False, memory=found.memory, now=2_000, row=READY).steps[0] == Withdraw()


def test_an_engine_of_an_older_wish_drains_before_the_new_one_starts() -> None:
    old = replace(HANDLE, digest="old")
    first = look(handle=old, row=READY)
    assert first.steps == (Withdraw(), Mark("draining", "its endpoint was withdrawn"))
    assert look(handle=old, memory=first.memory, now=1_001, row=READY, busy=BUSY).steps == (Mark("draining", BUSY),)
    gone = look(handle=old, memory=first.memory, now=1_002, row=READY)
    assert kinds(gone.steps) == ["Stop", "Mark"]
    assert look(handle=None, memory=gone.memory, now=1_003, row=ROW).steps == (Start(),)


def test_an_engine_of_an_older_wish_waits_for_its_turn() -> None:
    old = replace(HANDLE, digest="old")
    assert look(handle=old, row=READY, turn=False).steps == ()
    begun = look(handle=old, row=READY).memory
    assert Stop() in look(handle=old, memory=begun, now=1_001, row=READY, turn=False).steps


# --- how a deployment stands ------------------------------------------------------------------------------------------

C1 = "c1"


def row(number: int, state: str, reason: str = "", command_id: str = C1) -> ReplicaRecord:
    return ReplicaRecord(deployment="small", replica=number, command_id=command_id, state=state, reason=reason)


@pytest.mark.parametrize(
    ("changes", "rows", "left", "state", "reason"),
    [
        ({}, (), False, None, ""),
        ({}, (row(1, "starting", "refused"),), True, "starting", "refused"),
        ({}, (row(1, "ready"),), True, "ready", ""),
        ({}, (row(1, "failed", "exit code 1"),), False, "failed", "exit code 1"),
        ({}, (row(1, "ended", "ended by itself (exit code 0)"),), False, "stopped", "ended by itself (exit code 0)"),
        ({}, (row(1, "crashed", "exit code 1"),), False, "failed", "exit code 1"),
        ({"replicas": 2}, (row(1, "ready"), row(2, "ready")), True, "ready", ""),
        ({"replicas": 2}, (row(1, "ready"),), True, "ready", "1 of 2 replicas are ready"),
        (
            {"replicas": 2},
            (row(1, "ready"), row(2, "failed", "exit code 1")),
            True,
            "ready",
            "1 of 2 replicas are ready; replica 2: exit code 1",
        ),
        (
            {"replicas": 2},
            (row(1, "ready", command_id="c0"), row(2, "ready")),
            True,
            "ready",
            "1 of 2 replicas are ready",
        ),
        ({"replicas": 2}, (row(1, "starting", "a"), row(2, "crashed", "b")), True, "failed", "replica 2: b"),
        ({"replicas": 2}, (row(1, "ended", "a"), row(2, "starting", "b")), True, "starting", "replica 1: a"),
        ({"replicas": 2}, (row(1, "ended", "a"), row(2, "crashed", "b")), False, "failed", "replica 2: b"),
        ({"replicas": 2}, (row(1, "ended", "a"),), False, "starting", "replica 1: a"),
        ({"replicas": 1}, (row(1, "ready"), row(2, "draining", BUSY)), True, "ready", ""),
        ({"replicas": 0}, (), False, "paused", "scaled to 0 replicas"),
        ({"replicas": 0}, (row(1, "draining", BUSY),), True, "paused", f"replica 1 drains: {BUSY}"),
        ({"state": "stopping"}, (row(1, "draining", BUSY),), True, "stopping", f"replica 1 drains: {BUSY}"),
        ({"state": "stopping", "reason": "asked to stop"}, (), True, "stopping", "asked to stop"),
        ({"state": "stopping"}, (), False, "stopped", "stopped by command"),
        ({"state": "stopped"}, (), False, None, ""),
    ],
)
def test_a_deployment_stands_as_its_replicas_do(
    changes: dict[str, Any], rows: tuple[ReplicaRecord, ...], left: bool, state: str | None, reason: str
) -> None:
    found = standing(replace(RECORD, **changes), rows, left)
    assert (found and found.state, found.reason if found else "") == (state, reason)


def test_only_engines_of_the_present_wish_count_as_ready() -> None:
    assert ready_of(RECORD, [row(1, "ready"), row(2, "ready", command_id="c0"), row(3, "draining")]) == 1


# --- what commands ask for --------------------------------------------------------------------------------------------


def test_deploying_the_same_again_keeps_what_runs() -> None:
    ready = replace(RECORD, state="ready", pid=7)
    again = desired(deploy_model("c2", target="local", url="", command=("engine",), slots=3), ready, 2_000)
    assert (again.state, again.pid, again.slots, again.created_ms) == ("ready", 7, 3, 1_000)
    other = desired(deploy_model("c2", target="local", url="", command=("other",)), ready, 2_000)
    assert (other.state, other.pid) == ("pending", 0)


def test_deploying_after_a_stop_begins_anew() -> None:
    stopped = replace(RECORD, state="stopped", drain=False)
    found = desired(deploy_model("c2", target="local", url="", command=("engine",)), stopped, 2_000)
    assert (found.state, found.drain) == ("pending", True)


def test_scaling_changes_the_number_and_nothing_else() -> None:
    ready = replace(RECORD, state="ready", pid=7)
    found = scaled(ScaleDeployment(command_id="c2", deployment="small", replicas=3), ready, 2_000)
    assert found == replace(ready, command_id="c2", replicas=3, updated_ms=2_000)
    assert list(wanted(found)) == [1, 2, 3]
    assert wish(found) == wish(RECORD)
    woken = scaled(ScaleDeployment(command_id="c3", deployment="small", replicas=1), replace(ready, state="paused"), 1)
    assert woken is not None and woken.state == "pending"


@pytest.mark.parametrize("changes", [{"state": "stopped"}, {"state": "stopping"}, {"target": "external"}])
def test_what_is_going_or_elsewhere_is_not_scaled(changes: dict[str, Any]) -> None:
    command = ScaleDeployment(command_id="c2", deployment="small", replicas=3)
    assert scaled(command, replace(RECORD, **changes), 2_000) is None
    assert scaled(command, None, 2_000) is None
    assert scaled(replace(command, replicas=-1), RECORD, 2_000) is None


def test_a_stop_may_be_hurried_but_not_slowed_down() -> None:
    slow = stopping(StopDeployment(command_id="s1", deployment="small"), RECORD, 2_000)
    assert slow is not None and (slow.state, slow.drain, list(wanted(slow))) == ("stopping", True, [])
    fast = stopping(StopDeployment(command_id="s2", deployment="small", now=True), slow, 3_000)
    assert fast is not None and (fast.reason, fast.drain) == ("asked to stop now", False)
    again = stopping(StopDeployment(command_id="s3", deployment="small"), fast, 4_000)
    assert again is not None and not again.drain
    assert stopping(StopDeployment(command_id="s4", deployment="small"), replace(fast, state="stopped"), 1) is None


def test_an_endpoint_carries_what_routers_need() -> None:
    record = desired(deploy_model(pool="p", slots=3, weight=2, credential="sealed"), None, 1)
    found = endpoint_of(record, record.url, up=True, upstream_model="big")
    assert (found.endpoint, found.pool, found.upstream_model, found.slots, found.weight) == ("small", "p", "big", 3, 2)
    assert (found.credential, found.private, found.up) == ("sealed", True, True)
    assert endpoint_of(record, record.url, up=True, replica=2).endpoint == "small/2"


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
