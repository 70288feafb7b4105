"""A canary word in prompts and answers is nowhere afterwards: not in Redis, its AOF, PostgreSQL or any log.

The same search finds a control word that may be kept (the caller's own request id), so that silence means something.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import http.client
import itertools
import json
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import redis

from schemas.routes import CHAT, COMPLETIONS, EMBEDDINGS, MODERATIONS
from tests.conftest import short_folder
from tests.e2e.house import House, headrace, until
from tests.e2e.scripted import (
    CUT,
    DONE,
    ScriptedEngine,
    chunked,
    completion,
    event,
    failure,
    scripted,
    unary,
    whole_stream,
)

CANARY = "Qz7vCanaryPlumageKx42"
CONTROL = "control-word-8fj3"
SETTINGS = """
guardrails:
  actions: {card: block, email: redact, persons: flag}
log: {level: debug}
"""
_numbers = itertools.count(1)
SAYS: Any = [
    {"role": "system", "content": f"You are {CANARY}."},
    {"role": "user", "content": [{"type": "text", "text": f"Hello {CANARY} {CANARY}@example.org"}]},
]


@pytest.fixture(scope="module")
def engine() -> Iterator[ScriptedEngine]:
    with scripted() as made:
        yield made


@pytest.fixture(scope="module")
def used(engine: ScriptedEngine) -> Iterator[House]:
    """A house in which every kind of request with the canary has been made, one of which still lives."""
    with short_folder() as folder:
        fault = folder / "fault"
        places = {"lab": engine.url}
        with headrace(
            folder / "data", settings=SETTINGS, engines=places, environment={"FAULT_FILE": str(fault)}
        ) as house:
            runs = [*make_all(house, engine), *use_other_doors(house, engine), die_of_it(house, fault)]
            for run in runs:
                house.record(run)
                explained, route = house.request(f"/admin/v1/requests/{run}/route")
                assert explained == 200 and not holds(json.dumps(route).encode(), CANARY)
            assert house.request("/admin/v1/requests/" + runs[0] + "/route")[1]["attempts"][0]["why"]
            try_on_guards(house)
            gate, alive = threading.Event(), begin_one(house, engine)
            yield house
            gate.set()
            alive.close()


def make_all(house: House, engine: ScriptedEngine) -> list[str]:
    """Requests of every kind; the ids of those that became runs."""
    echo = completion(f"I know {CANARY}", reasoning_content=CANARY)
    broken = chunked(event({"role": "assistant", "content": CANARY}), event(CANARY), CUT)
    engine.play(unary(echo), whole_stream({"role": "assistant"}, CANARY, f"and {CANARY}"), broken)
    extras = {"tools": [{"type": "function", "function": {"name": CANARY}}], "metadata": {"k": CANARY}, "user": CANARY}
    asked = [
        ask(house, {"messages": SAYS, **extras}),
        ask(house, {"messages": SAYS, "stream": True}),
        ask(house, {"messages": SAYS, "stream": True}),
        ask(house, {"messages": [*SAYS, {"role": "user", "content": f"{CANARY} pays with 4111 1111 1111 1111"}]}),
    ]
    said = {"error": {"message": f"cannot do {CANARY}", "type": "t", "param": "messages", "code": "c"}}
    engine.play(unary(said, 400), unary({"detail": CANARY}, 500), unary(CANARY.encode()), failure(503))
    asked += [ask(house, {"messages": SAYS, "stream": stream}) for stream in (True, False, True, False)]
    asked += [ask(house, {"messages": SAYS, "model": "absent"}), leave(house, engine)]
    for body in (b'{"messages": "' + CANARY.encode(), {"messages": CANARY}, {"messages": SAYS, "temperature": CANARY}):
        ask(house, body)
    ask(house, {"messages": SAYS}, key="hr_not_ours")
    assert [status for status, _ in asked] == [200, 200, 200, 400, 400, 502, 502, 503, 404, 0]
    return [run for _, run in asked]


def use_other_doors(house: House, engine: ScriptedEngine) -> list[str]:
    """Completions, embeddings and moderations with the canary in every field a text may have; the runs."""
    text = {"id": "c", "object": "text_completion", "created": 1, "model": "engine-name"}
    spoken = {"index": 0, "text": f"{CANARY} echoed", "finish_reason": "stop"}
    piece = b"data: " + json.dumps({**text, "choices": [spoken]}).encode() + b"\n\n"
    vector = {"object": "list", "model": "engine-name", "data": [{"index": 0, "embedding": CANARY}]}
    said = {"error": {"message": f"no {CANARY}", "type": "t", "param": "prompt", "code": "c"}}
    engine.play(unary({**text, "choices": [spoken]}), chunked(piece, DONE), unary(said, 400), unary(vector))
    prompt = {"prompt": [f"{CANARY} one", f"two {CANARY}@example.org"], "suffix": CANARY, "echo": True}
    inputs: Any = [CANARY, f"{CANARY} {CANARY}@example.org"]
    moderated = [{"type": "text", "text": f"{CANARY} pays with 4111 1111 1111 1111"}]
    asked = [
        ask(house, prompt, path=COMPLETIONS),
        ask(house, {**prompt, "stream": True}, path=COMPLETIONS),
        ask(house, prompt, path=COMPLETIONS),
        ask(house, {"input": inputs, "user": CANARY}, path=EMBEDDINGS),
        ask(house, {"prompt": f"{CANARY} 4111 1111 1111 1111"}, path=COMPLETIONS),
        ask(house, {"input": [*inputs, "4111 1111 1111 1111"]}, path=EMBEDDINGS),
        ask(house, {"input": moderated, "model": CANARY}, path=MODERATIONS),
        ask(house, {"input": inputs}, path=MODERATIONS),
    ]
    assert [status for status, _ in asked] == [200, 200, 400, 200, 400, 400, 200, 200]
    for path, wrong in ((COMPLETIONS, {"prompt": {CANARY: 1}}), (EMBEDDINGS, {"input": [CANARY, 1]})):
        assert ask(house, wrong, path=path)[0] == 400
    return [run for _, run in asked]


def try_on_guards(house: House) -> None:
    """An operator's trials, one of them wrong."""
    scan = "/admin/v1/guardrails/scan"
    status, found = house.request(scan, {"text": f"{CANARY} {CANARY}@example.org"})
    assert status == 200 and found["outcome"] == "edits"
    assert house.request(scan, {"body": {"prompt": [CANARY]}, "route": COMPLETIONS})[0] == 200
    assert house.request(scan, {"text": CANARY, "nonsense": CANARY})[0] == 400


