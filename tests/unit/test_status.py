"""One look at the system: what is a problem, what is a warning, who may go."""

from __future__ import annotations

from dataclasses import replace

from console.stack import ROOMS
from console.status import Look, count_wanted, group_states, left_alone, problems, warnings
from runtime.inspect import GroupLag
from schemas.records import DeploymentRecord, ProcessRecord

DOOR = ProcessRecord(consumer="ingress-1-a", rooms=("ingress",), pid=1, host="h", started_ms=1, version="0.1.0")
WORKERS = replace(DOOR, consumer="workers-2-b", rooms=ROOMS[1:])
RULES = replace(DOOR, consumer="rules-3-c", rooms=("rules",))
WELL = Look(
    servers={"redis": "", "postgres": ""}, groups=("rules", "router", "audit", "ledger"), processes=(DOOR, WORKERS)
)
MODEL = DeploymentRecord(deployment="d", command_id="c", name="m", target="external", pool="m", state="ready")


def lag(stream: str, group: str, lag: int, pending: int, oldest_ms: int) -> GroupLag:
    return GroupLag(stream=stream, group=group, length=9, lag=lag, pending=pending, oldest_ms=oldest_ms, consumers=1)


def test_a_system_with_everything_has_no_problem_and_no_warning() -> None:
    assert list(problems(WELL)) == list(warnings(replace(WELL, deployments=(MODEL,)))) == []


def test_a_group_is_summed_over_its_streams() -> None:
    lags = (
        lag("a", "router", 1, 2, 30),
        replace(lag("b", "router", 10, 20, 7), waiting=4),
        lag("c", "rules", 100, 0, 0),
    )
    states = {state.group: state for state in group_states(replace(WELL, lags=lags, processes=(WORKERS, RULES)))}
    router = states["router"]
    assert (router.lag, router.pending, router.waiting, router.oldest_ms, router.consumers) == (11, 22, 4, 30, 1)
    assert (states["rules"].consumers, states["ledger"].lag, states["ledger"].consumers) == (2, 0, 1)


def test_a_group_without_a_process_is_a_problem_that_names_the_room_to_start() -> None:
    found = list(problems(replace(WELL, processes=(DOOR, RULES))))
    assert len(found) == 3
    assert "the group ledger has no consumer: `headrace start audit`" in found


def test_a_draining_process_serves_nobody_and_is_only_a_warning_by_itself() -> None:
    look = replace(WELL, processes=(DOOR, WORKERS, replace(RULES, state="draining")))
    assert list(problems(look)) == [] and list(warnings(look)) == ["rules-3-c is draining"]
    assert next(iter(group_states(look))).consumers == 1


def test_a_process_that_is_not_ready_is_a_problem_with_its_reason() -> None:
    look = replace(WELL, processes=(DOOR, WORKERS, replace(RULES, state="troubled", trouble="redis: away")))
    assert list(problems(look)) == ["rules-3-c is not ready: redis: away"]


def test_a_system_without_a_door_is_unhealthy() -> None:
    assert list(problems(replace(WELL, processes=(WORKERS,)))) == [
        "no ingress takes requests: `headrace start ingress`"
    ]


def test_a_server_that_is_away_is_the_problem_not_what_it_hides() -> None:
    look = replace(WELL, servers={"redis": "refused", "postgres": ""}, processes=())
    assert list(problems(look)) == ["redis does not answer: refused"]
    look = replace(WELL, servers={"redis": "", "postgres": "refused"}, processes=())
    assert len(list(problems(look))) == 6


def test_dead_letters_and_deployments_that_are_not_ready_are_warnings() -> None:
    failed, gone = replace(MODEL, deployment="e", state="failed", reason="no answer"), replace(MODEL, state="stopped")
    paused = replace(MODEL, deployment="f", state="paused")
    look = replace(WELL, dead=2, deployments=(MODEL, failed, gone, paused))
    assert list(problems(look)) == []
    assert list(warnings(look)) == [
        "2 dead letters: `headrace dlq list` names the reasons",
        "the deployment e is failed: no answer",
    ]
    assert count_wanted(look.deployments) == (1, 2)


def test_what_a_process_leaves_alone_is_what_no_staying_process_serves() -> None:
    known = (DOOR, WORKERS, RULES)
    assert left_alone(known, RULES.consumer) == []
    assert left_alone(known, DOOR.consumer) == ["ingress"]
    assert left_alone(known, WORKERS.consumer) == [room for room in WORKERS.rooms if room != "rules"]
    assert "rules" in left_alone((WORKERS, replace(RULES, state="draining")), WORKERS.consumer)
    assert left_alone(known, "nobody") == []
