"""streams.yaml: what we ship is sound, what is wrong is told all at once with lines; unsafe servers are refused."""

from __future__ import annotations

import importlib
from dataclasses import replace

import pytest
from pydantic import ValidationError

from runtime.app import RunSettings
from runtime.topology import ServerFacts, Topology, TopologyError, load, packaged, unsafe
from schemas.envelope import message_classes
from state.inflight import LOST_MS

SHIPPED = packaged()
SAFE = ServerFacts(version=(7, 2), policy="noeviction", aof=True)


def _complaints(text: str) -> list[str]:
    with pytest.raises(TopologyError) as caught:
        load(text, "s.yaml")
    return str(caught.value).splitlines()


def _changed(old: str, new: str) -> str:
    assert old in SHIPPED
    return SHIPPED.replace(old, new, 1)


def _line(text: str, part: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if part in line)


def test_shipped_topology_is_sound() -> None:
    topology = load()
    assert topology.families == ["authorization", "rules", "persons"]
    assert topology.spec("cleared", "router").single and not topology.spec("requests", "rules").single


def test_every_message_may_be_said_by_somebody() -> None:
    topology = load()
    said = {kind for stream in topology.streams.values() for kinds in stream.publishers.values() for kind in kinds}
    assert set(message_classes()) <= said


@pytest.mark.parametrize("group", [g for s in load().streams.values() for g in s.groups])
def test_group_is_found_by_its_name_alone(group: str) -> None:
    topology = load()
    spec = topology.spec(topology.group_stream(group), group)
    assert spec.group == group and spec.batch <= spec.concurrency and spec.max_starts >= 1


@pytest.mark.parametrize("room", sorted({g.room for s in load().streams.values() for g in s.groups.values()}))
def test_rooms_named_there_exist(room: str) -> None:
    if room in ("workers.audit", "workers.provisioner"):
        pytest.importorskip(room)
    assert importlib.import_module(room)


def test_only_declared_publishers_may_speak() -> None:
    topology = load()
    assert topology.may("requests", "ingress", "RequestAccepted")
    assert not topology.may("requests", "router", "RequestAccepted")
    assert not topology.may("facts", "ingress", "RequestCompleted")
    assert not topology.may("commands", "provisioner", "DeployModel")


def test_keys_are_made_for_every_partition_and_once_for_plain_streams() -> None:
    keys = [key for _, key, _ in load().keys(4)]
    assert len(keys) == len(set(keys)) == 3 * 4 + 2
    assert "commands" in keys and "control" in keys and sum(key.endswith(":facts") for key in keys) == 4


def test_one_wrong_value_is_told_with_its_line() -> None:
    text = _changed("batch: 64", "batch: 0")
    (complaint,) = _complaints(text)
    assert complaint.startswith(f"s.yaml:{_line(text, 'batch: 0')}: streams.requests.groups.authorization.batch: ")


def test_all_mistakes_are_told_at_once() -> None:
    text = _changed("batch: 64", "batch: none")
    text = text.replace("version: 1", "version: 2", 1).replace("idle_limit: 15000", "idle_limit: 7", 1)
    text = text.replace("  dlq:\n", "  dlq:\n    colour: red\n", 1)
    told = _complaints(text)
    assert len(told) == 4
    for part in ("batch: none", "version: 2", "idle_limit: 7", "colour: red"):
        assert any(complaint.startswith(f"s.yaml:{_line(text, part)}: ") for complaint in told), part


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("{ingress: [RequestAccepted]}", "{ingress: [RequestAcepted]}", "no message is called 'RequestAcepted'"),
        ("families: [authorization, rules, persons]", "families: [authorization, ruels]", "'ruels' is no group"),
        ("families: [authorization, rules, persons]", "families: [rules, persons]", "'authorization' is missing"),
        ("  control:\n", "  controls:\n", "'control' is missing"),
        ("    ttl: 300000 ", "    # ", "`ttl` (milliseconds) goes with `retention: ttl`"),
        ("retention: acknowledged   ", "retention: forever   ", "retention"),
        ("    description: How every run ended", "    descripton: How", "descripton"),
    ],
)
def test_mistake_is_named(old: str, new: str, word: str) -> None:
    assert any(word in complaint for complaint in _complaints(_changed(old, new)))


@pytest.mark.parametrize("text", ["a: [", "", "- a list", "\tversion: 1", "just words"])
def test_what_is_no_topology_is_refused_as_such(text: str) -> None:
    assert _complaints(text)[0].startswith("s.yaml:")


def test_topology_is_not_changed_by_accident() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load().version = 1
    assert isinstance(load(), Topology)


def test_safe_server_is_taken() -> None:
    assert unsafe(SAFE) == []
    assert unsafe(replace(SAFE, aof=False), allow_no_aof=True) == []


@pytest.mark.parametrize(
    "policy",
    ["allkeys-lru", "allkeys-lfu", "allkeys-random", "volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl"],
)
def test_every_evicting_policy_is_refused_with_its_remedy(policy: str) -> None:
    (problem,) = unsafe(replace(SAFE, policy=policy))
    assert policy in problem and "CONFIG SET maxmemory-policy noeviction" in problem


def test_server_that_tells_nothing_is_refused() -> None:
    assert len(unsafe(ServerFacts(version=(6, 2), policy="unknown", aof=False))) == 3


def test_replica_is_refused() -> None:
    (problem,) = unsafe(replace(SAFE, replica=True))
    assert "name the primary" in problem


def test_server_without_aof_is_refused_with_both_remedies() -> None:
    (problem,) = unsafe(replace(SAFE, aof=False))
    assert "CONFIG SET appendonly yes" in problem and "redis.allow_no_aof" in problem


def test_a_router_counts_as_lost_when_others_may_take_over_its_runs() -> None:
    assert load().spec("cleared", "router").idle_ms == LOST_MS


def test_idle_limits_of_the_settings_replace_those_of_the_file() -> None:
    changed = load().with_idle_limits({"router": 3000})
    assert changed.spec("cleared", "router").idle_ms == 3000
    assert changed.spec("requests", "rules") == load().spec("requests", "rules")
    with pytest.raises(TopologyError, match="no group routers; groups: archive, audit, authorization"):
        load().with_idle_limits({"routers": 3000})


def test_settings_with_an_idle_limit_of_an_unknown_group_are_refused() -> None:
    with pytest.raises(ValidationError, match="no group routers; groups: archive"):
        RunSettings(idle_limits={"routers": 3000})
    assert RunSettings(idle_limits={"router": 3000}).idle_limits == {"router": 3000}
