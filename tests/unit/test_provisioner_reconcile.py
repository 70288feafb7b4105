"""Commands become deployments, and the loop makes them true: on the memory twins and the fake target."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from base.crypto import CryptoError
from schemas.commands import DeployModel, StopDeployment
from schemas.errors import Unavailable
from schemas.events import CatalogChanged, KeyChanged
from schemas.outcomes import Dead, Done
from state.memory import MemoryCatalog
from storage.memory import memory_store
from storage.ports import Deployments
from tests.console_support import Said, delivery, deploy_model
from tests.state_support import FakeClock
from workers.provisioner.handlers import Handlers
from workers.provisioner.ports import Health
from workers.provisioner.reconcile import Reconciler
from workers.provisioner.settings import ProvisionerSettings
from workers.provisioner.targets.fake import FakeTarget


def open_none(deployment: str, sealed: str) -> str:
    if sealed == "broken":
        raise CryptoError("not ours")
    return sealed


@dataclass(slots=True)
class Room:
    """The room on twins."""

    clock: FakeClock = field(default_factory=FakeClock)
    deployments: Deployments = field(default_factory=lambda: memory_store().deployments)
    local: FakeTarget = field(default_factory=FakeTarget)
    external: FakeTarget = field(default_factory=FakeTarget)
    catalog: MemoryCatalog = field(default_factory=MemoryCatalog)
    said: Said = field(default_factory=Said)
    wakes: int = 0
    loop: Any = None

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """The process died and another one began: only its memory is gone."""
        targets = {"local": self.local, "external": self.external}
        settings = ProvisionerSettings(drain_s=0)
        self.loop = Reconciler(self.deployments, targets, self.catalog, self.said, open_none, self.clock, settings)

    async def order(self, command: DeployModel | StopDeployment) -> Any:
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
    find = room.deployments.find

    async def gone(deployment: str) -> Any:
        raise Unavailable("PostgreSQL is away")

    room.deployments.find = gone  # type: ignore[method-assign]
    await room.looks(1)  # the engine starts, nothing can be written down
    room.deployments.find = find  # type: ignore[method-assign]
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
