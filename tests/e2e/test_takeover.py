"""A run goes on in other hands, and the hands that held it write nothing more when they wake up.

One Headrace whose routers are given up after 1.5 s of silence. The engine counts its tokens, so that an answer that was
continued can be compared, letter by letter, with one that was not.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bench.stamps import TOKEN_HEAD, encode
from console.control_socket import ask as ask_supervisor
from tests.conftest import short_folder
from tests.e2e.house import Engine, House, headrace, read_event, scripted_engine, until

SETTINGS = """
server: {{deadline: 60}}
runs: {{idle_limits: {{router: 1500}}}}
models:
  - {{name: solid, url: "{url}", upstream_model: mock, slots: 64, continues: prefill}}
  - {{name: pair, deployment: one, url: "{url}", upstream_model: mock, continues: prefill}}
  - {{name: pair, deployment: two, url: "{url}", upstream_model: mock, continues: continue_final_message}}
  - {{name: plain, url: "{url}", upstream_model: mock}}
"""
IDLE_S = 1.5  # of the routers here; of checkers everywhere
#: Where a router is stopped: after it read an entry, after its claim, in mid-stream, before the end, after it.
PHASES = ("router:P1:1", "claim:P4:1", "router:P2:1", "router:P3:1", "router:P4:1")


def counted(tokens: int) -> str:
    """What the engine says when it counts."""
    return b"".join(TOKEN_HEAD + encode(place) for place in range(tokens)).decode()


@dataclass
class Answer:
    """What a client has of one stream. raw: its events as they came."""

    run: str = ""
    endpoint: str = ""
    raw: list[bytes] = field(default_factory=list)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(one[6:]) for one in self.raw if one.startswith(b"data: {")]

    @property
    def text(self) -> str:
        return "".join(one["choices"][0]["delta"].get("content") or "" for one in self.events if one.get("choices"))

    @property
    def code(self) -> str:
        return next((one["error"]["code"] for one in self.events if "error" in one), "")

    def is_seamless(self, tokens: int) -> bool:
        """One speaker, one name, one end; every token once and in its place."""
        choices = [one["choices"][0] for one in self.events if one.get("choices")]
        heads = {(one["id"], one["created"], one["model"], one["object"]) for one in self.events}
        speakers = [one for one in choices if one["delta"].get("role")]
        ends = [one for one in choices if one["finish_reason"]]
        usage = [one["usage"] for one in self.events if one.get("usage")]
        counts = [one["completion_tokens"] for one in usage]
        whole = self.text == counted(tokens) and self.raw[-1] == b"data: [DONE]\n\n"
        return whole and len(heads) == len(speakers) == len(ends) == 1 and counts == [tokens]


def ask(
    house: House, name: str, model: str = "solid", tokens: int = 8, marks: str = "", into: Answer | None = None
) -> Answer:
    """One streamed chat, read to its end. into: where others may follow it."""
    said = Answer() if into is None else into
    body = {
        "model": model,
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": tokens,
        "messages": [{"role": "user", "content": f"@@count @@id={name} {marks}"}],
    }
    line = house.post(body)
    reply = line.getresponse()
    assert reply.status == 200, reply.read()
    said.run, said.endpoint = reply.headers["x-request-id"], reply.headers["x-headrace-endpoint"] or ""
    while event := read_event(reply):
        if event.startswith(b"data:"):
            said.raw.append(event)
    line.close()
    return said


@contextmanager
def asked(house: House, name: str, **more: Any) -> Iterator[Answer]:
    """The same beside the block; its answer is whole when the block has ended."""
    said, faults = Answer(), list[BaseException]()

    def follow() -> None:
        try:
            ask(house, name, into=said, **more)
        except BaseException as fault:
            faults.append(fault)

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        yield said
    finally:
        thread.join(60)
    assert not thread.is_alive() and not faults, faults


def read_again(house: House, run: str) -> list[bytes]:
    """The run's events as /v1/streams keeps them, ids aside."""
    call = urllib.request.Request(f"{house.base_url}/v1/streams/{run}?after=0")
    call.add_header("authorization", f"Bearer {house.key}")
    with urllib.request.urlopen(call, timeout=60) as reply:
        return [line + b"\n" for line in reply if line.startswith(b"data:")]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with scripted_engine("--ttft-ms", "5", "--itl-ms", "10") as engine:
        yield engine


@pytest.fixture(scope="module")
def fault() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder / "fault"


@pytest.fixture(scope="module")
def house(engine: Engine, fault: Path) -> Iterator[House]:
    with (
        short_folder() as folder,
        headrace(
            folder / "d",
            "--processes",
            "split",
            settings=SETTINGS.format(url=engine.url),
            environment={"FAULT_FILE": str(fault)},
        ) as house,
    ):
        yield house


