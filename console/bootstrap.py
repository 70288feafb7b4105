"""What `headrace up` does around the rooms: `prepare` before they run, `finish` once they are ready.

prepare   check the server, migrate the database, apply the topology
finish    make the first keys, publish DeployModel for every desired model, wait until each is healthy

Both are idempotent: a second `up` changes nothing that stands. On servers of the operator's own, schema and keys are
the business of `headrace init`: here they are only looked at.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from base.clock import SystemClock
from base.crypto import KeyRing
from base.ids import SystemRandom
from console import first_keys, own
from console.config import Settings, load
from console.desks import make_model_desk
from console.embedded import engine, minilm
from console.entries import ModelEntry
from console.stack import Access, Plan, Say
from runtime.app import Context
from runtime.topology import load as load_topology
from runtime.topology import make_ready
from schemas.errors import HeadraceError
from schemas.records import DeploymentRecord
from storage.migrate import migrate
from storage.pool import open_pool
from storage.ports import Store
from storage.setup import record_facts
from storage.store import postgres_store

_WAIT_S = 120.0  # for a model to become healthy
_STANDS = ("ready", "paused")


class BootstrapError(HeadraceError):
    """`up` cannot go on; the text says what to do."""


def prepare(plan: Plan, say: Say) -> None:
    """Before the rooms: the servers must be safe, the schema current, the groups there. BootstrapError."""
    asyncio.run(_prepare(plan, _settings(plan), say))


def finish(plan: Plan, say: Say) -> Access:
    """After the rooms: keys and models. BootstrapError when a model does not become healthy."""
    return asyncio.run(_finish(plan, _settings(plan), say))


def _settings(plan: Plan) -> Settings:
    return load(plan.source.file, overrides=plan.source.overrides)


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Context]:
    """Connected to Redis as the house itself; closed at the end. Unavailable."""
    ring = KeyRing.parse(settings.secrets.keyring.get_secret_value())
    context = await Context.open(
        settings.redis, "bootstrap", SystemClock(), SystemRandom(), ring, load_topology(), settings.partitions
    )
    try:
        yield context
    finally:
        await context.close()


@asynccontextmanager
async def opened_store(settings: Settings) -> AsyncIterator[Store]:
    """The record, as the service's role; closed at the end."""
    p = settings.postgres
    pool = await open_pool(p.dsn, size=1, role=p.role)
    try:
        yield postgres_store(pool)
    finally:
        await pool.close()


async def _prepare(plan: Plan, settings: Settings, say: Say) -> None:
    if plan.own:
        await _check_own(settings, say)
    elif settings.runs.strict.is_asked and (found := await own.redis_problems(settings)):
        raise BootstrapError("; ".join(found))
    async with opened(settings) as context:
        allowed = settings.redis.allow_no_aof
        done = await make_ready(context.topology, settings.partitions, context.redis, allow_no_aof=allowed)
        if not plan.own:
            for name in await migrate(settings.postgres.dsn):
                say(f"Database: {name}")
        if done:
            say(f"Topology: {len(done)} group changes")


async def _check_own(settings: Settings, say: Say) -> None:
    """OwnServerError with every reason at once."""
    if found := await own.problems(settings):
        raise own.OwnServerError(found)
    for note in own.notes(settings, await record_facts(settings.postgres.dsn, settings.postgres.role)):
        say(f"Note: {note}")


async def _finish(plan: Plan, settings: Settings, say: Say) -> Access:
    async with opened(settings) as context, opened_store(settings) as store:
        api, admin = await _keys(plan, settings, context, store)
        wanted = _wanted(plan, settings)
        await make_model_desk(context, store).apply(wanted, prune=plan.prune)
        records = await _healthy(store, wanted, say)
    pids = {f"model:{record.name}": record.pid for record in records if record.pid}
    return Access(api, admin, tuple(dict.fromkeys(entry.name for entry in wanted)), pids)


async def _keys(plan: Plan, settings: Settings, context: Context, store: Store) -> tuple[str, str]:
    """Tokens for applications and for the operator, as far as they are known here."""
    internal = settings.secrets.internal_api_key.get_secret_value()
    made = {} if plan.own else await first_keys.make(store, context, internal)
    admin = internal or made.get(first_keys.OPERATOR_KEY, "")
    return made.get(first_keys.APPLICATION, "") or plan.known_api_key, admin or plan.known_admin_key


# --- models ----------------------------------------------------------------------------------------------------------


def _wanted(plan: Plan, settings: Settings) -> list[ModelEntry]:
    """Desired models: headrace.yaml, then --engine, then the local ones."""
    wanted = list(settings.models)
    for name, url in plan.engines:
        same = sum(entry.name == name for entry in wanted)
        deployment = f"{name}-{same + 1}" if same else ""
        wanted.append(ModelEntry(name=name, url=url, deployment=deployment, pool=name, slots=1024, private=True))
    if plan.local_model:
        command = tuple(engine.command())
        wanted.append(ModelEntry(name=plan.local_model, command=command, slots=4))
    if plan.local_embedder:
        command = tuple(minilm.command())
        wanted.append(ModelEntry(name=plan.local_embedder, command=command, slots=minilm.SLOTS))
    return wanted


async def _healthy(store: Store, wanted: list[ModelEntry], say: Say) -> list[DeploymentRecord]:
    """Wait until every wanted deployment is ready, or paused as asked. BootstrapError: why one failed or is late."""
    clock = SystemClock()
    until = clock.monotonic() + _WAIT_S
    told: set[str] = set()
    while True:
        found = {record.deployment: record for record in await store.deployments.list()}
        late = [entry for entry in wanted if entry.id not in found or found[entry.id].state not in _STANDS]
        for entry in wanted:
            if entry not in late and entry.id not in told:
                told.add(entry.id)
                say(f"Model {entry.name} is {found[entry.id].state}")
        if not late:
            return [found[entry.id] for entry in wanted]
        record = found.get(late[0].id)
        if record is not None and record.state == "failed":
            raise BootstrapError(f"model {record.name}: {record.reason}")
        if clock.monotonic() > until:
            reason = record.reason if record else "no provisioner took the command"
            raise BootstrapError(f"model {late[0].name} is not ready after {_WAIT_S:.0f} s: {reason}")
        await clock.sleep(0.1)
