"""Promises of storage.ports.Deployments and Catalog: the twins and PostgreSQL."""

from __future__ import annotations

from dataclasses import replace

from schemas.records import EndpointRecord, ModelRecord, ReplicaRecord
from storage.ports import Store
from tests.storage_support import DEPLOYMENT

MODEL = ModelRecord(name="small", pool="small", created=1)
REPLICA = ReplicaRecord(
    deployment="d1", replica=1, command_id="c1", state="ready", url="http://x/v1", pid=7, updated_ms=5
)
ENDPOINT = EndpointRecord(endpoint="e1", deployment="d1", pool="small", model="small", url="http://127.0.0.1:1/v1")


async def test_a_deployment_is_found_as_it_was(store: Store) -> None:
    await store.deployments.put(DEPLOYMENT)
    assert await store.deployments.find("d1") == DEPLOYMENT
    assert await store.deployments.find("d2") is None


async def test_putting_again_replaces_all_but_the_birth(store: Store) -> None:
    await store.deployments.put(DEPLOYMENT)
    again = replace(DEPLOYMENT, command_id="c2", slots=9, on_disconnect="finish", created_ms=5, updated_ms=2_000)
    await store.deployments.put(again)
    assert await store.deployments.find("d1") == replace(again, created_ms=1_000)


async def test_deployments_are_listed_oldest_first(store: Store) -> None:
    old = replace(DEPLOYMENT, deployment="d0", command_id="c0", created_ms=1)
    await store.deployments.put(DEPLOYMENT)
    await store.deployments.put(old)
    assert list(await store.deployments.list()) == [old, DEPLOYMENT]


async def test_a_state_comes_with_its_reason_and_process(store: Store) -> None:
    await store.deployments.put(DEPLOYMENT)
    moved = await store.deployments.set_state("d1", "failed", "exit code 1", 2_000, pid=42)
    assert moved == replace(DEPLOYMENT, state="failed", reason="exit code 1", updated_ms=2_000, pid=42)
    assert await store.deployments.set_state("d9", "ready", "", 1) is None


async def test_a_state_of_an_older_command_is_not_written(store: Store) -> None:
    await store.deployments.put(DEPLOYMENT)
    assert await store.deployments.set_state("d1", "ready", "", 2_000, command_id="c0") is None
    assert await store.deployments.find("d1") == DEPLOYMENT
    moved = await store.deployments.set_state("d1", "ready", "", 2_000, command_id="c1")
    assert moved is not None and moved.state == "ready"


async def test_replicas_are_put_replaced_listed_and_forgotten(store: Store) -> None:
    await store.deployments.put(DEPLOYMENT)
    await store.deployments.put(replace(DEPLOYMENT, deployment="d0", command_id="c0"))
    second, other = replace(REPLICA, replica=2, reason="exit code 1"), replace(REPLICA, deployment="d0")
    for record in (second, REPLICA, other, replace(REPLICA, state="failed", restarts=3)):
        await store.deployments.put_replica(record)
    assert await store.deployments.replicas("d1") == [replace(REPLICA, state="failed", restarts=3), second]
    assert [row.deployment for row in await store.deployments.replicas()] == ["d0", "d1", "d1"]
    await store.deployments.remove_replica("d1", 2)
    await store.deployments.remove_replica("d1", 2)
    assert [row.replica for row in await store.deployments.replicas("d1")] == [1]


async def test_replicas_go_with_their_deployment_and_never_come_without(store: Store) -> None:
    await store.deployments.put(DEPLOYMENT)
    await store.deployments.put_replica(REPLICA)
    await store.deployments.remove("d1")
    await store.deployments.put_replica(REPLICA)
    assert await store.deployments.replicas() == []


async def test_a_removed_deployment_is_gone_and_may_be_removed_again(store: Store) -> None:
    await store.deployments.put(DEPLOYMENT)
    await store.deployments.remove("d1")
    await store.deployments.remove("d1")
    assert list(await store.deployments.list()) == []


async def test_a_command_is_new_once_then_begun_until_it_is_done(store: Store) -> None:
    begin = store.deployments.begin
    assert await begin("c1", "DeployModel", "d1", 1) == "new"
    assert await begin("c1", "DeployModel", "d1", 2) == "begun"
    await store.deployments.finish("c1", 3)
    await store.deployments.finish("c1", 4)
    assert await begin("c1", "DeployModel", "d1", 5) == "done"
    assert await begin("c2", "DeployModel", "d1", 5) == "new"


async def test_models_and_endpoints_are_put_replaced_and_listed(store: Store) -> None:
    other = replace(ENDPOINT, endpoint="e0", pool="large", credential="sealed")
    await store.catalog.put([MODEL], [ENDPOINT, other])
    await store.catalog.put([replace(MODEL, pool="large")], [replace(ENDPOINT, up=False)])
    assert list(await store.catalog.models()) == [replace(MODEL, pool="large")]
    assert list(await store.catalog.endpoints()) == [other, replace(ENDPOINT, up=False)]
    assert list(await store.catalog.endpoints("large")) == [other]


async def test_removed_models_and_endpoints_are_gone(store: Store) -> None:
    await store.catalog.put([MODEL], [ENDPOINT])
    await store.catalog.remove(["small", "unknown"], ["e1", "unknown"])
    assert list(await store.catalog.models()) == []
    assert list(await store.catalog.endpoints()) == []
