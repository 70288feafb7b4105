"""Which address an engine's URL means, and connections to it: names looked up for a while, every address judged.

The address that is judged is the one that is connected to: a name that means something else a moment later cannot
lead anywhere else.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit

import aiohappyeyeballs
import msgspec

from base.clock import Clock
from providers.addresses import refuse_address
from providers.connection import Connection
from providers.errors import ConnectFailed

#: Seconds that the addresses of a name are used.
_NAMES_S = 10.0
#: Seconds until the next address is tried beside the first (RFC 8305, section 5).
_NEXT_ADDRESS_S = 0.25
_Found = aiohappyeyeballs.AddrInfoType


class Place(msgspec.Struct, frozen=True, cache_hash=True):
    """Where a request goes. private: whether it may be a loopback or private address."""

    host: str
    port: int
    tls: bool
    private: bool


class Target(msgspec.Struct, frozen=True, cache_hash=True):
    """A URL taken apart. line: ` path HTTP/1.1` and the host header, the same in each request."""

    place: Place
    line: str


@lru_cache(maxsize=1024)
def target_of(url: str, private: bool) -> Target:
    """ConnectFailed for what cannot be called."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, parts, port = "", urlsplit(""), None
    plain = url.isascii() and url.isprintable() and " " not in url
    if not plain or not host or parts.scheme not in ("http", "https") or "@" in parts.netloc:
        raise ConnectFailed("the endpoint's URL cannot be called")
    tls = parts.scheme == "https"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    place = Place(host, port or (443 if tls else 80), tls, private)
    return Target(place, f" {path} HTTP/1.1\r\nhost: {parts.netloc}\r\n")


class Names:
    """The addresses of hosts. Who asks for a name that is just being looked up waits for the same answer."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: dict[tuple[str, int], tuple[float, asyncio.Task[list[_Found]]]] = {}

    async def find(self, host: str, port: int) -> list[_Found]:
        """OSError when there is none."""
        if _is_address(host):  # no thread for it
            return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST))
        now = self._clock.monotonic()
        until, task = self._known.get((host, port), (0.0, None))
        if task is None or now >= until or (task.done() and (task.cancelled() or task.exception())):
            self._known = {place: known for place, known in self._known.items() if known[0] > now}
            task = asyncio.create_task(_look_up(host, port), name=f"address of {host}")
            self._known[host, port] = now + _NAMES_S, task
        return await asyncio.shield(task)


def _is_address(host: str) -> bool:
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


async def _look_up(host: str, port: int) -> list[_Found]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:
        raise OSError("the name is none") from None
    return list(found)


class Connector:
    """Opens connections. tls: whom to trust instead of the system's authorities."""

    def __init__(self, clock: Clock, tls: ssl.SSLContext | None) -> None:
        self._names, self._tls = Names(clock), tls

    async def connect(self, place: Place, made: Connection) -> None:
        """Connect `made` to the place, for TLS with its certificate verified. ConnectFailed."""
        try:
            found = await self._names.find(place.host, place.port)
            allowed = _allowed(found, place.private)
            sock = await aiohappyeyeballs.start_connection(
                allowed, happy_eyeballs_delay=_NEXT_ADDRESS_S, socket_factory=_socket
            )
            await asyncio.get_running_loop().create_connection(
                lambda: made,
                sock=sock,
                ssl=self._trust() if place.tls else None,
                server_hostname=place.host.rstrip(".") if place.tls else None,
            )
        except (OSError, RuntimeError) as error:
            raise ConnectFailed(f"no connection: {error}") from None

    def _trust(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls


def _allowed(found: list[_Found], private: bool) -> list[_Found]:
    """Those that may be connected to. ConnectFailed when there is none."""
    refused = [refuse_address(str(one[4][0]), private) for one in found]
    allowed = [one for one, reason in zip(found, refused, strict=True) if not reason]
    if not allowed:
        raise ConnectFailed(f"no connection: {refused[0] if refused else 'the name has no address'}")
    return allowed


def _socket(found: _Found) -> socket.socket:
    family, kind, proto, _, _ = found
    made = socket.socket(family, kind, proto)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return made
