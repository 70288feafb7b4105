"""Ctrl-C and a second `up`: open answers are finished first, and keys, runs and the record are still there."""

from __future__ import annotations

import http.client
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import short_folder
from tests.e2e.house import House, headrace, read_event, until
from tests.e2e.scripted import DONE, ScriptedEngine, chunked, event, scripted

BODY: Any = {"model": "lab", "messages": [{"role": "user", "content": "say it"}], "stream": True}


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with short_folder() as made:
        yield made / "data"


def test_stop_finishes_what_is_open_and_the_next_start_knows_everything(folder: Path) -> None:
    with scripted() as engine:
        with headrace(folder, engines={"lab": engine.url}) as house:
            key, revoked = house.key, house.new_key()
            house.request(f"/admin/v1/keys/{revoked['key_id']}", method="DELETE")
            run, events = stopped_in_the_middle(house, engine)
        with headrace(folder, engines={"lab": engine.url}) as house:
            assert house.key == key and house.request("/v1/models")[0] == 200
            assert house.request("/v1/models", key=revoked["token"])[0] == 401
            row = house.record(run)
            assert (row["outcome"], row["events"]) == ("completed", len(events))
            assert resumed(house, run) == events
            assert len(engine.requests) == 1


def stopped_in_the_middle(house: House, engine: ScriptedEngine) -> tuple[str, list[bytes]]:
    """A run during which Ctrl-C is pressed: its id and its events, the last of them said after that."""
    gate = threading.Event()
    engine.play(chunked(event("a "), gate, event("b "), event({}, "stop"), DONE))
    connection = house.post(BODY)
    response = connection.getresponse()
    events = [read_event(response)]
    house.process.send_signal(signal.SIGINT)
    until(lambda: not (house.folder / "connection.json").exists())
    assert house.process.poll() is None
    gate.set()
    events += list(iter(lambda: read_event(response), b""))
    connection.close()
    assert events[-1] == DONE and house.process.wait(30) == 0
    return str(response.headers["x-request-id"]), events


def resumed(house: House, run: str) -> list[bytes]:
    """The events of a run as the house reads them again, without their numbers."""
    connection = http.client.HTTPConnection(house.base_url.partition("://")[2], timeout=30)
    connection.request("GET", f"/v1/streams/{run}?after=0", headers={"authorization": f"Bearer {house.key}"})
    response = connection.getresponse()
    blocks = list(iter(lambda: read_event(response), b""))
    connection.close()
    return [block.partition(b"\n")[2] for block in blocks]
