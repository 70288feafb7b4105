"""The provisioner with real processes: killed engines, killed provisioners, deaf engines, leftovers."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from base.clock import SystemClock
from base.ids import SystemRandom
from base.pids import alive
from providers.httptools_transport import HttptoolsTransport
from schemas.commands import ScaleDeployment, StopDeployment
from state.memory import MemoryCatalog, MemoryInflight
from storage.memory import memory_store
from tests.console_support import Said, delivery, deploy_model, engine_command, until
from workers.provisioner.fetch import TransportFetch
from workers.provisioner.handlers import Handlers
from workers.provisioner.hands import Hands
from workers.provisioner.ports import Handle, Spec
from workers.provisioner.reconcile import Reconciler
from workers.provisioner.settings import ProvisionerSettings
from workers.provisioner.targets.local import LocalTarget
from workers.provisioner.targets.logs import tail
from workers.provisioner.wishes import wish

SPEC = Spec(deployment="small", name="small", digest="d1", command=engine_command())


class Machine:
    """A provisioner over memory twins that runs real engines."""

    def __init__(self, folder: Path, transport: HttptoolsTransport) -> None:
        self.clock, self.said = SystemClock(), Said()
        self.deployments, self.catalog = memory_store().deployments, MemoryCatalog()
        self.local = LocalTarget(folder / "engines", TransportFetch(transport, 5.0), self.clock, stop_grace_s=2.0)
        self._task: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """A provisioner process starts."""
        settings = ProvisionerSettings(interval_s=0.1, starting_interval_s=0.05, drain_s=0, bad_probes=1)
        hands = Hands(
            deployments=self.deployments,
            targets={"local": self.local},
            catalog=self.catalog,
            inflight=MemoryInflight(self.clock),
            publisher=self.said,
            open_credential=lambda _, sealed: sealed,
            clock=self.clock,
            chance=SystemRandom(),
        )
        loop = Reconciler(hands, settings)
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

    async def state(self, wanted: str) -> str:
        """Wait until the deployment stands so; the reason."""

        async def look() -> tuple[str] | None:
            record = await self.deployments.find("small")
            return (record.reason,) if record is not None and record.state == wanted else None

        found: tuple[str] = await until(look)
        return found[0]

    async def serving(self, number: int) -> dict[int, int]:
        """Wait until exactly so many replicas are ready and published; replica -> pid."""

        async def look() -> tuple[dict[int, int]] | None:
            endpoints = await self.catalog.endpoints("small")
            rows = await self.deployments.replicas("small")
            whole = len(rows) == len(endpoints) == number and all(item.up for item in endpoints)
            ready = whole and all(row.state == "ready" for row in rows)
            return ({row.replica: row.pid for row in rows},) if ready else None

        found: tuple[dict[int, int]] = await until(look)
        return found[0]


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Machine]:
    transport = HttptoolsTransport(SystemClock())
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
    assert "engine starts False" in (tail(log, 100) or [])
    assert log.stat().st_mode & 0o077 == 0


async def test_an_engine_of_the_time_before_replicas_is_the_first_one(machine: Machine, tmp_path: Path) -> None:
    await machine.die()
    marks = {"OWNER": str(tmp_path / "engines"), "DEPLOYMENT": "small", "DIGEST": "d1", "PORT": "1"}
    (tmp_path / "engines").mkdir(exist_ok=True)
    engine = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "import time; time.sleep(60)",
        env={f"HEADRACE_ENGINE_{name}": value for name, value in marks.items()},
        start_new_session=True,
    )

    async def found() -> Sequence[Handle]:
        machine.local._search_at = 0.0
        return await machine.local.running()

    [handle] = await until(found)
    assert (handle.pid, handle.replica, handle.digest) == (engine.pid, 1, "d1")
    await machine.local.stop(handle)
    await engine.wait()


async def test_replicas_run_beside_each_other_and_a_killed_one_comes_back(machine: Machine) -> None:
    await machine.order(replace(LOCAL, replicas=3))
    before = await machine.serving(3)
    assert len(set(before.values())) == 3
    os.kill(before[2], signal.SIGKILL)

    async def another() -> bool:
        now = await machine.serving(3)
        return now[2] != before[2]

    await until(another)
    after = await machine.serving(3)
    assert (after[1], after[3]) == (before[1], before[3])
    [row] = [row for row in await machine.deployments.replicas("small") if row.replica == 2]
    assert row.restarts == 1
    urls = {endpoint.url for endpoint in await machine.catalog.endpoints("small")}
    assert urls == {handle.url for handle in await machine.local.running()}


@pytest.mark.parametrize("engines", [3, 1, 0])
async def test_a_provisioner_that_dies_while_it_scales_goes_on_in_its_next_life(machine: Machine, engines: int) -> None:
    await machine.order(replace(LOCAL, replicas=2))
    before = await machine.serving(2)
    await machine.order(ScaleDeployment(command_id="c2", deployment="small", replicas=engines))
    await machine.die()
    await machine.begin()
    after = await machine.serving(engines)
    assert after.items() >= {key: pid for key, pid in before.items() if key <= engines}.items()
    assert len(await machine.local.running()) == engines


async def test_a_reason_says_how_the_engine_ended(machine: Machine) -> None:
    program = (sys.executable, "-c", "import sys; print('no memory left'); sys.exit(3)")
    await machine.order(replace(LOCAL, command=program, restart="never"))
    assert await machine.state("failed") == "the engine ended (exit code 3); restart: never"
    assert await machine.local.running() == ()


async def test_an_engine_that_is_done_is_not_started_again_on_failure_only(machine: Machine) -> None:
    await machine.order(replace(LOCAL, command=(sys.executable, "-c", ""), restart="on-failure"))
    assert await machine.state("stopped") == "ended by itself (exit code 0)"


async def test_no_engine_that_ended_stays_a_zombie(machine: Machine) -> None:
    await machine.order(LOCAL)
    first = await machine.ready()
    os.kill(first, signal.SIGKILL)
    second = await machine.ready(other_than=first)
    await machine.order(StopDeployment(command_id="s1", deployment="small"))
    await machine.state("stopped")
    assert not {str(first), str(second)} & set(os.listdir("/proc"))


async def test_the_words_of_a_former_life_are_kept_and_told_apart(machine: Machine, tmp_path: Path) -> None:
    await machine.order(LOCAL)
    first = await machine.ready()
    os.kill(first, signal.SIGKILL)
    await machine.ready(other_than=first)
    log = tmp_path / "engines" / "small.log"
    lines = tail(log, 100) or []
    starts = [number for number, line in enumerate(lines) if line.startswith("== headrace: engine starts 20")]
    assert len(starts) == 2
    former = tail(log, 100, previous=True)  # nobody writes there any more; the living one goes on
    assert former and former == lines[: starts[1]]


async def test_an_engine_that_writes_much_keeps_its_log_in_bounds(machine: Machine, tmp_path: Path) -> None:
    await machine.die()
    machine.local._log_bytes = 2_000
    program = "import time\nn = 0\nwhile True: print('line', n := n + 1, flush=True); time.sleep(0.001)"
    handle = await machine.local.start(replace(SPEC, command=(sys.executable, "-c", program)))
    folder, names = tmp_path / "engines", ["small.log", "small.log.1", "small.log.2"]

    async def full() -> bool:
        await machine.local.running()
        return (folder / names[-1]).exists()

    await until(full)
    await machine.local.stop(handle)
    await machine.local.running()
    assert sorted(path.name for path in folder.glob("small*")) == names
    assert all((folder / name).stat().st_size < 50_000 for name in names)
    assert not [path for path in folder.glob("small*") if path.stat().st_mode & 0o077]
    numbers = [int(line.split()[1]) for line in tail(folder / names[0], 10_000) or [] if line.startswith("line ")]
    assert numbers == sorted(numbers) and len(numbers) > 100


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
