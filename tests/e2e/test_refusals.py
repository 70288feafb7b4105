"""What is refused reaches no engine; what is redacted reaches it redacted; a revoked key is dead everywhere at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI

from base.ports import free_port
from tests.e2e.house import House, another_process, until
from tests.e2e.scripted import ScriptedEngine

GUARDED = "guarded"
CARD = "4111 1111 1111 1111"
MAIL = "jane.doe@example.org"


def user(content: Any) -> list[Any]:
    return [{"role": "user", "content": content}]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "messages",
    [
        user(f"pay with {CARD}"),
        user([{"type": "text", "text": "hello"}, {"type": "text", "text": f"my card: {CARD}"}]),
        [{"role": "system", "content": f"the card is {CARD}"}, {"role": "user", "content": "hello"}],
        [{"role": "tool", "tool_call_id": "c", "content": json.dumps({"card": CARD})}, *user("go on")],
        user("what about Project Nightfall?"),
    ],
    ids=["user", "parts", "system", "tool", "banned word"],
)
def test_blocked_request_is_a_policy_violation_and_no_engine_hears_of_it(
    client: OpenAI, house: House, lab: ScriptedEngine, messages: list[Any], stream: bool
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=GUARDED, messages=messages, stream=stream)
    error = caught.value
    assert (error.code, error.type) == ("content_policy_violation", "invalid_request_error")
    assert CARD not in error.message
    row = house.record(str(error.request_id))
    assert (row["outcome"], row["status"], row["endpoint"], row["attempts"]) == ("refused", 400, "", [])
    assert not lab.requests


def test_redacted_text_reaches_the_engine_as_its_placeholder(client: OpenAI, lab: ScriptedEngine) -> None:
    client.chat.completions.create(model=GUARDED, messages=user(f"\U0001f30a write to {MAIL}, é, and to {MAIL}."))
    sent = lab.last.json["messages"][0]["content"]
    assert MAIL not in lab.last.raw.decode()
    assert sent.startswith("\U0001f30a write to ") and ", é, and to " in sent and sent.endswith(".")


def test_same_text_to_a_model_without_that_policy_is_left_alone(client: OpenAI, lab: ScriptedEngine) -> None:
    client.chat.completions.create(model="lab/scripted", messages=user(f"write to {MAIL}"))
    assert lab.last.json["messages"] == user(f"write to {MAIL}")


@pytest.mark.parametrize("escaped", [False, True])
def test_duplicate_keys_mean_the_same_to_guards_and_engine(house: House, lab: ScriptedEngine, escaped: bool) -> None:
    name = r"c\u006fntent" if escaped else "content"
    begin, end = '{"model": "guarded", "messages": [{"role": "user", ', "}]}"
    harmless_last = f'{begin} "content": "{CARD}", "{name}": "hello" {end}'
    harmful_last = f'{begin} "content": "hello", "{name}": "{CARD}" {end}'
    assert raw(house, harmless_last)[0] == 200
    assert lab.last.json["messages"] == user("hello") and CARD not in lab.last.raw.decode()
    status, said = raw(house, harmful_last)
    assert (status, said["error"]["code"]) == (400, "content_policy_violation")
    assert len(lab.requests) == 1


def test_duplicate_model_means_the_same_to_key_guard_and_engine(house: House, lab: ScriptedEngine) -> None:
    text = json.dumps(user(f"pay with {CARD}"))
    status, said = raw(house, f'{{"model": "lab/scripted", "messages": {text}, "model": "guarded"}}')
    assert (status, said["error"]["code"]) == (400, "content_policy_violation")
    assert not lab.requests


def test_stranger_learns_nothing_of_the_guards(house: House, lab: ScriptedEngine) -> None:
    key = house.new_key(models=["mock"])["token"]
    assert raw(house, json.dumps({"model": GUARDED, "messages": user(CARD)}), key)[0] == 404
    assert raw(house, json.dumps({"model": GUARDED, "messages": user(CARD)}), key[:-1])[0] == 401
    assert not lab.requests


@pytest.fixture(scope="module")
def second_door(house: House) -> Iterator[str]:
    """The base URL of another ingress process over the same servers."""
    port = free_port()
    with another_process(house, ["ingress"], "--port", str(port)):
        yield f"http://127.0.0.1:{port}"


def test_run_is_served_and_read_again_through_any_door(house: House, second_door: str, lab: ScriptedEngine) -> None:
    connection = house.post({"model": "lab/scripted", "messages": user("hi")}, base_url=second_door)
    response = connection.getresponse()
    said, run = json.loads(response.read()), response.headers["x-request-id"]
    connection.close()
    assert said["choices"][0]["message"]["content"] == "unplanned"
    status, again = house.request(f"/v1/streams/{run}?after=9")
    assert (status, again) == (200, None)


def test_revoked_key_is_dead_within_a_second_at_every_door(house: House, second_door: str, lab: ScriptedEngine) -> None:
    made = house.new_key()
    doors = [house.base_url, second_door]
    assert all(statuses(house, door, made["token"]) == {200} for door in doors)
    seen = len(lab.requests)
    status, said = house.request(f"/admin/v1/keys/{made['key_id']}", method="DELETE")
    assert (status, said["state"]) == (200, "revoked")
    until(lambda: all(statuses(house, door, made["token"]) == {401} for door in doors), seconds=1.0, pause=0.01)
    dead = len(lab.requests)
    assert all(statuses(house, door, made["token"]) == {401} for door in doors)
    assert seen <= dead == len(lab.requests)


def test_key_that_was_rotated_without_overlap_is_dead_and_the_new_one_lives(
    house: House, second_door: str, lab: ScriptedEngine
) -> None:
    made = house.new_key()
    assert statuses(house, second_door, made["token"]) == {200}
    status, fresh = house.request(f"/admin/v1/keys/{made['key_id']}/rotate", {"overlap_s": 0})
    assert status == 200 and fresh["key_id"] == made["key_id"]
    doors = [house.base_url, second_door]
    until(lambda: all(statuses(house, door, made["token"]) == {401} for door in doors), seconds=1.0, pause=0.01)
    assert all(statuses(house, door, fresh["token"]) == {200} for door in doors)


def statuses(house: House, door: str, token: str) -> set[int]:
    """What a door says to this key: to a listing and to a chat."""
    connection = house.post({"model": "lab/scripted", "messages": user("hi")}, key=token, base_url=door)
    response = connection.getresponse()
    response.read()
    connection.request("GET", "/v1/models", headers={"authorization": f"Bearer {token}"})
    listed = connection.getresponse()
    listed.read()
    connection.close()
    return {response.status, listed.status}


def raw(house: House, text: str, key: str = "") -> tuple[int, Any]:
    """Status and JSON of a chat request whose body is this text."""
    connection = house.post(text.encode(), key=key)
    response = connection.getresponse()
    said = json.loads(response.read())
    connection.close()
    return response.status, said
