"""From the group's entries to the engine, and from its bytes back into the run's stream."""

import asyncio
from typing import cast
from urllib.parse import urlsplit

import httptools

from bench.bare import lua
from runtime.address import Address
from runtime.wire import Wire, connect

_TOGETHER_S = 0.004  # a frame waits for others so long at most, as in Headrace
_OWNER = "worker"
_ASK = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: engine\r\n"
    b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
)


class Run:
    """One answer on its way: what has come and is not stored, and whether a frame of it is under way."""

    __slots__ = ("busy", "ended", "entry", "held", "name", "seq", "streams")

    def __init__(self, name: str, entry: bytes, body: bytes) -> None:
        self.name, self.entry = name, entry
        self.streams = b'"stream":true' in body.replace(b" ", b"")
        self.held, self.seq, self.busy, self.ended = b"", 0, False, False


class Frames:
    """What leaves together: the first words of a run at once, everything else every 4 ms."""

    def __init__(self, steps: lua.Steps) -> None:
        self._steps = steps
        self._loop = asyncio.get_running_loop()
        self._waiting: list[Run] = []
        self._due: asyncio.Handle | None = None
        self._left = 0.0

    def hear(self, run: Run, data: bytes, *, last: bool) -> None:
        """The engine's next bytes of it."""
        run.held += data
        run.ended = last
        if run.busy:
            return
        if last:
            self._end(run)
        elif run.streams:
            self._add(run)

    def _add(self, run: Run) -> None:
        run.busy = True
        self._waiting.append(run)
        if not run.seq:
            self._go()
        elif self._due is None:
            self._due = self._loop.call_at(self._left + _TOGETHER_S, self._go)

    def _go(self) -> None:
        if self._due is not None:
            self._due.cancel()
        self._due, self._left = None, self._loop.time()
        runs, self._waiting = self._waiting, []
        keys, arguments = list[str](), list[str | bytes]([lua.PUSH, _OWNER])
        for run in runs:
            data, run.held = run.held, b""
            run.seq += 1
            keys += (lua.run_key(run.name), lua.reply_key(run.name))
            arguments += (lua.head(run.name, len(data), last=False), str(run.seq), data)
        self._steps.take(lua.FLUSH, keys, arguments).add_done_callback(lambda _: self._told(runs))

    def _told(self, runs: list[Run]) -> None:
        for run in runs:
            run.busy = False
            if run.ended:
                self._end(run)
            elif run.held:
                self._add(run)

    def _end(self, run: Run) -> None:
        run.busy = True
        keys = (lua.run_key(run.name), lua.reply_key(run.name), lua.STREAM, lua.FACTS)
        head, seq = lua.head(run.name, len(run.held), last=True), str(run.seq + 1)
        arguments = (lua.PUSH, _OWNER, head, seq, run.held, run.entry, lua.GROUP, run.name)
        self._steps.take(lua.END, keys, arguments)


class Engine(asyncio.Protocol):
    """One connection to the engine, lent to one run at a time."""

    def __init__(self, frames: Frames, free: list["Engine"]) -> None:
        self._frames, self._free = frames, free
        self._transport: asyncio.Transport
        self._run: Run
        self._got, self._done = list[bytes](), False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def ask(self, run: Run, body: bytes) -> None:
        self._run, self._parser, self._done = run, httptools.HttpResponseParser(self), False
        self._transport.write(_ASK % (len(body), body))

    def data_received(self, data: bytes) -> None:
        self._got.clear()
        self._parser.feed_data(data)
        if self._done:
            self._free.append(self)
        self._frames.hear(self._run, b"".join(self._got), last=self._done)

    def on_body(self, body: bytes) -> None:
        self._got.append(body)

    def on_message_complete(self) -> None:
        self._done = True


class Worker:
    """The one consumer of the group."""

    def __init__(self, steps: lua.Steps, reader: Wire, engine: str) -> None:
        self._steps, self._reader = steps, reader
        where = urlsplit(engine)
        self._host, self._port = where.hostname or "127.0.0.1", where.port or 80
        self._frames = Frames(steps)
        self._free = list[Engine]()
        self._calling = set[asyncio.Task[None]]()

    async def work(self) -> None:
        """Read and begin, until it is ended."""
        read = ("XREADGROUP", "GROUP", lua.GROUP, _OWNER, "COUNT", "64", "BLOCK", "1000", "STREAMS", lua.STREAM, ">")
        while True:
            for _, entries in await self._reader.send(read) or ():
                for entry, fields in entries:
                    self._begin(Run(fields[1].decode(), entry, fields[3]), fields[3])

    def _begin(self, run: Run, body: bytes) -> None:
        """Claimed while the engine is called: nothing of it is stored before, since commands keep their order."""
        self._steps.take(lua.CLAIM, (lua.run_key(run.name),), (_OWNER,))
        if self._free:
            self._free.pop().ask(run, body)
            return
        task = asyncio.create_task(self._call(run, body))
        self._calling.add(task)
        task.add_done_callback(self._calling.discard)

    async def _call(self, run: Run, body: bytes) -> None:
        loop = asyncio.get_running_loop()
        _, engine = await loop.create_connection(lambda: Engine(self._frames, self._free), self._host, self._port)
        engine.ask(run, body)


async def work(url: str, engine: str) -> None:
    """The worker, until it is ended."""
    address = Address.parse(url)
    wires = [await connect(address), await connect(address)]
    for wire in wires:
        await wire.send(("AUTH", address.password))
    await wires[1].send(("XGROUP", "CREATE", lua.STREAM, lua.GROUP, "0", "MKSTREAM"))
    await Worker(await lua.Steps(wires[0]).load(), wires[1], engine).work()
