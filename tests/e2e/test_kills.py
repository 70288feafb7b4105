"""Whoever dies, a request ends: with a whole answer or with an error that has a code, once, and it is on the record.

One Headrace with a process per room; faults are written into a file that every crash point looks at. Checked from
outside: what the client saw, what the engine sent, what the record says.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.house import Engine, House, headrace, scripted_engine, until

SETTINGS = """
server: {deadline: 60}
guardrails: {families: {persons: {enabled: true}}}
"""
#: Coded errors that a client may see when something died under its request.
CODED = {"upstream_interrupted", "internal_error", "deadline_exceeded", "guardrail_unavailable", "store_unavailable"}


@dataclass
class Seen:
    """What a client saw of one streamed request."""

    run: str = ""
    status: int = 0
    tokens: int = 0
    done: bool = False
    code: str = ""
    cut: bool = False
    events: list[str] = field(default_factory=list)

    @property
    def ended_well(self) -> bool:
        """A whole answer, or an error with a code; never a clean end that is neither."""
        return self.done != bool(self.code)


def ask(house: House, prompt: str, tokens: int = 6, timeout: float = 70) -> Seen:
    """One streamed chat over a plain socket, read to its end."""
    seen = Seen()
    address = urllib.parse.urlsplit(house.base_url)
    line = http.client.HTTPConnection(str(address.hostname), address.port, timeout=timeout)
    body = {"model": "mock", "stream": True, "max_tokens": tokens, "messages": [{"role": "user", "content": prompt}]}
    try:
        headers = {"authorization": f"Bearer {house.key}", "content-type": "application/json"}
        line.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        reply = line.getresponse()
        seen.status, seen.run = reply.status, reply.getheader("x-request-id") or ""
        if reply.status != 200:
            seen.code = json.loads(reply.read())["error"]["code"] or "none"
            return seen
        rest = b""
        while piece := reply.read1(65536):  # raises at a cut; iterating over lines would take it for the end
            *lines, rest = (rest + piece).split(b"\n")
            for raw in lines:
                _take(seen, raw.decode().strip())
    except (http.client.HTTPException, OSError):
        seen.cut = True
    finally:
        line.close()
    return seen


def _take(seen: Seen, line: str) -> None:
    if not line.startswith("data: "):
        return
    seen.events.append(line)
    if line == "data: [DONE]":
        seen.done = True
        return
    chunk: dict[str, Any] = json.loads(line[6:])
    if "error" in chunk:
        seen.code = chunk["error"]["code"] or "none"
    elif chunk.get("choices") and chunk["choices"][0]["delta"].get("content"):
        seen.tokens += 1


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with scripted_engine("--ttft-ms", "5", "--itl-ms", "10") as engine:
        yield engine


@pytest.fixture(scope="module")
def fault(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fault") / "fault"


@pytest.fixture(scope="module")
def house(engine: Engine, fault: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("kills")
    environment = {"FAULT_FILE": str(fault)}
    with headrace(
        folder, "--processes", "split", settings=SETTINGS, engines={"mock": engine.url}, environment=environment
    ) as house:
        yield house


def record(house: House, run: str) -> dict[str, Any]:
    """The row of a run, once it is there."""

    def row() -> dict[str, Any] | None:
        try:
            status, found = house.request(f"/admin/v1/requests/{run}")
        except OSError:
            return None
        return found if status == 200 else None

    found: dict[str, Any] = until(row, 40)
    return found


def quiet(house: House) -> None:
    """Nothing is left in any group: every entry was handled by somebody."""

    def idle() -> bool:
        try:
            status, found = house.request("/admin/v1/lag")
        except OSError:
            return False
        rows = found["data"] if status == 200 and "data" in found else found.get("groups", [])
        return status == 200 and bool(rows) and all(row["pending"] == 0 and row["lag"] == 0 for row in rows)

    until(idle, 40)


POINTS = ["P1", "P2", "P3", "P4"]


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("group", ["authorization", "rules", "persons"])
def test_a_killed_checker_is_replaced_and_the_client_only_waits(
    house: House, engine: Engine, fault: Path, group: str, point: str
) -> None:
    old = house.pid(group)
    fault.write_text(f"{group}:{point}:1")
    seen = ask(house, f"@@id={group}-{point}")
    assert not fault.exists()
    assert seen.done and not seen.code and seen.tokens == 6
    house.restarted(group, old)
    assert record(house, seen.run)["completion_tokens"] == 6
    quiet(house)


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_router_ends_its_run_once(house: House, engine: Engine, fault: Path, point: str) -> None:
    old = house.pid("router")
    fault.write_text(f"router:{point}:1")
    seen = ask(house, f"@@id=router-{point}")
    assert not fault.exists()
    assert seen.ended_well, seen
    assert not seen.code or seen.code in CODED
    assert seen.tokens <= 6
    house.restarted("router", old)
    row = record(house, seen.run)
    assert row["outcome"] == ("completed" if seen.done else "failed")
    assert row["completion_tokens"] <= 6
    quiet(house)


@pytest.mark.parametrize("group", ["audit", "ledger"])
@pytest.mark.parametrize("point", POINTS)
def test_a_killed_record_keeper_writes_one_row(
    house: House, engine: Engine, fault: Path, group: str, point: str
) -> None:
    old = house.pid("audit")
    fault.write_text(f"{group}:{point}:1")
    seen = ask(house, f"@@id={group}-{point}")
    assert seen.done and seen.tokens == 6
    until(lambda: not fault.exists())
    house.restarted("audit", old)
    assert record(house, seen.run)["completion_tokens"] == 6
    quiet(house)


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_provisioner_deploys_once(house: House, engine: Engine, fault: Path, point: str) -> None:
    old = house.pid("provisioner")
    fault.write_text(f"provisioner:{point}:1")
    name = f"extra-{point.lower()}"
    status, _ = house.request("/admin/v1/models", {"name": name, "url": engine.url, "upstream_model": "mock"})
    assert status in (200, 201, 202)
    until(lambda: not fault.exists())
    house.restarted("provisioner", old)

    def ready() -> bool:
        found = house.request("/admin/v1/deployments")[1]["data"]
        return [row["state"] for row in found if row["deployment"] == name] == ["ready"]

    until(ready, 40)
    quiet(house)


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_ingress_cuts_the_connection_and_never_ends_it_cleanly(
    house: House, engine: Engine, fault: Path, point: str
) -> None:
    old = house.pid("ingress")
    fault.write_text(f"ingress:{point}:1")
    seen = ask(house, f"@@id=ingress-{point}")
    assert not fault.exists()
    assert seen.cut and not seen.done and not seen.code
    house.restarted("ingress", old)
    assert ask(house, "hello again").done
    quiet(house)


def test_a_run_whose_ingress_died_is_read_to_its_end_at_the_next_one(house: House, engine: Engine) -> None:
    engine.set(itl_ms=100)
    old = house.pid("ingress")
    try:
        killer = _when_streaming(house, engine, "ingress")
        seen = ask(house, "@@id=ingress-midstream", tokens=20)
        killer.join(10)
        assert seen.cut and not seen.done and 0 < seen.tokens < 20
        house.restarted("ingress", old)
        again = read_again(house, seen.run, after=0)
    finally:
        engine.set(itl_ms=10)
    assert again.done and again.tokens == 20
    assert again.events[: len(seen.events)] == seen.events
    assert record(house, seen.run)["completion_tokens"] == 20
    quiet(house)


def read_again(house: House, run: str, after: int) -> Seen:
    """The run's events from GET /v1/streams, to their end; their ids count without a gap."""
    seen = Seen(run=run)
    call = urllib.request.Request(f"{house.base_url}/v1/streams/{run}?after={after}")
    call.add_header("authorization", f"Bearer {house.key}")
    with urllib.request.urlopen(call, timeout=60) as reply:
        lines = [raw.decode().strip() for raw in reply]
    ids = [int(line[4:]) for line in lines if line.startswith("id: ")]
    assert ids == list(range(after + 1, after + 1 + len(ids)))
    for line in lines:
        _take(seen, line)
    return seen


