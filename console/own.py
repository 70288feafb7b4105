"""Servers of the operator's own: whether they are named, whether they may be used, what to do when not.

Named by REDIS_URL and DATABASE_URL (`redis.url`, `postgres.dsn`), both or neither. Nothing here changes a server.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address
from urllib.parse import urlsplit

from base.clock import SystemClock
from base.ids import SystemRandom
from console.config import Settings
from console.secrets import HOW_KEY, weak_password
from runtime.client import Address, Client
from runtime.topology import server_facts, unsafe
from schemas.errors import HeadraceError
from storage.migrate import status
from storage.setup import OLDEST, RecordFacts, record_facts

_NO_ENTRY = ("SQLSTATE 3D000", "SQLSTATE 28")  # no such database; login or password refused
_NOT_MADE = "correct DATABASE_URL, or let `headrace init` make login and database"
_VARIABLES = {"Redis": "REDIS_URL", "PostgreSQL": "DATABASE_URL"}
_SIGNS = "; in a password / # ? @ are written %2F %23 %3F %40"
_EMBEDDED = "or unset both, and `headrace up` brings servers of its own"


class OwnServerError(HeadraceError):
    """Own servers that cannot be used: every reason on a line of its own, each with its remedy."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))


def are_named(settings: Settings) -> bool:
    """Whether somebody asked for servers of their own. OwnServerError for one without the other, a bad address, or
    secrets that are missing or weak."""
    redis, postgres = "url" in settings.redis.model_fields_set, bool(settings.postgres.dsn)
    if not redis and not postgres:
        return False
    problems = []
    if not redis:
        problems.append(f"DATABASE_URL (postgres.dsn) is set and REDIS_URL (redis.url) is not; set both, {_EMBEDDED}")
    if not postgres:
        problems.append(f"REDIS_URL (redis.url) is set and DATABASE_URL (postgres.dsn) is not; set both, {_EMBEDDED}")
    problems += _addresses(settings)
    if not settings.secrets.keyring.get_secret_value():
        problems.append(f"SECRET_ENCRYPTION_KEY (secrets.keyring) is not set, and own servers need one; {HOW_KEY}")
    if problems:
        raise OwnServerError(problems)
    return True


def _addresses(settings: Settings) -> list[str]:
    """What is wrong with the two addresses; "" is none."""
    found = []
    if "url" in settings.redis.model_fields_set:
        found.append(_redis_problem("redis.url", settings.redis.url))
    found += [_redis_problem(f"redis.urls.{rooms}", url) for rooms, url in settings.redis.urls.items()]
    found += _plain(settings)
    if settings.postgres.dsn:
        found += [_dsn_problem(settings.postgres.dsn), weak_password("postgres.dsn", settings.postgres.dsn)]
    return [problem for problem in found if problem]


def _plain(settings: Settings) -> list[str]:
    """Servers elsewhere that are spoken to without TLS, though nobody said that the way there is safe."""
    r, p = settings.redis, settings.postgres
    found = []
    for name, url in (("redis.url", r.url), *((f"redis.urls.{rooms}", url) for rooms, url in r.urls.items())):
        if url.startswith("redis://") and not _is_here(url) and not r.allow_plaintext:
            found.append(
                f"{name}: prompts and passwords would cross the network in the clear; write rediss:// (TLS), or set "
                "redis.allow_plaintext: true where the way to the server is safe"
            )
    safe = any(f"sslmode={mode}" in p.dsn for mode in ("require", "verify-ca", "verify-full"))
    if p.dsn and not safe and not _is_here(p.dsn) and not p.allow_plaintext:
        found.append(
            "postgres.dsn: the record would cross the network in the clear; add ?sslmode=verify-full (TLS), or set "
            "postgres.allow_plaintext: true where the way to the server is safe"
        )
    return found


def _is_here(url: str) -> bool:
    """Whether an address stays on this machine, or cannot be read (which another check says)."""
    try:
        host = urlsplit(url).hostname or "localhost"
    except ValueError:
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _redis_problem(name: str, url: str) -> str:
    """ "" for an address that can be read, with a password that is none of the first that anybody tries."""
    try:
        Address.parse(url)
    except ValueError:
        return f"{name}: must read redis://user:password@host:port/0, rediss:// (TLS) or unix://{_SIGNS}"
    return weak_password(name, url)


