"""How many processes serve what: layouts, groups and their rooms, what scaling changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from console.fleet import RoomProcess, ScaleError, make_process, serves, too_many
from console.stack import LAYOUTS, LISTENING, ROOMS, LayoutError, check_layout, choose_rooms, parse_layout, room_of
from runtime.topology import load

MERGED = LAYOUTS["merged"]


def fleet(*layout: tuple[str, ...]) -> list[RoomProcess]:
    made: list[RoomProcess] = []
    for rooms in layout:
        made.append(make_process(rooms, Path("logs"), made))
    return made


def test_every_group_of_the_topology_is_served_by_a_room_of_its_package() -> None:
    for stream in load().streams.values():
        for name, group in stream.groups.items():
            room = room_of(name)
            assert room in ROOMS
            assert group.room in (f"workers.{room}", "workers.guardrails"), name


@pytest.mark.parametrize("name", ["nonsense", "", "guardrails"])
def test_what_is_no_group_is_refused_with_the_groups(name: str) -> None:
    with pytest.raises(LayoutError, match="groups: authorization, rules, persons, router, audit, provisioner, ledger"):
        room_of(name)


def test_rooms_are_chosen_by_name_once_and_in_order() -> None:
    assert choose_rooms(["router", "guardrails", "rules"]) == ("rules", "persons", "router")
    assert choose_rooms(["all"]) == ROOMS
    with pytest.raises(LayoutError, match="unknown room: auth, guard"):
        choose_rooms(["guard", "auth"])


def test_a_worker_room_may_stand_in_several_processes() -> None:
    layout = parse_layout("ingress|authorization,rules,persons,router,audit,provisioner,console|rules|rules|guardrails")
    assert layout[2:] == (("rules",), ("rules",), ("rules", "persons"))


@pytest.mark.parametrize("room", LISTENING)
def test_a_room_that_listens_stands_once(room: str) -> None:
    with pytest.raises(LayoutError, match=f"listens on one port and stands once: {room}"):
        check_layout([*MERGED, (room,)])


def test_a_room_stands_once_in_a_process() -> None:
    with pytest.raises(LayoutError, match="named twice in one process: persons"):
        check_layout([*MERGED, ("persons", "guardrails")])


def test_processes_have_names_of_their_own_and_free_ones_are_used_again() -> None:
    made = fleet(*MERGED, ("rules",), ("rules",), ("rules", "router"))
    assert [process.name for process in made] == [
        "ingress",
        "workers-authorization",
        "rules",
        "rules-2",
        "workers-rules",
    ]
    assert (
        make_process(("rules",), Path("logs"), [process for process in made if process.name != "rules"]).name == "rules"
    )


def test_fixed_ports_belong_to_the_first_process_that_begins_with_a_room() -> None:
    made = fleet(*MERGED, ("rules",), ("rules",), ("rules", "router"))
    assert [process.beside for process in made] == [False, False, False, True, True]


def test_the_newest_that_serve_nothing_else_have_to_go() -> None:
    made = fleet(*MERGED, ("rules",), ("rules",), ("rules",))
    assert [process.name for process in too_many(made, "rules", 2)] == ["rules-2", "rules-3"]
    assert too_many(made, "rules", 4) == too_many(made, "rules", 9) == too_many(made, "audit", 1) == []


def test_those_that_go_already_do_not_count() -> None:
    made = fleet(*MERGED, ("rules",), ("rules",))
    made[-1].leaving = True
    assert [process.name for process in serves(made, "rules")] == ["workers-authorization", "rules"]
    assert too_many(made, "rules", 2) == []


def test_a_room_does_not_go_below_the_processes_it_shares() -> None:
    made = fleet(("ingress",), ("rules", "router"), ("rules", "audit"), ("rules",))
    assert [process.name for process in too_many(made, "rules", 2)] == ["rules"]
    with pytest.raises(ScaleError, match="cannot go below 2"):
        too_many(made, "rules", 1)


@pytest.mark.parametrize(
    ("room", "count", "said"),
    [("rules", 0, "1 is the least"), ("rules", 65, "64 processes on one machine"), ("ingress", 2, "start ingress")],
)
def test_impossible_numbers_say_what_is_possible(room: str, count: int, said: str) -> None:
    with pytest.raises(ScaleError, match=said):
        too_many(fleet(*MERGED), room, count)


def test_a_process_shows_where_it_stands() -> None:
    (process,) = fleet(("rules",))
    assert process.shape() == {"rooms": ["rules"], "pid": 0, "health_port": 0, "consumer": "", "state": "starting"}
    process.health, process.consumer = {"rules": 7}, "rules-1-abc"
    assert (process.shape()["state"], process.shape()["health_port"]) == ("ready", 7)
    process.leaving = True
    assert process.shape()["state"] == "draining"
