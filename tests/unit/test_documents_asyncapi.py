"""/asyncapi.json says what streams.yaml says, is AsyncAPI 3.0, and its schemas fit what really lies on the streams."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import yaml
from jsonschema_rs import Draft7Validator, Registry

from runtime.asyncapi import document
from runtime.topology import load
from tests.checks_support import ROOT

TOPOLOGY: dict[str, Any] = yaml.safe_load((ROOT / "streams.yaml").read_text())["streams"]
SCHEMA = json.loads((ROOT / "tests" / "vendor" / "asyncapi-3.0.0.json").read_text())
DOCUMENT: dict[str, Any] = json.loads(document(load()))
GOLDEN = sorted(ROOT.glob("tests/golden/[A-Z]*_v*.json"))


def test_it_is_asyncapi_3() -> None:
    assert [error.message for error in Draft7Validator(SCHEMA).iter_errors(DOCUMENT)] == []


def test_the_schema_finds_what_is_not_asyncapi() -> None:
    broken = {**DOCUMENT, "operations": {"x": {"action": "shout", "channel": {"$ref": "#/channels/facts"}}}}
    assert list(Draft7Validator(SCHEMA).iter_errors(broken))


def test_every_stream_is_a_channel_with_its_key_and_messages() -> None:
    assert set(DOCUMENT["channels"]) == set(TOPOLOGY)
    for name, stream in TOPOLOGY.items():
        channel = DOCUMENT["channels"][name]
        assert channel["address"] == stream["key"]
        assert set(channel["messages"]) == {kind for said in stream["publishers"].values() for kind in said}
        for parameter in channel.get("parameters", ()):
            assert "{" + parameter + "}" in stream["key"]


@pytest.mark.parametrize("name", TOPOLOGY)
def test_every_publisher_sends_and_every_group_receives(name: str) -> None:
    stream, operations = TOPOLOGY[name], DOCUMENT["operations"]
    for publisher, kinds in stream["publishers"].items():
        send = operations[f"{publisher}.send.{name}"]
        assert send["action"] == "send"
        assert [part["$ref"].rpartition("/")[2] for part in send["messages"]] == sorted(kinds)
    for group, spec in (stream.get("groups") or {}).items():
        receive = operations[f"{group}.receive.{name}"]
        assert (receive["action"], receive["bindings"]["redis"]["groupName"]) == ("receive", group)
        assert receive["x-room"] == spec["room"]
    known = len(stream["publishers"]) + len(stream.get("groups") or {})
    assert sum(item["channel"]["$ref"] == f"#/channels/{name}" for item in operations.values()) == known


def test_nothing_is_referred_to_that_is_not_there() -> None:
    def references(value: Any) -> list[str]:
        if isinstance(value, dict):
            own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
            return own + [found for inner in value.values() for found in references(inner)]
        return [found for inner in value for found in references(inner)] if isinstance(value, list) else []

    for reference in references(DOCUMENT):
        found: Any = DOCUMENT
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_what_lies_on_a_stream_fits_the_message(path: Any) -> None:
    golden = json.loads(path.read_text())
    kind = path.stem.partition("_v")[0]
    registry = Registry([("json-schema:///doc", DOCUMENT)])
    schema = {"$ref": f"json-schema:///doc#/components/messages/{kind}/payload"}
    envelope = json.loads(golden["e"])
    assert list(Draft7Validator(schema, registry=registry).iter_errors(envelope)) == []
    assert list(Draft7Validator(schema, registry=registry).iter_errors({**envelope, "type": "Other"}))


def test_the_same_topology_gives_the_same_bytes() -> None:
    assert document(load()) == document(load())


def test_making_it_loads_no_faststream() -> None:
    program = "import sys; import runtime.asyncapi, ingress.app; print([m for m in sys.modules if 'faststream' in m])"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
