"""The clients of a soak, each on a connection of its own."""

from __future__ import annotations

import asyncio
import json
import socket
from collections import Counter
from time import monotonic
from urllib.parse import urlsplit

from bench.faults.said import Said
from bench.faults.wire import Reply
from bench.load import PROMPT
from bench.soak.plan import BROKEN, LATE, LEFT, WHOLE, Kind, Visit, kind_of, words_of

#: Seconds a visit may take.
PATIENCE_S = 90.0
#: A slow reader takes so many bytes, waits so many seconds, and has a small buffer for what comes meanwhile.
_SIP, _PAUSE_S, _BUFFER = 2048, 0.3, 4096
#: Events after which a client leaves.
_LEAVES_AFTER = 3
#: Tokens of an answer.
_TOKENS = 24
#: Visits at once; beyond it none is begun.
_MOST = 400


class Guests:
    """Visits begun at a rate, in the plan's order. slow_tokens: of an answer that is read slowly, so long that it is
    still under way when its client lags. unsent: visits that found as many there as may be."""

    def __init__(self, base_url: str, key: str, model: str, rate: float, slow_tokens: int) -> None:
        address = urlsplit(base_url)
        self._host, self._port, self._key = str(address.hostname), int(address.port or 80), key
        self._model, self._rate, self._slow_tokens = model, rate, slow_tokens
        self._open: set[asyncio.Task[None]] = set()
        self._number = 0
        self.visits: list[Visit] = []
        self.begun: Counter[Kind] = Counter()
        self.unsent = 0

    async def come(self, seconds: float) -> None:
        """Begin visits for so long, then wait for all."""
        begin, count = monotonic(), 0
        while monotonic() < begin + seconds:
            count += 1
            await asyncio.sleep(max(0.0, begin + count / self._rate - monotonic()))
            if len(self._open) < _MOST:
                self._begin()
            else:
                self.unsent += 1
        await asyncio.gather(*self._open)

    def _begin(self) -> None:
        kind, number = kind_of(self._number), self._number
        self._number += 1
        self.begun[kind] += 1
        task = asyncio.create_task(self._visit(kind, number))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _visit(self, kind: Kind, number: int) -> None:
        begun, said = monotonic(), Said(str(number), kind != "unary")
        try:
            async with asyncio.timeout(PATIENCE_S):
                outcome = await self._ask(kind, number, said)
        except TimeoutError:
            outcome = LATE
        except OSError as error:
            outcome, said.garbage = BROKEN, repr(error)
        example = "" if outcome in (WHOLE, LEFT) else (said.garbage or repr(said.events[-1:])[:300])
        self.visits.append(Visit(number, kind, begun, monotonic(), outcome, example))

    async def _ask(self, kind: Kind, number: int, said: Said) -> str:
        reply = Reply(on_data=said.take)
        reader, writer = await self._connect(small=kind == "slow")
        try:
            writer.write(self._request(kind, number))
            while not reply.ended:
                piece = await reader.read(_SIP if kind == "slow" else 65536)
                if not piece:
                    return BROKEN
                reply.feed(piece)
                if kind == "leaves" and len(said.events) >= _LEAVES_AFTER:
                    return LEFT
                if kind == "slow":
                    await asyncio.sleep(_PAUSE_S)
        finally:
            writer.close()
        if not reply.events:
            said.take(reply.body)
        said.clean = True
        return WHOLE if said.whole else said.code or BROKEN

    async def _connect(self, small: bool) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if not small:
            return await asyncio.open_connection(self._host, self._port)
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (self._host, self._port))
        return await asyncio.open_connection(sock=sock, limit=_SIP)

    def _request(self, kind: Kind, number: int) -> bytes:
        message = {"role": "user", "content": f"{PROMPT}{words_of(kind, number)}"}
        tokens = self._slow_tokens if kind == "slow" else _TOKENS
        body = {"model": self._model, "stream": kind != "unary", "max_tokens": tokens, "messages": [message]}
        payload = json.dumps(body).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: {self._host}:{self._port}\r\n"
            f"authorization: Bearer {self._key}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(payload)}\r\n\r\n"
        )
        return head.encode() + payload
