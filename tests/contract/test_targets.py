"""Promises of workers.provisioner.ports.Target: the fake, processes of this machine, and URLs, on one suite."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from base.clock import SystemClock
from providers.httptools_transport import HttptoolsTransport
from tests.console_support import engine_command, until
from workers.provisioner.fetch import TransportFetch
from workers.provisioner.ports import Exit, Handle, Health, Spec, StartFailed, Target
from workers.provisioner.targets.external import ExternalTarget
from workers.provisioner.targets.fake import FakeTarget
from workers.provisioner.targets.local import LocalTarget

KINDS = ["fake", "local", "external"]


@dataclass(slots=True)
class Place:
    """A target, what to run there, and how another process would see the same place."""

    target: Target
    spec: Spec
    again: Callable[[], Target]
    kill: Callable[[Handle], None] | None = None


@pytest.fixture(params=KINDS)
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    async with AsyncExitStack() as stack:
        transport = HttptoolsTransport(SystemClock())
        stack.push_async_callback(transport.close)
        fetch = TransportFetch(transport, 5.0)
        local = LocalTarget(tmp_path / "engines", fetch, SystemClock(), stop_grace_s=5.0)
        stack.push_async_callback(end_all, local)
        spec = Spec(deployment="small", name="small", digest="d1", private=True, command=engine_command())
        if request.param == "local":
            yield Place(local, spec, lambda: LocalTarget(tmp_path / "engines", fetch, SystemClock()), kill_9)
        elif request.param == "external":
            behind = await local.start(replace(spec, deployment="behind"))
            spec = replace(spec, url=behind.url, command=())
            yield Place(ExternalTarget(fetch), spec, lambda: ExternalTarget(fetch))
        else:
            fake = FakeTarget()
            yield Place(fake, spec, lambda: fake, lambda handle: fake.die(handle.deployment, -9))


async def end_all(target: LocalTarget) -> None:
    for handle in await target.running():
        await target.stop(handle)
    target.close()


def kill_9(handle: Handle) -> None:
    os.kill(handle.pid, signal.SIGKILL)


async def up(place: Place) -> Health:
    """Started and answering."""
    handle = await place.target.start(place.spec)

    async def answers() -> Health | None:
        health = await place.target.probe(place.spec, handle)
        return health if health.up else None

    found: Health = await until(answers)
    return found


async def test_a_started_engine_runs_and_answers_with_its_model(place: Place) -> None:
    health = await up(place)
    assert (health.reason, health.upstream_model) == ("", "small")
    [handle] = await place.target.running()
    assert (handle.deployment, handle.digest) == ("small", "d1")
    assert handle.url.endswith("/v1")


async def test_starting_twice_is_one_engine(place: Place) -> None:
    first = await place.target.start(place.spec)
    assert await place.target.start(place.spec) == first
    assert len(await place.target.running()) == 1


async def test_another_process_starts_no_second_engine(place: Place) -> None:
    first = await place.target.start(place.spec)
    assert await place.again().start(place.spec) == first


async def test_a_stopped_engine_runs_no_more_and_may_be_stopped_again(place: Place) -> None:
    handle = await place.target.start(place.spec)
    await place.target.stop(handle)
    assert await place.target.running() == () or list(await place.target.running()) == []
    await place.target.stop(handle)


async def test_an_engine_can_be_started_after_a_stop(place: Place) -> None:
    handle = await place.target.start(place.spec)
    await place.target.stop(handle)
    assert (await up(place)).up


async def test_replicas_of_a_deployment_are_engines_of_their_own(place: Place) -> None:
    if place.spec.url:
        return  # a URL elsewhere is one endpoint
    first = await place.target.start(place.spec)
    second = await place.target.start(replace(place.spec, replica=2))
    assert first.url != second.url and first.pid != second.pid
    found = {handle.replica: handle for handle in await place.target.running()}
    assert found == {1: first, 2: second}
    assert {handle.replica for handle in await place.again().running()} == {1, 2}
    await place.target.stop(first)
    assert list(await place.target.running()) == [second]
    assert await place.target.start(replace(place.spec, replica=2)) == second


async def test_an_engine_that_was_killed_tells_by_what_and_one_that_runs_tells_nothing(place: Place) -> None:
    handle = await place.target.start(place.spec)
    assert place.target.ended("small", 1) is None
    if place.kill is None:
        return  # what runs elsewhere never ends for us
    place.kill(handle)

    async def gone() -> bool:
        return not await place.target.running()

    await until(gone)
    assert place.target.ended("small", 1) == Exit(-9)
    await place.target.start(place.spec)
    assert place.target.ended("small", 1) is None


async def test_an_engine_that_we_stop_did_not_end_by_itself(place: Place) -> None:
    handle = await place.target.start(place.spec)
    await place.target.stop(handle)
    await place.target.running()
    assert place.target.ended("small", 1) is None


async def test_a_probe_of_what_does_not_answer_is_a_reason_never_an_exception(place: Place) -> None:
    handle = await place.target.start(place.spec)
    nowhere = replace(handle, url="http://127.0.0.1:9/v1", born=handle.born + 1)
    health = await place.target.probe(place.spec, nowhere)
    assert not health.up
    assert health.reason


async def test_a_named_upstream_model_is_kept(place: Place) -> None:
    spec = replace(place.spec, upstream_model="weights-v2")
    handle = await place.target.start(spec)

    async def named() -> Awaitable[bool] | bool:
        return (await place.target.probe(spec, handle)).upstream_model == "weights-v2"

    await until(named)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ((), "needs a command"),
        (("no-such-program-anywhere",), "is not a program on this machine's PATH"),
        (("/etc/passwd",), "is not a program"),
    ],
)
async def test_a_local_engine_that_cannot_start_says_why(tmp_path: Path, command: tuple[str, ...], said: str) -> None:
    transport = HttptoolsTransport(SystemClock())
    target = LocalTarget(tmp_path, TransportFetch(transport, 1.0), SystemClock())
    with pytest.raises(StartFailed, match=said):
        await target.start(Spec(deployment="small", name="small", digest="d", command=command))
    with pytest.raises(StartFailed, match="a deployment's name"):
        await target.start(Spec(deployment="../up", name="small", digest="d", command=(sys.executable,)))
    await transport.close()


@pytest.mark.parametrize(
    ("url", "credential", "private"),
    [("ftp://x/v1", "", False), ("http://user@x/v1", "", False), ("http://x/v1", "canary", False), ("", "", True)],
)
async def test_a_url_that_may_not_be_called_is_refused(url: str, credential: str, private: bool) -> None:
    transport = HttptoolsTransport(SystemClock())
    target = ExternalTarget(TransportFetch(transport, 1.0))
    with pytest.raises(StartFailed) as refused:
        await target.start(Spec(deployment="d", name="n", digest="x", url=url, credential=credential, private=private))
    assert "canary" not in str(refused.value)
    await transport.close()


async def test_a_private_address_must_be_meant() -> None:
    transport = HttptoolsTransport(SystemClock())
    target = ExternalTarget(TransportFetch(transport, 2.0))
    spec = Spec(deployment="d", name="n", digest="x", url="http://localhost:9/v1")
    health = await target.probe(spec, await target.start(spec))
    assert not health.up
    assert "private" in health.reason
    await transport.close()
