"""Commands become deployments, and the loop makes them true: on the memory twins and the fake target."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from base.crypto import CryptoError
from schemas.commands import DeployModel, ScaleDeployment, StopDeployment
from schemas.errors import Unavailable
from schemas.events import CatalogChanged, KeyChanged
from schemas.outcomes import Dead, Done
from state.inflight import Report
from state.memory import MemoryCatalog, MemoryInflight
from storage.memory import memory_store
from storage.ports import Deployments
from tests.console_support import Said, delivery, deploy_model
from tests.state_support import FakeClock
from workers.provisioner.handlers import Handlers
from workers.provisioner.hands import Hands
from workers.provisioner.ports import Health
from workers.provisioner.reconcile import Reconciler
from workers.provisioner.settings import ProvisionerSettings
from workers.provisioner.targets.fake import FakeTarget


def open_none(deployment: str, sealed: str) -> str:
    if sealed == "broken":
        raise CryptoError("not ours")
    return sealed


class Steady:
    """Chance that shortens no pause."""

    def bytes(self, count: int) -> bytes:
        return bytes(count)

    def uniform(self, low: float, high: float) -> float:
        return low


@dataclass(slots=True)
class Room:
    """The room on twins."""

    clock: FakeClock = field(default_factory=FakeClock)
    deployments: Deployments = field(default_factory=lambda: memory_store().deployments)
    local: FakeTarget = field(default_factory=FakeTarget)
    external: FakeTarget = field(default_factory=FakeTarget)
    catalog: MemoryCatalog = field(default_factory=MemoryCatalog)
    said: Said = field(default_factory=Said)
    drain_s: float = 0
    wakes: int = 0
    loop: Any = None
    inflight: Any = None

    def __post_init__(self) -> None:
        self.inflight = MemoryInflight(self.clock)
        self.restart()

    def restart(self) -> None:
        """The process died and another one began: only its memory is gone."""
        hands = Hands(
            deployments=self.deployments,
            targets={"local": self.local, "external": self.external},
            catalog=self.catalog,
            inflight=self.inflight,
            publisher=self.said,
            open_credential=open_none,
            clock=self.clock,
            chance=Steady(),
        )
        self.loop = Reconciler(hands, ProvisionerSettings(drain_s=self.drain_s))

    async def order(self, command: DeployModel | ScaleDeployment | StopDeployment) -> Any:
        handlers = Handlers(self.deployments, self.clock, self._wake)
        return (await handlers.handle([delivery(command)]))[0]

    async def looks(self, count: int = 3) -> None:
        for _ in range(count):
            await self.loop.look()
            self.clock.advance(1)

    async def state(self, deployment: str = "small") -> tuple[str, str]:
        record = await self.deployments.find(deployment)
        assert record is not None
        return record.state, record.reason

    async def scale(self, replicas: int, command_id: str) -> None:
        await self.order(ScaleDeployment(command_id=command_id, deployment="small", replicas=replicas))

    async def up(self, pool: str = "small") -> list[str]:
        """The endpoints that routers may choose."""
        return [item.endpoint for item in await self.catalog.endpoints(pool) if item.up]

    async def use(self, **used: int) -> None:
        """A router reports what it has in flight (`small_2` is the endpoint small/2)."""
        names = {name.replace("_", "/"): number for name, number in used.items()}
        await self.inflight.report("r1", Report(at_ms=self.clock.now_ms(), used=names))

    def _wake(self) -> None:
        self.wakes += 1


LOCAL = deploy_model(target="local", url="", command=("engine",))


async def test_a_command_leads_to_an_engine_an_endpoint_and_a_model() -> None:
    room = Room()
    assert await room.order(LOCAL) == Done()
    assert room.wakes == 1
    await room.looks()
    assert await room.state() == ("ready", "")
    [endpoint] = await room.catalog.endpoints("small")
    assert (endpoint.endpoint, endpoint.up, endpoint.url) == ("small", True, "http://fake/small/v1")
    assert [model.name for model in await room.catalog.models()] == ["small"]
    assert room.said.events[0][:2] == ("control", CatalogChanged(pool="small"))


async def test_the_same_command_twice_is_one_deployment() -> None:
    room = Room()
    await room.order(LOCAL)
    await room.looks()
    await room.order(StopDeployment(command_id="s1", deployment="small"))
    await room.looks()
    assert await room.order(LOCAL) == Done()  # redelivered late: it must not come back to life
    await room.looks()
    assert (await room.state())[0] == "stopped"
    assert room.local.started == ["small"]


async def test_a_command_whose_worker_died_half_way_is_carried_out_again() -> None:
    room = Room()
    await room.deployments.begin("c1", "DeployModel", "small", 1)  # begun, and then nothing
    await room.order(LOCAL)
    await room.looks()
    assert (await room.state())[0] == "ready"
    assert len(await room.deployments.list()) == 1


async def test_stopping_takes_the_model_away_before_its_engine() -> None:
    room = Room()
    await room.order(LOCAL)
    await room.looks()
    await room.order(StopDeployment(command_id="s1", deployment="small"))
    await room.looks(1)
    assert await room.catalog.models() == ()
    assert await room.catalog.endpoints("small") == ()
    await room.looks()
    assert room.local.stopped == ["small"]
    assert await room.state() == ("stopped", "stopped by command")


async def test_a_model_that_another_deployment_serves_stays() -> None:
    room = Room()
    await room.order(LOCAL)
    await room.order(deploy_model("c2", deployment="second"))
    await room.looks()
    await room.order(StopDeployment(command_id="s1", deployment="small"))
    await room.looks()
    assert [model.name for model in await room.catalog.models()] == ["small"]
    assert [endpoint.endpoint for endpoint in await room.catalog.endpoints("small")] == ["second"]


async def test_stopping_what_is_not_there_is_done() -> None:
    assert await Room().order(StopDeployment(command_id="s1", deployment="nobody")) == Done()


async def test_an_event_that_is_no_command_is_poison() -> None:
    assert isinstance(await Room().order(KeyChanged(key_id="k")), Dead)  # type: ignore[arg-type]


async def test_an_engine_that_died_is_marked_down_and_started_again() -> None:
    room = Room()
    await room.order(LOCAL)
    await room.looks()
    room.local.die("small")
    await room.looks(1)
    [endpoint] = await room.catalog.endpoints("small")
    assert not endpoint.up
    await room.looks()
    [endpoint] = await room.catalog.endpoints("small")
    assert endpoint.up
    assert room.local.started == ["small", "small"]


async def test_a_restarted_provisioner_adopts_what_runs() -> None:
    room = Room()
    await room.order(LOCAL)
    await room.looks()
    room.restart()
    await room.looks()
    assert room.local.started == ["small"]
    assert (await room.state())[0] == "ready"


async def test_a_crash_between_start_and_record_leaves_no_second_engine() -> None:
    room = Room()
    await room.order(LOCAL)
    put = room.deployments.put_replica

    async def gone(record: object) -> Any:
        raise Unavailable("PostgreSQL is away")

    room.deployments.put_replica = gone  # type: ignore[method-assign]
    await room.looks(1)  # the engine starts, nothing can be written down
    assert (room.local.started, await room.deployments.replicas()) == (["small"], [])
    room.deployments.put_replica = put  # type: ignore[method-assign]
    room.restart()
    await room.looks()
    assert room.local.started == ["small"]
    assert (await room.state())[0] == "ready"


async def test_an_engine_nobody_asked_for_is_ended() -> None:
    room = Room()
    await room.order(LOCAL)
    await room.looks()
    await room.deployments.remove("small")
    await room.looks(1)
    assert room.local.stopped == ["small"]


async def test_an_engine_that_cannot_start_fails_with_the_reason() -> None:
    room = Room()
    room.local.refuse = "'engine' is not a program on this machine's PATH"
    await room.order(LOCAL)
    await room.looks(1)
    assert await room.state() == ("failed", room.local.refuse)
    room.local.refuse = ""
    await room.looks(5)
    assert (await room.state())[0] == "ready"


async def test_an_endpoint_goes_down_and_comes_up_with_its_health() -> None:
    room = Room()
    await room.order(deploy_model())
    await room.looks()
    room.external.health["small"] = Health(up=False, reason="GET /models answered 503")
    await room.looks(4)
    assert await room.state() == ("failed", "GET /models answered 503")
    assert [endpoint.up for endpoint in await room.catalog.endpoints("small")] == [False]
    del room.external.health["small"]
    await room.looks(1)
    assert [endpoint.up for endpoint in await room.catalog.endpoints("small")] == [True]


async def test_a_silent_endpoint_is_looked_at_again_at_once_so_it_is_out_within_the_interval() -> None:
    room = Room()
    settings = ProvisionerSettings()
    await room.order(deploy_model())
    await room.looks()
    room.external.health["small"] = Health(up=False, reason="connection refused")
    began = room.clock.monotonic()
    await room.loop.look()
    while (await room.catalog.endpoints("small"))[0].up:
        assert room.loop.pause() == settings.starting_interval_s
        room.clock.advance(room.loop.pause())
        await room.loop.look()
    assert room.clock.monotonic() - began < settings.interval_s
    await room.loop.look()
    assert room.loop.pause() == settings.interval_s, "a failed one is no suspicion any more"


async def test_a_lost_catalog_is_published_again() -> None:
    room = Room()
    await room.order(deploy_model())
    await room.looks()
    await room.catalog.withdraw(["small"], ["small"])
    room.clock.advance(31)
    await room.looks(1)
    assert [model.name for model in await room.catalog.models()] == ["small"]


async def test_publishing_is_repeated_until_redis_is_back() -> None:
    room = Room()
    await room.order(deploy_model())
    room.said.fail = Unavailable("Redis is away")
    await room.looks()
    room.said.fail = None
    await room.looks()
    assert (await room.state())[0] == "ready"
    assert room.said.kinds() == ["CatalogChanged"]


async def test_health_goes_on_while_postgresql_is_away() -> None:
    room = Room()
    await room.order(deploy_model())
    await room.looks()

    async def gone() -> Any:
        raise Unavailable("PostgreSQL is away")

    room.deployments.list = gone  # type: ignore[method-assign]
    room.external.health["small"] = Health(up=False, reason="down")
    await room.looks(4)
    assert [endpoint.up for endpoint in await room.catalog.endpoints("small")] == [False]


async def test_an_unknown_target_fails_with_those_known() -> None:
    room = Room()
    await room.order(deploy_model(target="moon"))
    await room.looks(1)
    assert await room.state() == ("failed", "unknown target 'moon'; known here: external, local")


async def test_a_credential_of_another_key_ring_is_said_and_never_sent() -> None:
    room = Room()
    await room.order(deploy_model(credential="broken"))
    await room.looks()
    state, reason = await room.state()
    assert state == "failed"
    assert "add the model again with its key" in reason


@pytest.mark.parametrize("changed", [{"command": ("other",)}, {"name": "big"}])
async def test_another_wish_replaces_the_engine(changed: dict[str, Any]) -> None:
    room = Room()
    await room.order(LOCAL)
    await room.looks()
    await room.order(deploy_model("c2", **{"target": "local", "url": "", "command": ("engine",), **changed}))
    await room.looks(4)
    assert (room.local.stopped, len(room.local.started)) == (["small"], 2)
    assert (await room.state())[0] == "ready"


# --- replicas ---------------------------------------------------------------------------------------------------------


async def test_scaling_up_and_down_is_engines_endpoints_and_rows() -> None:
    room = Room()
    await room.order(LOCAL)
    await room.scale(3, "c2")
    await room.looks()
    assert await room.up() == ["small", "small/2", "small/3"]
    assert await room.state() == ("ready", "")
    rows = await room.deployments.replicas("small")
    assert [(row.replica, row.state, row.url) for row in rows] == [
        (1, "ready", "http://fake/small/v1"),
        (2, "ready", "http://fake/small/2/v1"),
        (3, "ready", "http://fake/small/3/v1"),
    ]
    await room.scale(1, "c3")
    await room.looks()
    assert (await room.up(), sorted(room.local.stopped)) == (["small"], ["small/2", "small/3"])
    assert [row.replica for row in await room.deployments.replicas("small")] == [1]
    assert room.local.started == ["small", "small/2", "small/3"]


async def test_a_scale_command_that_comes_late_again_changes_nothing() -> None:
    room = Room()
    await room.order(LOCAL)
    await room.scale(2, "c2")
    await room.scale(1, "c3")
    await room.scale(2, "c2")
    await room.looks()
    assert await room.up() == ["small"]


async def test_more_looks_change_nothing() -> None:
    room = Room()
    await room.order(deploy_model(target="local", url="", command=("engine",), replicas=2))
    await room.looks()
    before, told = list(await room.deployments.replicas()), len(room.said.events)
    await room.looks(5)
    assert (list(await room.deployments.replicas()), len(room.said.events)) == (before, told)
    assert room.local.started == ["small", "small/2"]


async def test_a_paused_model_stays_known_without_an_engine() -> None:
    room = Room()
    await room.order(LOCAL)
    await room.scale(0, "c2")
    await room.looks()
    assert await room.state() == ("paused", "scaled to 0 replicas")
    assert (await room.up(), [model.name for model in await room.catalog.models()]) == ([], ["small"])
    await room.catalog.withdraw(["small"], ())
    room.clock.advance(31)
    await room.looks(1)
    assert [model.name for model in await room.catalog.models()] == ["small"]  # Redis had lost it
    await room.scale(1, "c3")
    await room.looks()
    assert (await room.up(), await room.state()) == (["small"], ("ready", ""))


async def test_a_surplus_replica_is_not_ended_while_a_request_runs_there() -> None:
    room = Room(drain_s=300)
    await room.order(LOCAL)
    await room.scale(2, "c2")
    await room.looks()
    await room.scale(1, "c3")
    for _ in range(20):
        await room.use(small=5, small_2=1)
        await room.looks(1)
    assert (await room.up(), room.local.stopped) == (["small"], [])
    [_, second] = await room.deployments.replicas("small")
    assert (second.state, second.reason) == ("draining", "1 request still runs")
    await room.use(small=5)
    await room.looks(1)
    assert room.local.stopped == ["small/2"]


async def test_a_surplus_replica_is_ended_when_its_time_is_over() -> None:
    room = Room(drain_s=10)
    await room.order(LOCAL)
    await room.scale(2, "c2")
    await room.looks()
    await room.scale(1, "c3")
    for _ in range(10):
        await room.use(small_2=1)
        await room.looks(1)
    assert room.local.stopped == []
    await room.use(small_2=1)
    await room.looks(1)
    assert room.local.stopped == ["small/2"]


async def test_nobody_is_ended_because_redis_is_away() -> None:
    room = Room(drain_s=300)
    await room.order(LOCAL)
    await room.scale(2, "c2")
    await room.looks()
    await room.scale(1, "c3")
    await room.looks(1)

    async def gone(endpoint: str, since_ms: int) -> Any:
        raise Unavailable("Redis is away")

    room.inflight.use = gone
    await room.looks(5)
    assert room.local.stopped == []


async def test_a_drain_goes_on_after_the_provisioner_died() -> None:
    room = Room(drain_s=300)
    await room.order(LOCAL)
    await room.scale(3, "c2")
    await room.looks()
    await room.use(small_2=1)
    await room.scale(1, "c3")
    await room.looks(1)
    room.restart()
    for _ in range(5):
        await room.use(small_2=1)
        await room.looks(1)
    assert (await room.up(), room.local.stopped) == (["small"], ["small/3"])
    await room.use()
    await room.looks()
    assert room.local.stopped == ["small/3", "small/2"]


async def test_stop_now_ends_a_drain() -> None:
    room = Room(drain_s=300)
    await room.order(LOCAL)
    await room.looks()
    await room.order(StopDeployment(command_id="s1", deployment="small"))
    for _ in range(3):
        await room.use(small=1)
        await room.looks(1)
    assert await room.state() == ("stopping", "replica 1 drains: 1 request still runs")
    await room.order(StopDeployment(command_id="s2", deployment="small", now=True))
    await room.looks()
    assert (await room.state(), room.local.stopped) == (("stopped", "stopped by command"), ["small"])


async def test_others_serve_while_a_replica_is_started_again() -> None:
    room = Room()
    await room.order(deploy_model(target="local", url="", command=("engine",), replicas=2))
    await room.looks()
    room.local.health["small/2"] = Health(up=False, reason="still loading")
    room.local.die("small/2", -9)
    await room.looks()
    assert await room.up() == ["small"]
    assert await room.state() == ("ready", "1 of 2 replicas are ready; replica 2: still loading")
    del room.local.health["small/2"]
    await room.looks()
    assert (await room.up(), await room.state()) == (["small", "small/2"], ("ready", ""))
    assert [row.restarts for row in await room.deployments.replicas("small")] == [0, 1]


async def test_another_wish_is_rolled_out_one_replica_after_the_other() -> None:
    room = Room()
    await room.order(deploy_model(target="local", url="", command=("engine",), replicas=2))
    await room.looks()
    room.local.health["small"] = Health(up=False, reason="still loading")
    await room.order(deploy_model("c2", target="local", url="", command=("other",), replicas=2))
    await room.looks(5)
    assert (await room.up(), room.local.stopped) == (["small/2"], ["small"])
    del room.local.health["small"]
    await room.looks(5)
    assert (await room.up(), room.local.stopped) == (["small", "small/2"], ["small", "small/2"])
    assert (await room.state(), len(room.local.started)) == (("ready", ""), 4)


async def test_never_leaves_a_crashed_engine_alone_even_after_a_restart_of_the_provisioner() -> None:
    room = Room()
    await room.order(deploy_model(target="local", url="", command=("engine",), restart="never"))
    await room.looks()
    room.local.die("small", 3)
    await room.looks()
    assert await room.state() == ("failed", "the engine ended (exit code 3); restart: never")
    room.restart()
    await room.looks()
    assert (room.local.started, await room.up()) == (["small"], [])
    await room.scale(1, "c2")  # the next command tries again
    await room.looks()
    assert (await room.state(), await room.up()) == (("ready", ""), ["small"])


async def test_on_failure_takes_exit_code_0_for_done() -> None:
    room = Room()
    await room.order(deploy_model(target="local", url="", command=("engine",), restart="on-failure"))
    await room.looks()
    room.local.die("small", 1)
    await room.looks(5)
    assert await room.state() == ("ready", "")
    room.local.die("small", 0)
    await room.looks()
    assert await room.state() == ("stopped", "ended by itself (exit code 0)")
    assert (await room.catalog.models(), await room.deployments.replicas()) == ((), [])


async def test_a_row_from_before_replicas_is_adopted_as_one_engine() -> None:
    room = Room()
    await room.order(LOCAL)
    await room.looks()
    await room.deployments.remove_replica("small", 1)  # as an older version left it: no rows of replicas
    room.restart()
    await room.looks()
    assert (room.local.started, await room.state()) == (["small"], ("ready", ""))


async def test_a_state_is_not_written_over_a_command_that_came_meanwhile() -> None:
    room = Room()
    await room.order(LOCAL)
    await room.loop._read()
    await room.order(StopDeployment(command_id="s1", deployment="small"))
    [planned] = room.loop._records
    await room.loop._one(planned, ())
    assert (await room.state())[0] == "stopping"


async def test_an_engine_that_dies_while_postgresql_is_away_is_started_again() -> None:
    room = Room()
    await room.order(LOCAL)
    await room.looks()

    async def gone(*_: object) -> Any:
        raise Unavailable("PostgreSQL is away")

    for name in ("list", "replicas", "put_replica", "set_state"):
        setattr(room.deployments, name, gone)
    room.local.die("small")
    await room.looks()
    assert (room.local.started, await room.up()) == (["small", "small"], ["small"])
    room.loop._woken.clear()
    await room.looks()
    assert not room.loop._woken.is_set()  # and the loop does not spin
    for name in ("list", "replicas", "put_replica", "set_state"):
        delattr(room.deployments, name)
    await room.looks()
    [row] = await room.deployments.replicas()
    assert (row.state, row.pid) == ("ready", 2)


async def test_a_url_that_never_answers_fails_in_time_and_is_ready_when_it_answers() -> None:
    room = Room()
    room.external.health["small"] = Health(up=False, reason="connection refused")
    await room.order(deploy_model())
    await room.looks()
    assert await room.state() == ("starting", "connection refused")
    room.clock.advance(601)
    await room.looks(1)
    assert await room.state() == ("failed", "no answer within 600 s (connection refused)")
    room.restart()  # a new provisioner does not take it for a fresh start
    await room.looks()
    assert (await room.state())[0] == "failed"
    del room.external.health["small"]
    await room.looks(1)
    assert (await room.state(), await room.up()) == (("ready", ""), ["small"])


async def test_an_engine_that_never_answers_is_restarted_or_left_as_its_policy_says() -> None:
    for restart, state in (("always", "ready"), ("never", "failed")):
        room = Room()
        room.local.health["small"] = Health(up=False, reason="connection refused")
        await room.order(deploy_model(target="local", url="", command=("engine",), restart=restart))
        await room.looks()
        room.clock.advance(601)
        await room.looks(1)
        assert room.local.stopped == ["small"]
        del room.local.health["small"]
        await room.looks()
        assert (await room.state())[0] == state
        assert len(room.local.started) == (2 if restart == "always" else 1)
