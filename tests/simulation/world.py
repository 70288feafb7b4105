"""One simulated house: servers, processes, clients, and the hands that do things to them.

Nothing here is a coroutine: the hands act between two turns of the loop, at a time that a schedule chose. What every
call did goes into the trace, whose digest tells two plays apart.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from math import inf
from typing import Any

from runtime.acceptance import Acceptance
from runtime.memory import MemoryScripts
from runtime.names import prefix
from schemas.envelope import decode
from schemas.errors import Code, HeadraceError, Unavailable
from state.memory import MemoryCatalog
from storage.memory import MemoryRequests
from tests.simulation import settings
from tests.simulation.chance import ServerClock, SimRandom
from tests.simulation.clients import Asker, Resumer
from tests.simulation.fleet import Ledger, Said, order
from tests.simulation.loop import VirtualLoop
from tests.simulation.processes import Door, Process, Worker
from tests.simulation.server import Postgres, Redis
from tests.simulation.wire import What, Wire

P = prefix(0)
_RESTART_S = 1.0  # until a supervisor has started a process anew
_FAIL_OVER_S = 0.3
_CLOSING = 50  # times that every task is cancelled: some go on tidying up after the first


@dataclass(frozen=True, slots=True)
class Bugs:
    """What a mutant plants; nothing by default. wire: what a process reaches the servers through."""

    scripts: type[MemoryScripts] = MemoryScripts
    record: type[MemoryRequests] = MemoryRequests
    wire: type[Wire] = Wire
    worker: type[Worker] = Worker
    door: type[Door] = Door


@dataclass(frozen=True, slots=True)
class House:
    """How a house is set up. seed: of all chance in it. policy: what becomes of runs whose clients left. continues: the
    engines that can go on with an answer that broke off, by name. workers: 1 routes what it has judged itself, where it
    can; of several whoever is idle does."""

    seed: int
    policy: str
    continues: str = ""
    workers: int = 2


@dataclass(slots=True)
class Accepted:
    """An accepted run. number: of the client that it was accepted for; at: loop seconds; alone: the
    spans in which the server knew nobody who watches it, inf = still."""

    run: str
    number: int
    tag: int
    at: float
    deadline: float
    alone: list[tuple[float, float]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Order:
    """A request as it may be sent again. words: that it asks for; once: its Idempotency-Key, "" = none."""

    token: str
    stream: bool
    words: int
    prompt: str
    once: str


@dataclass(slots=True)
class Happened:
    """What a play did, for the table and for what may be forgiven."""

    counts: Counter[str] = field(default_factory=Counter)
    away: list[tuple[float, float]] = field(default_factory=list)
    workers: int = 0  # that crashed


class World:
    """See above."""

    def __init__(self, house: House, bugs: Bugs, tell: Callable[[str], None] | None = None) -> None:
        self.house, self.seed, self.policy, self.bugs = house, house.seed, house.policy, bugs
        self.loop = VirtualLoop()  # type: ignore[abstract]  # what it lacks nobody asks for
        self.clock = ServerClock(self.loop)
        self.ledger, self.happened = Ledger(), Happened()
        self._digest, self._told = hashlib.sha256(), tell
        self.redis = Redis(self.clock, bugs.scripts)
        self.redis.on_call = self._noted
        self.record = bugs.record()
        self.postgres = Postgres(self.record)
        self.catalog = MemoryCatalog(settings.MODELS, settings.endpoints(house.continues))
        self.known: dict[str, Accepted] = {}
        self.askers: list[Asker] = []
        self.resumers: list[Resumer] = []
        self.orders: list[Order] = []
        self.cancelled: set[str] = set()  # runs that the operator ended
        self.quiet_at = 0.0  # since when nothing is done to it any more, and its servers are there
        self._births = 0
        self.everybody: list[Process] = []
        self.doors: list[Process] = [self._make(Door, n) for n in range(2)]
        self.workers: list[Process] = [self._make(Worker, n) for n in range(house.workers)]
        self.advance(0.2)

    # --- processes ------------------------------------------------------------------------------------------------

    @property
    def processes(self) -> list[Process]:
        return [*self.doors, *self.workers]

    def process(self, number: int) -> Process:
        """Two doors, then the workers; a number too high is the last one's."""
        return self.processes[min(number, len(self.processes) - 1)]

    def _make(self, kind: type[Process], place: int) -> Process:
        self._births += 1
        made_of = self.bugs.door if kind is Door else self.bugs.worker
        name = f"{kind.__name__.lower()}{place}-{self._births}"
        made = made_of(name, self.loop, str(self.seed), self._wire, self.catalog)
        if isinstance(made, Door):
            made.policy = self.policy
        if isinstance(made, Worker):
            made.ledger = self.ledger
        self.everybody.append(made)
        made.spawn(self._boot(made))
        return made

    async def _boot(self, process: Process) -> None:
        """A process that cannot start is started again."""
        try:
            await process.begin()
        except Unavailable:
            self.kill(process)

    def _wire(self, process: Process) -> Wire:
        return self.bugs.wire(
            process.home,
            process.vars,
            self.loop,
            self.redis,
            self.postgres,
            SimRandom(f"{self.seed}/wire/{process.name}"),
            lambda what: self._strike(process, what),
            self.tell,
        )

    def _strike(self, process: Process, what: What) -> None:
        if self.quiet_at:  # a trap that was under way when everything came to rest
            return
        match what:
            case "crash":
                self.kill(process)
            case "pause":
                self.stop(process)
            case "lose_reply":
                self.happened.counts["lost replies"] += 1

    def kill(self, process: Process) -> None:
        """SIGKILL; a supervisor starts another in its place."""
        if process.home.dead:
            return
        self.tell(process.name, "killed")
        self.happened.counts["crashes"] += 1
        self.happened.workers += isinstance(process, Worker)
        process.kill()
        for client in (*self.askers, *self.resumers):
            if client.door == process.name and not client.over:
                client.cut = True
        self.loop.call_later(_RESTART_S, self._again, process, context=self.redis.context)

    def _again(self, process: Process) -> None:
        for row in (self.doors, self.workers):
            if process in row:
                place = row.index(process)
                row[place] = self._make(Door if row is self.doors else Worker, place)

    def stop(self, process: Process) -> None:
        """SIGSTOP."""
        if process.alive and not process.home.halted:
            self.tell(process.name, "stopped")
            self.happened.counts["pauses"] += 1
            process.stop()

    def go_on(self, process: Process) -> None:
        """SIGCONT."""
        if process.alive and process.home.halted:
            self.tell(process.name, "goes on")
            process.go_on()

    def drain(self, process: Process) -> None:
        """SIGTERM; once it has left another starts."""
        if process.serves:
            self.tell(process.name, "drained")
            self.happened.counts["drains"] += 1
            process.ready = False
            process.spawn(process.leave()).add_done_callback(lambda _: self._again(process), context=self.redis.context)

    # --- servers --------------------------------------------------------------------------------------------------

    def take_away(self, seconds: float, lose: int | None = None) -> None:
        """Redis is not there for a while; with `lose` another one comes back, without the last writes."""
        if not self.redis.up:
            return
        self.redis.up = False
        self.happened.counts["outages" if lose is None else "failovers"] += 1
        self.happened.away.append((self.loop.time(), self.loop.time() + seconds))
        for process in self.processes:
            if process.alive:
                process.wire.cut()
        self.loop.call_later(seconds, self._back, lose, context=self.redis.context)

    def fail_over(self, lose: int) -> None:
        self.take_away(_FAIL_OVER_S, lose)

    def _back(self, lose: int | None) -> None:
        if lose is not None:
            self.redis.fail_over(lose)
        self.tell("redis", f"back, lost {self.redis.lost}")
        self.redis.up = True
        for process in self.processes:
            if process.alive:
                process.wire.restored()

    def take_record_away(self, seconds: float) -> None:
        """PostgreSQL is not there for a while."""
        self.postgres.up = False
        self.happened.counts["record outages"] += 1
        self.loop.call_later(seconds, setattr, self.postgres, "up", True, context=self.postgres.context)

    def add(self, stream: str, fields: dict[str, bytes]) -> None:
        """An entry from nowhere."""
        self.loop.call_soon(self.redis.add, stream, fields, context=self.redis.context)

    # --- clients --------------------------------------------------------------------------------------------------

    def publish(self, door: int, token: str, stream: bool, said: Said, once: int, wish: str) -> None:
        """A client sends a new request to a door that serves. once: 0 = without an Idempotency-Key, 1 = with one of its
        own, 2 = with one that others use for other requests."""
        tag = len(self.orders)
        prompt = f"{order(tag, said.plan, said.words, said.gap_ms)} {said.extra}"
        key = ("", f"own {tag}", "shared")[once]
        known = token != settings.STRANGER.token  # nobody's key is nobody's, and goes the way of all without it
        self.orders.append(Order(token, stream, said.words, prompt, key if known else ""))
        self._ask(door, tag, wish)

    def repeat(self, door: int, which: int, wish: str) -> None:
        """A client sends a request with an Idempotency-Key again."""
        repeatable = [tag for tag, known in enumerate(self.orders) if known.once]
        if repeatable:
            self.happened.counts["repeats"] += 1
            self._ask(door, repeatable[which % len(repeatable)], wish)

    def _ask(self, door: int, tag: int, wish: str) -> None:
        serving = [one for one in self.doors if one.serves]
        if not serving:
            return
        process = serving[door % len(serving)]
        assert isinstance(process, Door)
        sent, number = self.orders[tag], len(self.askers)
        asker = Asker(process.name, number=number, tag=tag, stream=sent.stream, once=sent.once, wish=wish)
        self.askers.append(asker)
        self.happened.counts["requests"] += 1
        process.spawn(asker.ask(process, sent.token, sent.prompt))

    def resume(self, run: int, door: int, after: int) -> None:
        """A client reads a run again; `after` is cut down to what is known to have been seen of it."""
        runs, serving = list(self.known), [one for one in self.doors if one.serves]
        if not runs or not serving:
            return
        process = serving[door % len(serving)]
        assert isinstance(process, Door)
        resumer = Resumer(process.name, run=runs[run % len(runs)], after=after)
        self.resumers.append(resumer)
        self.happened.counts["resumes"] += 1
        process.spawn(resumer.read(process))

    def cancel(self, run: int, door: int) -> None:
        """The operator ends a run."""
        runs, serving = list(self.known), [one for one in self.doors if one.serves]
        if runs and serving:
            process = serving[door % len(serving)]
            assert isinstance(process, Door)
            self.happened.counts["cancels"] += 1
            self.cancelled.add(runs[run % len(runs)])
            process.spawn(_cancel(process, runs[run % len(runs)]))

    # --- time and traces ------------------------------------------------------------------------------------------

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.loop.run_until(self.loop.time() + seconds)

    def tell(self, who: str, what: str) -> None:
        """One line of the trace."""
        line = f"{self.loop.time():.6f} {who} {what}"
        self._digest.update(line.encode())
        if self._told is not None:
            self._told(line)

    def count(self) -> None:
        """What shows only at the end, for the table."""
        calls = chain.from_iterable(self.ledger.calls.values())
        self.happened.counts["continuations"] = sum(call.start > 0 for call in calls)
        self.happened.counts["replays"] = sum(asker.replayed for asker in self.askers)
        self.happened.counts["keys reused"] = sum(asker.code == Code.idempotency_key_reused for asker in self.askers)

    @property
    def digest(self) -> str:
        """Of everything that happened."""
        return self._digest.hexdigest()

    def _noted(self, part: str, name: str, args: tuple[Any, ...], result: Any) -> None:
        """Which runs were accepted, and which of them nobody watches."""
        if part != "scripts":
            return
        if (name == "accept" and result[0]) or (name == "accept_once" and result.state == "new"):
            self._accepted(args[0])
        elif name == "accept_once" and result.state == "watched":
            self._watched(result.run, True)
        elif name == "watch" and result.state not in ("gone", "ended"):
            self._watched(args[0], result.watchers > 0)

    def _accepted(self, new: Acceptance) -> None:
        now, number = self.loop.time(), int(decode(new.signed.e)[1].client_request_id)
        accepted = Accepted(new.run, number, self.askers[number].tag, now, now + new.deadline_ms / 1000)
        if new.run not in self.known or self.redis.lost:  # what a failover lost may be accepted again
            self.known[new.run] = accepted

    def _watched(self, run: str, somebody: bool) -> None:
        spans, now = self.known[run].alone, self.loop.time()
        still = bool(spans) and spans[-1][1] == inf
        if somebody and still:
            spans[-1] = (spans[-1][0], now)
        elif not somebody and not still:
            spans.append((now, inf))

    def close(self) -> None:
        """End every task, also of the dead; whatever they still want to send goes nowhere."""
        Wire.over = True
        try:
            for process in self.everybody:
                process.home.dead = False
                process.go_on()
            self.advance(0.0)  # what has not begun yet begins, so that it can end
            for _ in range(_CLOSING):
                for task in tasks_of(self.loop):
                    task.cancel()
                self.advance(0.0)
                if not tasks_of(self.loop):
                    return
        finally:
            Wire.over = False


def tasks_of(loop: VirtualLoop) -> set[asyncio.Task[Any]]:
    """What has not ended on the loop."""
    return asyncio.all_tasks(loop)


async def _cancel(door: Door, run: str) -> None:
    """As DELETE on the admin API."""
    with suppress(HeadraceError):
        await door.door.cancel(run, "operator")