def die_of_it(house: House, fault: Path) -> str:
    """A run whose guard fails at every start, until it is a dead letter; its id."""
    strike(fault)  # before the request: a guard answers within a millisecond
    connection = post(house, {"messages": SAYS})
    until(lambda: strike(fault) and letters(house))
    fault.unlink(missing_ok=True)
    response = connection.getresponse()
    assert response.status >= 500 and b"error" in response.read()
    connection.close()
    return str(response.headers["x-request-id"])


def strike(fault: Path) -> bool:
    """Arm the fault again; it disarms itself each time."""
    if not fault.exists():
        fault.with_suffix(".new").write_text("rules:P2:1:raise")
        fault.with_suffix(".new").replace(fault)
    return True


def letters(house: House) -> list[dict[str, Any]]:
    """The dead letters."""
    status, found = house.request("/admin/v1/dlq")
    assert status == 200
    return list(found["data"])


def ask(house: House, body: Any, key: str = "", path: str = CHAT) -> tuple[int, str]:
    """Status and request id of a request that is read to its end."""
    connection = post(house, body, key, path, once=f"{CANARY}-{next(_numbers)}")
    response = connection.getresponse()
    response.read()
    connection.close()
    return response.status, str(response.headers["x-request-id"])


def post(house: House, body: Any, key: str = "", path: str = CHAT, once: str = "") -> http.client.HTTPConnection:
    named = {"model": "lab", **body} if isinstance(body, dict) else body
    headers = {"x-client-request-id": CONTROL, **({"idempotency-key": once} if once else {})}
    return house.post(named, key=key, headers=headers, path=path)


def leave(house: House, engine: ScriptedEngine) -> tuple[int, str]:
    """A client that leaves in the middle of its stream."""
    connection = begin_one(house, engine)
    response = connection.getresponse()
    response.readline()
    connection.close()
    response.close()
    return 0, str(response.headers["x-request-id"])


def begin_one(house: House, engine: ScriptedEngine) -> http.client.HTTPConnection:
    """A stream that has said the canary and goes on for ever."""
    before = len(engine.requests)
    engine.play(chunked(event(CANARY), threading.Event(), DONE))
    connection = post(house, {"messages": SAYS, "stream": True})
    until(lambda: len(engine.requests) > before)
    return connection


def holds(data: bytes, word: str) -> bool:
    """Whether the word is in there: plain, in any case, in hexadecimal or in base64."""
    plain = word.encode()
    forms = {plain.hex().encode(), plain.hex().upper().encode()}
    for shift in range(3):
        coded = base64.b64encode(b"\0" * shift + plain)
        forms.add(coded[4 if shift else 0 : -4])
    return plain.lower() in data.lower() or any(form in data for form in forms)


