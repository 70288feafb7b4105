"""The provisioner with real processes: killed engines, killed provisioners, deaf engines, leftovers."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from base.clock import SystemClock
from providers.http import HttpTransport
from schemas.commands import StopDeployment
from state.memory import MemoryCatalog
from storage.memory import memory_store
from tests.console_support import Said, delivery, deploy_model, engine_command, until
from workers.provisioner.fetch import TransportFetch
from workers.provisioner.handlers import Handlers
from workers.provisioner.ports import Handle, Spec
from workers.provisioner.reconcile import Reconciler
from workers.provisioner.rules import wish
from workers.provisioner.settings import ProvisionerSettings
from workers.provisioner.targets.local import LocalTarget, alive

SPEC = Spec(deployment="small", name="small", digest="d1", command=engine_command())


class Machine:
    """A provisioner over memory twins that runs real engines."""

    def __init__(self, folder: Path, transport: HttpTransport) -> None:
        self.clock, self.said = SystemClock(), Said()
        self.deployments, self.catalog = memory_store().deployments, MemoryCatalog()
        self.local = LocalTarget(folder / "engines", TransportFetch(transport, 5.0), self.clock, stop_grace_s=2.0)
        self._task: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """A provisioner process starts."""
        settings = ProvisionerSettings(interval_s=0.1, starting_interval_s=0.05, drain_s=0, bad_probes=1)
        loop = Reconciler(
            self.deployments, {"local": self.local}, self.catalog, self.said, lambda _, s: s, self.clock, settings
        )
        self._handlers = Handlers(self.deployments, self.clock, loop.wake)
        self.local.on_exit = loop.wake
        self._task = asyncio.create_task(loop.run())

    async def die(self) -> None:
        """The process is gone, its engines are not."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self.local.close()

    async def order(self, command: object) -> None:
        await self._handlers.handle([delivery(command)])

    async def ready(self, other_than: int = 0) -> int:
        """The pid of the engine once it is ready and published."""

        async def look() -> int:
            record = await self.deployments.find("small")
            endpoints = await self.catalog.endpoints("small")
            up = record is not None and record.state == "ready" and any(item.up for item in endpoints)
            return record.pid if record and up and record.pid != other_than else 0

        found: int = await until(look)
        return found

    async def state(self, wanted: str) -> None:
        async def look() -> bool:
            record = await self.deployments.find("small")
            return record is not None and record.state == wanted

        await until(look)


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Machine]:
    transport = HttpTransport(SystemClock())
    made = Machine(tmp_path, transport)
    await made.begin()
    yield made
    await made.die()
    for handle in await made.local.running():
        await made.local.stop(handle)
    await transport.close()


LOCAL = deploy_model(target="local", url="", command=engine_command())


async def test_an_engine_killed_with_9_is_restarted(machine: Machine) -> None:
    await machine.order(LOCAL)
    first = await machine.ready()
    os.kill(first, signal.SIGKILL)
    second = await machine.ready(other_than=first)
    [endpoint] = await machine.catalog.endpoints("small")
    [handle] = await machine.local.running()
    assert (handle.pid, handle.url) == (second, endpoint.url)


async def test_the_end_of_an_engine_is_heard_without_waiting_for_the_next_look(machine: Machine) -> None:
    await machine.die()
    handle = await machine.local.start(SPEC)
    heard = asyncio.Event()
    machine.local.on_exit = heard.set
    os.kill(handle.pid, signal.SIGKILL)
    await asyncio.wait_for(heard.wait(), 10)
    assert not await machine.local.running()


async def test_an_engine_outlives_its_provisioner_and_is_adopted(machine: Machine) -> None:
    await machine.order(LOCAL)
    first = await machine.ready()
    await machine.die()
    assert [handle.pid for handle in await machine.local.running()] == [first]
    machine.said.events.clear()
    await machine.begin()

    async def told() -> bool:
        return bool(machine.said.events)

    await until(told)
    assert await machine.ready() == first


async def test_an_engine_started_just_before_a_crash_is_adopted(machine: Machine) -> None:
    await machine.die()
    await machine.begin()
    await machine.die()
    await machine.order(LOCAL)
    record = await machine.deployments.find("small")
    assert record is not None
    handle = await machine.local.start(replace(SPEC, digest=wish(record)))  # and nothing was recorded
    await machine.begin()
    assert await machine.ready() == handle.pid
    assert len(await machine.local.running()) == 1


async def test_an_engine_nobody_asked_for_is_ended(machine: Machine) -> None:
    handle = await machine.local.start(replace(SPEC, deployment="stray"))

    async def gone() -> bool:
        return not alive(handle.pid, handle.born)

    await until(gone)


async def test_a_stopped_deployment_leaves_no_process_and_no_endpoint(machine: Machine) -> None:
    await machine.order(LOCAL)
    pid = await machine.ready()
    await machine.order(StopDeployment(command_id="s1", deployment="small"))
    await machine.state("stopped")
    assert pid not in with_mark(machine)
    assert await machine.catalog.endpoints("small") == ()


async def test_the_same_command_twice_is_one_process(machine: Machine) -> None:
    await machine.order(LOCAL)
    await machine.order(LOCAL)
    await machine.ready()
    await machine.order(LOCAL)
    assert len(await machine.local.running()) == 1


async def test_a_deaf_engine_is_ended_with_9(machine: Machine) -> None:
    await machine.die()
    handle = await machine.local.start(replace(SPEC, command=engine_command("deaf")))
    await answering(machine, handle)
    await machine.local.stop(handle)
    assert not alive(handle.pid, handle.born)


async def test_children_of_an_engine_end_with_it(machine: Machine) -> None:
    await machine.die()
    handle = await machine.local.start(replace(SPEC, command=engine_command("child")))
    await answering(machine, handle)
    os.kill(handle.pid, signal.SIGKILL)
    await machine.local.stop(handle)

    async def none_left() -> bool:
        return not with_mark(machine)

    await until(none_left)


async def test_the_log_has_the_engines_words_and_the_engine_has_none_of_our_secrets(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await machine.die()
    monkeypatch.setenv("HEADRACE__SECRETS__KEYRING", "canary")
    handle = await machine.local.start(SPEC)
    await answering(machine, handle)
    log = tmp_path / "engines" / "small.log"
    assert log.read_text().startswith("engine starts False")
    assert log.stat().st_mode & 0o077 == 0


async def test_a_reused_pid_is_never_signalled(machine: Machine) -> None:
    stranger = replace(await machine.local.start(SPEC), pid=os.getpid(), born=1)
    await machine.die()
    await machine.local.stop(stranger)  # we are still here


async def answering(machine: Machine, handle: Handle) -> None:
    async def look() -> bool:
        return (await machine.local.probe(SPEC, handle)).up

    await until(look)


def with_mark(machine: Machine) -> list[int]:
    """Processes that carry this machine's mark."""
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            environment = Path(f"/proc/{name}/environ").read_bytes()
        except OSError:
            continue
        if str(machine.local._directory).encode() in environment:
            found.append(int(name))
    return found
