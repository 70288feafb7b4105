"""/livez, /readyz and /metrics of one process, on a port of its own, without a framework.

/livez answers 200 while the loop turns. /readyz runs every registered check (each within 2 s) and answers 200 or 503
with JSON: {"ready": bool, "room": str, "checks": {name: "ok" | reason}}; while draining it is 503 first of all.
/metrics is the Prometheus text. Meant for the machine's own network: it reads 8 kB at most and never keeps alive.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

from base import metrics

#: Answers "" when all is well, else what is wrong in a few words. Raising counts as wrong.
Check = Callable[[], Awaitable[str]]

_CHECK_S = 2.0
_REQUEST_S = 5.0
_STATUS = {200: "OK", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}
_JSON = "application/json"


class Health:
    """The health of one process. Register checks, start, set `draining` before you stop."""

    def __init__(self, room: str) -> None:
        self.room = room
        self.draining = False
        self.host, self.port = "", 0  # in use after start
        self._checks: dict[str, Check] = {}
        self._server: asyncio.Server | None = None

    def add(self, name: str, check: Check) -> None:
        """Ask `check` on every /readyz; a second one of the same name replaces the first."""
        self._checks[name] = check

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Listen; 0 = any free port. The port. OSError when it is taken."""
        self._server = await asyncio.start_server(self._serve, host, port, limit=8192)
        self.host, self.port = host, int(self._server.sockets[0].getsockname()[1])
        return self.port

    async def stop(self) -> None:
        """Stop listening; requests in flight are finished."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    async def ready(self) -> tuple[bool, dict[str, str]]:
        """Whether this process can take work, and every check's word."""
        names = list(self._checks)
        words = await asyncio.gather(*(self._ask(self._checks[name]) for name in names))
        found = dict(zip(names, words, strict=True))
        if self.draining:
            found["draining"] = "this process is going away"
        return all(word == "ok" for word in found.values()), found

    async def _ask(self, check: Check) -> str:
        try:
            async with asyncio.timeout(_CHECK_S):
                return await check() or "ok"
        except TimeoutError:
            return f"no answer within {_CHECK_S:g} s"
        except Exception as error:
            return f"{type(error).__name__}: {error}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_REQUEST_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(await self._answer(head))
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # a caller that went away or spoke no HTTP is nobody's trouble
        finally:
            writer.close()

    async def _answer(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if method not in (b"GET", b"HEAD"):
            return _response(405, _JSON, b'{"error":"GET only"}')
        if path == b"/livez":
            return _response(200, "text/plain", b"ok\n")
        if path == b"/metrics":
            metrics.gauge("headrace_tasks", len(asyncio.all_tasks()))
            return _response(200, metrics.CONTENT_TYPE, metrics.exposition())
        if path == b"/readyz":
            ready, checks = await self.ready()
            body = json.dumps({"ready": ready, "room": self.room, "checks": checks})
            return _response(200 if ready else 503, _JSON, body.encode())
        return _response(404, _JSON, b'{"error":"try /livez, /readyz or /metrics"}')


def _response(status: int, kind: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status} {_STATUS[status]}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n"
    return f"{head}cache-control: no-store\r\nconnection: close\r\n\r\n".encode() + body