def _dsn_problem(dsn: str) -> str:
    """ "" for an address that names user and database."""
    try:
        parts = urlsplit(dsn)
        whole = parts.scheme in ("postgresql", "postgres") and parts.username and len(parts.path) > 1
    except ValueError:
        whole = None
    return "" if whole else f"postgres.dsn: must read postgresql://user:password@host:port/database{_SIGNS}"


async def problems(settings: Settings) -> list[str]:
    """Why the rooms cannot run on these servers, each with its remedy; empty when they can."""
    return [*await redis_told(settings), *await _told("PostgreSQL", record_problems, settings)]


async def redis_told(settings: Settings) -> list[str]:
    """The half of `problems` about Redis."""
    return await _told("Redis", redis_problems, settings)


async def _told(name: str, look: Callable[[Settings], Awaitable[list[str]]], settings: Settings) -> list[str]:
    try:
        return [f"{name}: {problem}" for problem in await look(settings)]
    except (HeadraceError, ValueError, OSError) as error:
        said = str(error)
    made = not any(state in said for state in _NO_ENTRY)
    remedy = "" if "; " in said else f"; check {_VARIABLES[name]} and the server" if made else f"; {_NOT_MADE}"
    return [f"{'' if said.startswith(name) else f'{name}: '}{said}{remedy}"]


async def redis_problems(settings: Settings) -> list[str]:
    """Of the server that carries the streams. Unavailable when it is away."""
    async with connected(settings) as client:
        return unsafe(await server_facts(client), allow_no_aof=settings.redis.allow_no_aof)


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Client]:
    """One connection to the Redis of the settings. Unavailable when it is away."""
    client = Client(Address.parse(settings.redis.url), SystemClock(), SystemRandom(), name="operator")
    await client.connect()
    try:
        yield client
    finally:
        await client.close()


async def record_problems(settings: Settings) -> list[str]:
    """Of the record, its schema included. Unavailable when it is away."""
    p = settings.postgres
    found = unfit(await record_facts(p.dsn, p.role), p.role)
    waiting = [item.name for item, applied in await status(p.dsn) if not applied]
    if waiting:
        found.append(f"the schema is not current ({', '.join(waiting)}); run `headrace init` or `headrace migrate up`")
    return found


def unfit(facts: RecordFacts, role: str) -> list[str]:
    """Why this server or this login must not be used; each with its remedy."""
    found = []
    if facts.version < OLDEST:
        found.append(f"the server is version {facts.version // 10_000}, older than PostgreSQL 15; upgrade it")
    if facts.standby:
        found.append("the server is a standby and takes no writes; name the primary in DATABASE_URL")
    if not facts.has_role:
        found.append(
            f"the role {role} is not there; run `headrace init` with PG_ADMIN_USER and PG_ADMIN_PASSWORD, or let the "
            f"administrator run: CREATE ROLE {role} NOLOGIN; GRANT {role} TO {facts.login}"
        )
    elif facts.role_mighty:
        found.append(
            f"the role {role} passes row-level security by; let the administrator run "
            f"ALTER ROLE {role} NOSUPERUSER NOBYPASSRLS"
        )
    elif not facts.member:
        found.append(
            f"{facts.login} may not work as {role}; let the administrator run GRANT {role} TO {facts.login}, or run "
            "`headrace init` with PG_ADMIN_USER and PG_ADMIN_PASSWORD"
        )
    return found


def notes(settings: Settings, facts: RecordFacts) -> list[str]:
    """What works and is worth a word."""
    found = []
    if facts.mighty:
        found.append(
            f"{facts.login} of DATABASE_URL passes row-level security by; a login without such rights is safer"
        )
    for name, url in (("REDIS_URL", settings.redis.url), ("DATABASE_URL", settings.postgres.dsn)):
        if urlsplit(url).password is None:
            found.append(f"{name} has no password, whoever reaches that server may do everything; give it one")
    return found