def files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            yield str(path.relative_to(folder)), gzip.decompress(data) if path.suffix == ".gz" else data


def found_in(contents: Mapping[str, bytes], word: str) -> list[str]:
    return [name for name, data in contents.items() if holds(data, word)]


READERS: Mapping[bytes, Any] = {
    b"string": lambda server, key: server.get(key),
    b"hash": lambda server, key: server.hgetall(key),
    b"set": lambda server, key: server.smembers(key),
    b"zset": lambda server, key: server.zrange(key, 0, -1, withscores=True),
    b"list": lambda server, key: server.lrange(key, 0, -1),
    b"stream": lambda server, key: server.xrange(key),
}


def test_search_finds_a_word_in_every_coding() -> None:
    for coded in (
        CANARY.encode(),
        CANARY.lower().encode(),
        CANARY.encode().hex().encode(),
        base64.b64encode(b"x" + CANARY.encode() + b"yz"),
        base64.b64encode(b'{"a":"' + CANARY.encode() + b'"}'),
        base64.b64encode(b"12345" + CANARY.encode()),
    ):
        assert holds(b"before " + coded + b" after", CANARY)
    assert not holds(CANARY.encode()[1:], CANARY)


def test_no_prompt_or_answer_text_is_readable_in_redis(used: House) -> None:
    contents: dict[str, bytes] = {}
    with redis.Redis.from_url(used.valkey_url) as server:
        for key in server.scan_iter(count=1000):
            value = READERS[server.type(key)](server, key)
            contents[key.decode()] = b"".join(flat(value)) + key
    assert any(":body:" in key for key in contents), "the run that still lives has a body"
    assert any(":reply:" in key for key in contents) and any(":dlq" in key for key in contents)
    assert any(":once:" in key for key in contents)
    assert found_in(contents, CANARY) == []
    assert found_in(contents, CONTROL)


def flat(value: Any) -> Iterator[bytes]:
    """Every byte string inside a reply."""
    if isinstance(value, bytes):
        yield value
    elif isinstance(value, dict):
        yield from flat(list(value.items()))
    elif isinstance(value, list | tuple | set):
        for one in value:
            yield from flat(one)


def test_no_prompt_or_answer_text_is_in_the_files_of_redis(used: House) -> None:
    with redis.Redis.from_url(used.valkey_url) as server:
        server.config_set("appendfsync", "always")
        server.set("flush", 1)
    contents = dict(files(used.folder / "valkey"))
    assert any(name.endswith(".aof") for name in contents)
    assert found_in(contents, CANARY) == []
    assert [name for name in found_in(contents, CONTROL) if name.endswith(".aof")]


def test_no_prompt_or_answer_text_is_in_postgresql(used: House) -> None:
    tables = until(lambda: kept(asyncio.run(dump(used.postgres_dsn))))
    contents = dict(files(used.folder / "postgres"))
    assert found_in(tables, CANARY) == [] and found_in(contents, CANARY) == []
    assert "requests" in found_in(tables, CONTROL)
    assert [name for name in found_in(contents, CONTROL) if "/base/" in f"/{name}"]


def kept(tables: dict[str, bytes]) -> dict[str, bytes] | None:
    """The tables, once answers are archived."""
    return tables if tables["archives"] else None


async def dump(dsn: str) -> dict[str, bytes]:
    """Every row of every table as text, after a checkpoint."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("CHECKPOINT")
        names = await connection.fetch(
            "SELECT table_schema, table_name FROM information_schema.tables "
            "WHERE table_schema NOT IN ('pg_catalog', 'information_schema')"
        )
        found: dict[str, bytes] = {}
        for schema, name in names:
            rows = await connection.fetch(f'SELECT t::text FROM "{schema}"."{name}" t')
            found[name] = "\n".join(row[0] for row in rows).encode()
        return found
    finally:
        await connection.close()


def test_no_prompt_or_answer_text_is_in_any_log_or_other_file(used: House) -> None:
    names = {name for name in os.listdir(used.folder) if name not in ("valkey", "postgres")}
    contents = {f"{top}/{name}": data for top in names for name, data in files(used.folder / top)}
    contents |= {name: (used.folder / name).read_bytes() for name in names if (used.folder / name).is_file()}
    assert "debug" in used.logs() and "call failed" in used.logs()
    assert found_in(contents, CANARY) == []


def test_no_secret_is_in_any_log(used: House) -> None:
    secrets = [used.key, used.connection["admin_key"], *json.loads((used.folder / "secrets.json").read_text()).values()]
    said = used.logs() + (used.folder / "up.log").read_text()
    assert [secret[:12] for secret in secrets[1:] if secret in said] == []
    assert used.key.rpartition("_")[0] not in used.logs()