def routers(house: House, room: str = "router") -> list[int]:
    """Processes of a room that are ready."""
    found = ask_supervisor(house.folder, {"do": "status"})["processes"]
    return [one["pid"] for one in found if one["rooms"] == [room] and one["state"] == "ready"]


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def test_an_answer_whose_router_is_killed_is_whole(house: House, engine: Engine) -> None:
    engine.set(itl_ms=60)
    old = house.pid("router")
    try:
        with asked(house, "killed", tokens=40) as said:
            until(lambda: len(said.raw) > 8)
            os.kill(old, signal.SIGKILL)
    finally:
        engine.set(itl_ms=10)
    assert said.is_seamless(40), said
    house.restarted("router", old)
    row = house.record(said.run)
    assert (row["outcome"], row["completion_tokens"], row["estimated"]) == ("completed", 40, True)
    assert row["finish_reason"] == "length" and said.endpoint == row["endpoint"] == "solid"
    (attempt,) = row["attempts"]
    assert attempt["outcome"] == "ok" and attempt["after"] > 8
    assert read_again(house, said.run) == said.raw
    first, second = engine.ledger("killed")["killed"]
    assert first["state"] == "aborted" and row["completion_tokens"] <= first["tokens"] + second["tokens"]


def test_an_answer_whose_engine_breaks_off_is_whole(house: House, engine: Engine) -> None:
    said = ask(house, "cut", model="pair", marks="@@cut=3@@times=1")
    assert said.is_seamless(8), said
    row = house.record(said.run)
    assert [(one["outcome"], one.get("after", 0) > 0) for one in row["attempts"]] == [
        ("upstream_interrupted", False),
        ("ok", True),
    ]
    assert (row["completion_tokens"], row["estimated"]) == (8, True) and said.endpoint in ("one", "two")
    assert {one["endpoint"] for one in row["attempts"]} == {"one", "two"}


def test_without_leave_a_broken_answer_ends_as_broken(house: House) -> None:
    said = ask(house, "left", model="plain", marks="@@cut=3@@times=1")
    assert said.code == "upstream_interrupted" and said.raw[-1] != b"data: [DONE]\n\n"


def test_routers_that_wake_up_write_nothing_and_leave_their_engines(house: House, engine: Engine, fault: Path) -> None:
    """One router for each phase, each stopped there; one by hand while it waits for a first token."""
    own, before = house.pid("router"), engine.stats()["requests"]
    engine.set(ttft_ms=120_000)
    with ExitStack() as stack:
        answers = [stack.enter_context(asked(house, "unsent"))]
        until(lambda: engine.stats()["requests"] > before)
        engine.set(ttft_ms=5, itl_ms=30)
        os.kill(own, signal.SIGSTOP)
        stack.callback(os.kill, own, signal.SIGCONT)
        wanted = len(PHASES) + 2
        ask_supervisor(house.folder, {"do": "scale", "group": "router", "count": wanted})
        until(lambda: len(routers(house)) == wanted)
        for phase in PHASES:
            fault.write_text(f"{phase}:hang")
            while fault.exists():  # a stopped router that waits for an entry may get it, and keeps it for a while
                answers.append(stack.enter_context(asked(house, f"run{len(answers)}")))
                until(lambda: not fault.exists() or answers[-1].raw, 20)
        stopped = time.monotonic()
        stale = [pid for pid in routers(house) if is_stopped(pid)]
        for pid in stale:
            stack.callback(os.kill, pid, signal.SIGCONT)
        assert len(stale) == wanted - 1
        until(lambda: all(said.raw and said.raw[-1] == b"data: [DONE]\n\n" for said in answers), 40)
        until(lambda: time.monotonic() > stopped + 2 * IDLE_S)
        rows = {said.run: house.record(said.run) for said in answers}
        for pid in stale:
            os.kill(pid, signal.SIGCONT)
        until(lambda: engine.stats()["live"] == 0)  # those that were in the hands of the stale ones, too
        assert ask(house, "after").is_seamless(8)
    for said in answers:
        assert said.is_seamless(8), said
        assert read_again(house, said.run) == said.raw
        assert house.record(said.run) == rows[said.run] and rows[said.run]["outcome"] == "completed"
    assert all(row["completion_tokens"] == 8 for row in rows.values())


@pytest.mark.parametrize("point", ["P1", "P2", "P3", "P4"])
def test_a_checker_that_wakes_up_changes_nothing(house: House, fault: Path, point: str) -> None:
    ask_supervisor(house.folder, {"do": "scale", "group": "rules", "count": 2})
    until(lambda: len(routers(house, "rules")) == 2)
    fault.write_text(f"rules:{point}:1:hang")
    said, stopped = ask(house, f"rules{point}"), time.monotonic()
    (stale,) = [pid for pid in routers(house, "rules") if is_stopped(pid)]
    row = house.record(said.run)
    until(lambda: time.monotonic() > stopped + 2 * IDLE_S)
    os.kill(stale, signal.SIGCONT)
    assert said.is_seamless(8) and ask(house, f"after{point}").is_seamless(8)
    assert house.record(said.run) == row and read_again(house, said.run) == said.raw
    until(lambda: all(one["pending"] == 0 for one in house.request("/admin/v1/lag")[1]["data"]))