def test_a_killed_console_is_nothing_to_a_request(house: House, engine: Engine) -> None:
    engine.set(itl_ms=100)
    old = house.pid("console")
    try:
        killer = _when_streaming(house, engine, "console")
        seen = ask(house, "@@id=console-midstream", tokens=10)
        killer.join(10)
    finally:
        engine.set(itl_ms=10)
    assert seen.done and seen.tokens == 10
    house.restarted("console", old)
    quiet(house)


def test_a_router_killed_in_mid_stream_never_looks_like_success(house: House, engine: Engine) -> None:
    engine.set(itl_ms=150)
    old = house.pid("router")
    try:
        killer = _when_streaming(house, engine, "router")
        seen = ask(house, "@@id=midstream", tokens=20)
        killer.join(10)
    finally:
        engine.set(itl_ms=10)
    assert seen.code == "upstream_interrupted" and not seen.done
    house.restarted("router", old)
    row = record(house, seen.run)
    assert row["outcome"] == "failed" and row["estimated"]
    assert 0 < row["completion_tokens"] <= 20
    quiet(house)


def _when_streaming(house: House, engine: Engine, room: str) -> Any:
    """Kill a room once the engine streams."""
    import threading

    before = engine.stats()["tokens"]

    def wait_and_kill() -> None:
        until(lambda: engine.stats()["tokens"] > before + 3)
        house.kill(room)

    thread = threading.Thread(target=wait_and_kill)
    thread.start()
    return thread


def test_valkey_killed_and_restarted_loses_no_run(house: House, engine: Engine) -> None:
    import threading

    engine.set(itl_ms=100)
    results: list[Seen] = []
    threads = [threading.Thread(target=lambda: results.append(ask(house, "through it", tokens=30))) for _ in range(5)]
    try:
        before = engine.stats()["tokens"]
        for thread in threads:
            thread.start()
        until(lambda: engine.stats()["tokens"] > before + 10)
        old = house.pid("valkey")
        os.kill(old, signal.SIGKILL)
        for thread in threads:
            thread.join(90)
    finally:
        engine.set(itl_ms=10)
    assert len(results) == 5
    assert all(seen.ended_well for seen in results), results
    assert all(seen.tokens == 30 for seen in results if seen.done)
    for seen in results:
        assert record(house, seen.run)["outcome"] == ("completed" if seen.done else "failed")
    until(lambda: house.pid("valkey") != old, 30)
    until(lambda: ask(house, "after it").done, 30)
    quiet(house)


def test_postgresql_stopped_for_a_minute_fails_no_request_and_loses_no_row(house: House, engine: Engine) -> None:
    assert ask(house, "warm").done
    pid = house.pid("postgres")
    seconds = float(os.environ.get("POSTGRES_STOPPED_S", "60"))
    os.kill(pid, signal.SIGSTOP)
    runs: list[Seen] = []
    try:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            runs.append(ask(house, "while it is away"))
            time.sleep(1)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert all(seen.done for seen in runs)
    for seen in runs:
        assert record(house, seen.run)["completion_tokens"] == 6
    quiet(house)
