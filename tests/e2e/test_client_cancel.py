"""Whoever closes the connection stops the engine, in every phase; seen in the engine's own books."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from openai import AsyncOpenAI, OpenAI

from tests.e2e.house import Engine, House, until
from tests.e2e.scripted import HANG, ScriptedEngine


def prompt(name: str, marks: str = "@@slow") -> Any:
    return [{"role": "user", "content": f"count @@id={name} {marks}"}]


def attempt(mock: Engine, name: str) -> dict[str, Any]:
    found = mock.ledger(name).get(name) or [{}]
    assert len(found) == 1
    return dict(found[0])


def test_closing_the_stream_stops_the_engine(client: OpenAI, house: House, mock: Engine) -> None:
    before = mock.stats()["aborted"]
    stream = client.chat.completions.create(model="mock", messages=prompt("leave"), max_tokens=500, stream=True)
    pieces = iter(stream)
    said = [next(pieces).choices[0].delta.content for _ in range(3)]
    run = stream.response.headers["x-request-id"]
    stream.close()
    assert len(said) == 3
    until(lambda: attempt(mock, "leave").get("state") == "aborted")
    assert mock.stats()["aborted"] == before + 1
    row = house.record(run)
    assert (row["outcome"], row["status"], row["code"]) == ("cancelled", 499, "cancelled")
    assert row["estimated"] and 0 < row["completion_tokens"] <= attempt(mock, "leave")["tokens"]


def test_leaving_a_unary_request_stops_the_engine(house: House, mock: Engine) -> None:
    body = {"model": "mock", "messages": prompt("whole"), "max_tokens": 500}
    connection = house.post(body)
    until(lambda: attempt(mock, "whole").get("state") == "running")
    connection.close()
    until(lambda: attempt(mock, "whole")["state"] == "aborted")


@pytest.mark.parametrize("stream", [True, False])
def test_leaving_before_the_first_byte_stops_the_engine(house: House, lab: ScriptedEngine, stream: bool) -> None:
    lab.play([HANG])
    connection = house.post({"model": "lab/scripted", "stream": stream, "messages": prompt("", "")})
    until(lambda: lab.requests)
    connection.close()
    assert lab.last.left.wait(30)


async def test_cancelled_task_of_the_async_client_stops_the_engine(house: House, lab: ScriptedEngine) -> None:
    lab.play([HANG])
    async with AsyncOpenAI(base_url=house.base_url + "/v1", api_key=house.key, max_retries=0) as client:
        asking = asyncio.create_task(
            client.chat.completions.create(model="lab/scripted", messages=prompt("", ""), stream=True)
        )
        await asyncio.to_thread(until, lambda: lab.requests)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert await asyncio.to_thread(lab.last.left.wait, 10)


def test_operator_ends_a_run_and_its_client_hears_of_it(house: House, lab: ScriptedEngine) -> None:
    lab.play([HANG])
    connection = house.post({"model": "lab/scripted", "messages": prompt("", "")})
    until(lambda: lab.requests)
    run = until(lambda: running(house, lab))
    status, said = house.request(f"/admin/v1/trace/{run}/cancel", {})
    assert (status, said["cancelled"]) == (200, True)
    response = connection.getresponse()
    assert response.status == 499 and b'"cancelled"' in response.read()
    assert lab.last.left.wait(30)
    connection.close()
    assert house.record(run)["outcome"] == "cancelled"


def running(house: House, lab: ScriptedEngine) -> str:
    """The only run that lives."""
    import redis

    with redis.Redis.from_url(house.valkey_url) as server:
        live = [name for key in server.scan_iter("*:live") for name in server.zrange(key, 0, -1)]
    return live[0].decode() if len(live) == 1 else ""


@pytest.mark.parametrize("wish", ["cancel", "grace:0.2"])
def test_request_may_ask_to_be_ended_sooner_than_its_key_says(house: House, lab: ScriptedEngine, wish: str) -> None:
    lab.play([HANG])
    token = house.new_key(on_disconnect="grace:600")["token"]
    body = {"model": "lab/scripted", "stream": True, "messages": prompt("", "")}
    connection = house.post(body, key=token, headers={"x-headrace-on-disconnect": wish})
    until(lambda: lab.requests)
    connection.close()
    assert lab.last.left.wait(10)


def test_request_that_asks_to_go_on_longer_than_its_key_says_is_refused_at_once(
    house: House, lab: ScriptedEngine
) -> None:
    token = house.new_key(on_disconnect="grace:5")["token"]
    body = {"model": "lab/scripted", "messages": prompt("", "")}
    connection = house.post(body, key=token, headers={"x-headrace-on-disconnect": "finish"})
    response = connection.getresponse()
    error = json.loads(response.read())["error"]
    connection.close()
    assert (response.status, error["type"]) == (400, "invalid_request_error")
    assert error["param"] == "x-headrace-on-disconnect"
    assert "grace:5" in error["message"] and not lab.requests
