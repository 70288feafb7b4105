"""Where the server is, from one URL.

redis://user:password@host:port/db            one server; rediss:// with TLS
unix://user:password@/path?db=0               the same through a socket
redis+sentinel://user:password@host:port,host:port/master/db?sentinel_username=..&sentinel_password=..
                                              the server that these Sentinels call `master`; rediss+sentinel://
                                              with TLS to both. Credentials before @ are the server's.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qs, unquote

from redis.asyncio.connection import parse_url

_SENTINEL = {"redis+sentinel": False, "rediss+sentinel": True}  # scheme -> with TLS
_SENTINEL_PORT = 26379
SENTINEL_SHAPE = "redis+sentinel://USER:PASSWORD@HOST:26379,HOST:26379/MASTER/0"


@dataclass(frozen=True, slots=True)
class Watcher:
    """One Sentinel."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarded:
    """A master by its name, and the Sentinels who know where it is. Credentials are theirs, not the server's."""

    name: str
    sentinels: tuple[Watcher, ...]
    username: str = ""
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is: TCP or unix socket, credentials, TLS. guarded: Sentinel knows its host and port."""

    host: str
    port: int
    path: str
    username: str
    password: str = field(repr=False)
    tls: bool
    db: int
    guarded: Guarded | None = None

    @classmethod
    def parse(cls, url: str) -> Address:
        """ValueError, without the URL in its text, when it has none of the shapes above."""
        if url.partition("://")[0] in _SENTINEL:
            return _guarded(url)
        found: dict[str, Any] = dict(parse_url(url))
        return cls(
            host=found.get("host", "127.0.0.1"),
            port=int(found.get("port", 6379)),
            path=found.get("path", ""),
            username=found.get("username") or "",
            password=found.get("password") or "",
            tls=url.startswith("rediss://"),
            db=int(found.get("db") or 0),
        )

    def at(self, host: str, port: int) -> Address:
        """The same, found there."""
        return replace(self, host=host, port=port, guarded=None)

    def __str__(self) -> str:
        if self.guarded is not None:
            return f"{self.guarded.name} of Sentinel {','.join(map(str, self.guarded.sentinels))}"
        return self.path or f"{self.host}:{self.port}"


def _guarded(url: str) -> Address:
    """By hand: urlsplit takes no list of hosts with brackets in every Python 3.11."""
    scheme, _, rest = url.partition("://")
    rest, _, query = rest.partition("#")[0].partition("?")
    netloc, _, path = rest.partition("/")
    credentials, _, hosts = netloc.rpartition("@")
    username, _, password = credentials.partition(":")
    name, _, db = path.strip("/").partition("/")
    asked = _options(query)
    if not name:
        raise ValueError(f"names no master; it must read {SENTINEL_SHAPE}")
    if db and not db.isdecimal():
        raise ValueError(f"the database behind the master's name must be a number; it must read {SENTINEL_SHAPE}")
    guarded = Guarded(
        name=unquote(name),
        sentinels=tuple(_watcher(host) for host in hosts.split(",")),
        username=asked.get("sentinel_username", ""),
        password=asked.get("sentinel_password", ""),
    )
    tls = _SENTINEL[scheme]
    return Address("", 0, "", unquote(username), unquote(password), tls, int(db or 0), guarded)


def _options(query: str) -> dict[str, str]:
    """The part behind `?`. ValueError for anything but the credentials of the Sentinels."""
    found = {name: values[-1] for name, values in parse_qs(query, keep_blank_values=True).items()}
    if unknown := sorted(found.keys() - {"sentinel_username", "sentinel_password"}):
        raise ValueError(f"{', '.join(unknown)} is no option; there are sentinel_username and sentinel_password")
    return found


def _watcher(text: str) -> Watcher:
    """`host`, `host:port` or `[v6]:port`."""
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(_SENTINEL_PORT)
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"each Sentinel is written HOST:PORT, with commas between; it must read {SENTINEL_SHAPE}")
    return Watcher(host.strip("[]"), int(port))
