"""`headrace init`: everything that own servers need before the first `up`, each thing made once and told.

role and database (as PG_ADMIN_USER, where that is given) -> schema -> streams with their groups -> first keys

Whatever is there already stays as it is, so a second run changes nothing. `only_look` makes nothing at all.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from console import first_keys, own
from console.bootstrap import opened, opened_store
from console.config import Settings
from runtime.topology import apply, load, missing
from schemas.errors import HeadraceError, Unavailable
from storage.migrate import migrate, status
from storage.setup import Step, admin_dsn, prepare, record_facts


@dataclass(frozen=True, slots=True)
class Done:
    """One thing that must be there. there: before this run. token: of a key made now, shown this once."""

    name: str
    there: bool
    token: str = ""


class SetupError(HeadraceError):
    """Why it cannot go on and what to do, in one line."""


async def steps(settings: Settings, *, only_look: bool) -> AsyncIterator[Done]:
    """Each thing as it is found or made. SetupError, OwnServerError, and whatever the servers refuse."""
    if not own.are_named(settings):
        raise SetupError("REDIS_URL and DATABASE_URL are not set: `headrace up` needs no init for its own servers")
    if found := await own.redis_told(settings):
        raise own.OwnServerError(found)
    yield Done("Redis is safe to use", True)
    record_there = True
    for step in await _server_steps(settings, only_look=only_look):
        record_there = record_there and step.there
        yield Done(step.name, step.there)
    if only_look and not record_there:
        return  # what lies inside cannot be there
    async for done in _inside(settings, only_look=only_look):
        yield done


async def _server_steps(settings: Settings, *, only_look: bool) -> list[Step]:
    """Roles and database, by the administrator; without one they must be there already."""
    p = settings.postgres
    admin = p.admin_dsn.get_secret_value()
    if p.admin_user:
        admin = admin_dsn(p.dsn, p.admin_user, p.admin_password.get_secret_value())
    try:
        if admin:
            return await prepare(admin, p.dsn, p.role, only_look=only_look)
        facts = await record_facts(p.dsn, p.role)
    except HeadraceError as error:
        raise SetupError(f"{error}; {_REMEDY_ADMIN if admin else _REMEDY_LOGIN}") from None
    problems = own.unfit(facts, p.role)
    if problems and not (facts.makes_roles and not facts.has_role):  # the first migration makes the role then
        raise own.OwnServerError([f"PostgreSQL: {problem}" for problem in problems])
    return [Step(f"database and login {facts.login}", True), Step(f"role {p.role}", facts.has_role)]


_REMEDY_ADMIN = "PG_ADMIN_USER must be let in on the server of DATABASE_URL and may create roles and databases"
_REMEDY_LOGIN = "set PG_ADMIN_USER and PG_ADMIN_PASSWORD to make login and database, or correct DATABASE_URL"


async def _inside(settings: Settings, *, only_look: bool) -> AsyncIterator[Done]:
    """Schema, streams and keys."""
    dsn = settings.postgres.dsn
    try:
        migrations = await status(dsn)
    except Unavailable as error:  # the login was there already, with another password, or may not come from here
        raise SetupError(f"the login of DATABASE_URL is not let in: {error}; correct its password there") from None
    facts = await record_facts(dsn, settings.postgres.role)
    if not facts.makes_tables and not all(applied for _, applied in migrations):
        raise SetupError(
            f"PostgreSQL: {facts.login} may not make tables here; let the administrator make it the owner of the "
            f"database, or run GRANT CREATE ON SCHEMA public TO {facts.login}"
        )
    for migration, applied in migrations:
        if not applied and not only_look:
            await migrate(dsn, only=migration.number)
        yield Done(f"migration {migration.name}", applied)
    if problems := own.unfit(await record_facts(dsn, settings.postgres.role), settings.postgres.role):
        raise own.OwnServerError([f"PostgreSQL: {problem}" for problem in problems])
    async for done in _streams(settings, only_look=only_look):
        yield done
    async for done in _keys(settings, only_look=only_look):
        yield done


async def _streams(settings: Settings, *, only_look: bool) -> AsyncIterator[Done]:
    topology = load()
    async with own.connected(settings) as redis:
        absent = await missing(topology, settings.partitions, redis)
        done = [] if only_look else await apply(topology, settings.partitions, redis)
    for _, key, groups in topology.keys(settings.partitions):
        for group in groups:
            name = f"{group} on {key}"
            yield Done(f"group {name}", name not in absent)
    for change in done:
        if not change.startswith("created"):  # a group of an older version, which would hold back trimming
            yield Done(change, False)


async def _keys(settings: Settings, *, only_look: bool) -> AsyncIterator[Done]:
    internal = settings.secrets.internal_api_key.get_secret_value()
    async with opened(settings) as context, opened_store(settings) as store:
        try:
            absent = await first_keys.missing(store, context, internal)
        except Unavailable:
            if not only_look:
                raise
            absent = list(_wanted(internal))  # no schema to keep keys in yet
        made = {} if only_look else await first_keys.make(store, context, internal)
    for name in _wanted(internal):
        token = "" if name == first_keys.INTERNAL else made.get(name, "")
        yield Done(name, name not in absent, token)


def _wanted(internal: str) -> Iterable[str]:
    return first_keys.APPLICATION, first_keys.INTERNAL if internal else first_keys.OPERATOR_KEY
