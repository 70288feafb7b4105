"""GET /v1/streams/{run}: the same bytes again, from any event, while the run lives and after it has ended."""

from __future__ import annotations

import http.client
import json
import re
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from base.ports import free_port
from tests.e2e.house import House, another_process, read_event, until
from tests.e2e.scripted import DONE, ScriptedEngine, chunked, event, failure

LAB = "lab/scripted"
TEXTS = ["a ", "b\u2028 ", "c ", "d ", "e "]


def body(stream: bool = True) -> dict[str, Any]:
    return {"model": LAB, "messages": [{"role": "user", "content": "say it"}], "stream": stream}


@contextmanager
def reading(
    house: House, run: str, after: int | None, key: str = "", **headers: str
) -> Iterator[http.client.HTTPResponse]:
    """The answer to GET /v1/streams/{run} as it comes."""
    address = urllib.parse.urlsplit(house.base_url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=30)
    question = "" if after is None else f"?after={after}"
    lines = {"authorization": f"Bearer {key or house.key}", **headers}
    connection.request("GET", f"/v1/streams/{run}{question}", headers=lines)
    try:
        yield connection.getresponse()
    finally:
        connection.close()


def read(house: House, run: str, after: int | None, key: str = "", **headers: str) -> tuple[int, bytes]:
    """Status and body of a whole answer."""
    with reading(house, run, after, key, **headers) as response:
        return response.status, response.read()


def numbered(house: House, run: str, after: int | None, **headers: str) -> list[tuple[int, bytes]]:
    """(id, event as the first client got it) of a whole answer."""
    found = []
    status, said = read(house, run, after, **headers)
    assert status == 200, said
    for block in said.split(b"\n\n"):
        if match := re.fullmatch(rb"(?:: .*\n)*id: (\d+)\n(data: .*)", block.strip(b"\n"), re.DOTALL):
            found.append((int(match[1]), match[2] + b"\n\n"))
    return found


def streamed(house: House, lab: ScriptedEngine) -> tuple[str, list[bytes]]:
    """A run that has ended: its id and its events as its client got them."""
    lab.play(chunked(*[event(text) for text in TEXTS], event({}, "stop"), DONE))
    connection = house.post(body())
    response = connection.getresponse()
    events = list(iter(lambda: read_event(response), b""))
    connection.close()
    return response.headers["x-request-id"], events


def test_ended_run_is_read_again_byte_for_byte_from_any_event(house: House, lab: ScriptedEngine) -> None:
    run, events = streamed(house, lab)
    assert len(events) == len(TEXTS) + 2
    expected = list(enumerate(events, start=1))
    for after in range(len(events) + 2):
        assert numbered(house, run, after) == expected[after:]
    assert numbered(house, run, None) == expected
    assert numbered(house, run, None, **{"last-event-id": "3"}) == expected[3:]


def test_run_is_read_by_a_second_client_while_it_lives(house: House, lab: ScriptedEngine) -> None:
    gate = threading.Event()
    lab.play(chunked(event("a "), event("b "), gate, event("c "), event({}, "stop"), DONE))
    connection = house.post(body())
    response = connection.getresponse()
    first = [read_event(response), read_event(response)]
    run = response.headers["x-request-id"]
    with reading(house, run, 1) as second:
        assert (second.status, second.headers["x-accel-buffering"]) == (200, "no")
        assert read_event(second) == b"id: 2\n" + first[1]
        gate.set()
        first += list(iter(lambda: read_event(response), b""))
        connection.close()
        rest = [b"id: %d\n" % number + one for number, one in enumerate(first[2:], start=3)]
        assert list(iter(lambda: read_event(second), b"")) == rest


def test_run_goes_on_for_its_second_reader_when_the_first_leaves(house: House, lab: ScriptedEngine) -> None:
    gate = threading.Event()
    lab.play(chunked(event("a "), gate, event("b "), event({}, "stop"), DONE))
    connection = house.post(body())
    response = connection.getresponse()
    first = read_event(response)
    run = response.headers["x-request-id"]
    with reading(house, run, 0) as second:
        assert read_event(second) == b"id: 1\n" + first
        response.close()
        connection.close()
        until(lambda: watchers(house, run) == 1)
        gate.set()
        rest = list(iter(lambda: read_event(second), b""))
    assert rest[-1] == b"id: 4\n" + DONE and len(rest) == 3
    assert house.record(run)["outcome"] == "completed"


def watchers(house: House, run: str) -> int:
    """How many watch the run."""
    import redis

    with redis.Redis.from_url(house.valkey_url) as server:
        key = next(server.scan_iter(f"*:run:{run}"))
        return len((server.hget(key, "watchers") or b"").split())


def test_unary_answer_and_an_error_are_one_event_each(house: House, lab: ScriptedEngine) -> None:
    for reply in (None, failure(400)):
        if reply:
            lab.play(reply)
        connection = house.post(body(stream=False))
        response = connection.getresponse()
        said = response.read()
        connection.close()
        assert numbered(house, response.headers["x-request-id"], 0) == [(1, b"data: " + said + b"\n\n")]


def test_run_of_another_tenant_is_not_there(house: House, lab: ScriptedEngine) -> None:
    run, _ = streamed(house, lab)
    for tenant in ("other", "default2"):
        status, said = read(house, run, 0, key=house.new_key(tenant=tenant)["token"])
        assert (status, json.loads(said)["error"]["code"]) == (404, "not_found")


@pytest.mark.parametrize("run", ["01a1fcbe-6437-7000-b788-b36db4153125", "nonsense"])
def test_unknown_run_is_a_404_and_without_a_key_a_401(house: House, run: str) -> None:
    status, said = read(house, run, 0)
    assert (status, json.loads(said)["error"]["code"]) == (404, "not_found")
    assert read(house, run, 0, key="nobody")[0] == 401


def test_wrong_place_to_begin_is_a_400(house: House, lab: ScriptedEngine) -> None:
    run, _ = streamed(house, lab)
    status, said = read(house, run, -1)
    assert (status, json.loads(said)["error"]["param"]) == (400, "after")


def test_client_of_a_killed_ingress_reads_the_rest_at_another_and_again_from_every_event(
    house: House, lab: ScriptedEngine
) -> None:
    """Real processes: kill -9 in mid-stream, the run is read on live at the other door, then from each cut."""
    gate = threading.Event()
    lab.play(chunked(*[event(text) for text in TEXTS], gate, event("f "), event({}, "stop"), DONE))
    port = free_port()
    with another_process(house, ["ingress"], "--port", str(port)) as joined:
        connection = house.post(body(), base_url=f"http://127.0.0.1:{port}")
        response = connection.getresponse()
        run, had = response.headers["x-headrace-run"], [read_event(response) for _ in TEXTS]
        joined.process.kill()
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            response.read()
        connection.close()
    with reading(house, run, len(had)) as rest:
        gate.set()
        had += [one.partition(b"\n")[2] for one in iter(lambda: read_event(rest), b"")]
    assert had[-1] == DONE and len(had) == len(TEXTS) + 3
    for after in range(len(had)):
        assert numbered(house, run, after) == list(enumerate(had, start=1))[after:]
    assert house.record(run)["outcome"] == "completed"
