"""Both ports keep what their documents say, whatever they are sent. The house is this file's own: calls delete things.

`scripts/fuzz` runs the same for longer."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import short_folder
from tests.e2e.fuzz import fuzz, knowing
from tests.e2e.house import Engine, House, headrace, scripted_engine, until

MODEL = "smollm2"  # the name in the documents' examples
SETTINGS = "server: {body_limit: 2097152}\nrouter: {idle_timeout_s: 2, retry_floor: 1000}\n"


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with scripted_engine() as made:
        made.set(tokens=3)
        yield made


@pytest.fixture(scope="module")
def fuzzed(engine: Engine) -> Iterator[House]:
    """A house that nobody else uses."""
    with ExitStack() as stack:
        folder = stack.enter_context(short_folder())
        yield stack.enter_context(headrace(folder / "data", settings=SETTINGS, engines={MODEL: engine.url}))


def document(url: str, key: str = "") -> dict[str, Any]:
    call = urllib.request.Request(url)
    if key:
        call.add_header("authorization", f"Bearer {key}")
    with urllib.request.urlopen(call, timeout=30) as reply:
        found: dict[str, Any] = json.loads(reply.read())
        return found


def asked(house: House) -> str:
    """The run of a request that was answered and is on the record."""
    connection = house.post({"model": MODEL, "messages": [{"role": "user", "content": "hello"}]})
    answer = connection.getresponse()
    assert answer.status == 200 and answer.read()
    connection.close()
    run = str(answer.headers["x-headrace-run"])
    house.record(run)
    return run


@pytest.mark.slow
def test_the_public_port_keeps_its_document(fuzzed: House, tmp_path: Path) -> None:
    found = document(fuzzed.base_url + "/openapi.json")
    fuzz(found, fuzzed.base_url, fuzzed.key, tmp_path / "strange")
    known = knowing(found, {"model": [MODEL], "run": [asked(fuzzed)], "code": ["not_found", "no_engine.md"]})
    fuzz(known, fuzzed.base_url, fuzzed.key, tmp_path / "known", "--mode", "positive")
    assert asked(fuzzed)


@pytest.mark.slow
def test_the_admin_port_keeps_its_document(fuzzed: House, engine: Engine, tmp_path: Path) -> None:
    url, key = fuzzed.connection["admin_url"], fuzzed.connection["admin_key"]
    found = document(url + "/admin/v1/openapi.json", key)
    spare = {"name": "spare", "deployment": "spare", "url": engine.url, "private": True, "upstream_model": "mock"}
    assert fuzzed.request("/admin/v1/models", spare)[0] == 202
    until(lambda: fuzzed.request("/admin/v1/deployments/spare")[0] == 200)
    harmless: dict[str, list[Any]] = {
        "url": [engine.url],
        "command": [[]],
    }  # nothing is called or started beside the engine that is there
    things: dict[str, list[Any]] = {
        "run": [asked(fuzzed)],
        "deployment": ["spare"],
        "name": ["spare"],
        "model": [MODEL],
    }
    known = {**harmless, **things, "key_id": [fuzzed.new_key()["key_id"]]}
    fuzz(knowing(found, harmless), url, key, tmp_path / "strange")
    fuzz(knowing(found, known), url, key, tmp_path / "known", "--mode", "positive")
    assert asked(fuzzed)


BEYOND = "9" * 23


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("requests?model=%00", None),
        ("requests?status=-1748795744288555139072", None),
        (f"requests?after={BEYOND}:01a1fcc2-5e9b-7000-8d34-8839179968b9", None),
        ("keys/%00", None),
        ("keys", {"name": "a\0b"}),
        ("deployments/%00", None),
        (f"dlq/0:{BEYOND}-0", None),
        (f"dlq?after=0:1-{BEYOND}", None),
        ("models", {"name": "x", "command": ["a\0b"]}),
        ("guardrails/scan", {"body": {"text": "\ud800"}}),
    ],
)
def test_what_no_store_can_hold_is_the_callers_mistake(fuzzed: House, path: str, body: Any) -> None:
    status, said = fuzzed.request(f"/admin/v1/{path}", body)
    assert (status, said["error"]["doc_url"]) == (400, "/docs/errors/invalid_request")
