"""The engine under every consumer group: pull, start, keep, retry, take over, give up. Handlers know none of it.

What it promises
- It pulls no more than it can start at once, so a delivered entry is a started entry.
- An entry is acknowledged only after its outcome was carried out; a process that dies loses nothing.
- While a handler works, a beat every idle_limit/3 keeps its entries; a beat that finds another holder stops the
  handler (it may write nothing more).
- Entries of a silent consumer are taken over one at a time, each start counted before it happens. An entry that was
  started max_starts times goes to the dead letters with its reason, and its run ends in the same step.
- Poison (undecodable, wrongly signed) is dead at once; an unknown newer version is given back until its deadline.
- A store that is away (Unavailable) is nobody's fault: the entry waits and its count stays as it was.
- What a consumer holds that is known to be dead (`heir_of`) is taken over without waiting for its silence.
- After an outage or a failover nothing is taken over until one full idle limit has passed: live owners beat first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from base import logs
from base.clock import Clock
from base.ids import Random
from runtime import faults
from runtime.calm import Calm
from runtime.group_spec import Counters, Spec
from runtime.groups import GroupLost, Groups, Row
from runtime.heir import Heir
from runtime.in_hand import InHand
from runtime.item import Acts, Item, delivery_of
from runtime.names import place_of
from runtime.patience import Patience
from runtime.places import Places
from runtime.reading import Reading
from runtime.rhythm import Rhythm
from runtime.scripts import Held, Scripts
from runtime.taking import Taking
from schemas.envelope import Signed, VerifierPort, verify
from schemas.errors import HeadraceError, OwnerLost, Unavailable, UnknownVersion
from schemas.outcomes import Again, Dead, Decided, Delivery, Done, Outcome, Settled

log = logs.room("runtime")

Handler = Callable[[Sequence[Delivery]], Awaitable[Sequence[Outcome]]]

_NO_ROOM_S = 0.2  # how long a reader without a stream waits before it looks again
_LAST_READ_S = 0.5  # how long a stopping engine waits for its last read, whose entries are its own already
_UNKNOWN_LIFE_MS = 86_400_000  # an entry of unknown version without a deadline lives a day


@dataclass(slots=True)
class Engine:
    """One consumer of one group over the streams that `streams()` names (all in one slot).

    places: where runs have places by pool, only streams with room are read. heir_of: the consumer that this one was
    started in place of, "" = none; it must be dead. rhythm: of the process, else the group has its own."""

    spec: Spec
    streams: Callable[[], Sequence[str]]
    groups: Groups
    scripts: Scripts
    acts: Acts
    handler: Handler
    consumer: str
    verifier: VerifierPort
    clock: Clock
    chance: Random
    places: Places | None = None
    heir_of: str = ""
    rhythm: Rhythm | None = None
    counters: Counters = field(default_factory=Counters)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _loops: list[asyncio.Task[None]] = field(default_factory=list)
    _stopping: bool = False
    _hand: InHand = field(init=False)
    _patience: Patience = field(init=False)
    _reading: Reading = field(init=False)
    _taking: Taking = field(init=False)
    _heir: Heir = field(init=False)
    _rhythm: Rhythm = field(init=False)

    def __post_init__(self) -> None:
        self._patience = Patience(self.spec.group, self.clock, self.chance)
        self._hand = InHand(self.spec.concurrency, self.places)
        self._reading = Reading(self.spec, self.streams, self.groups, self.consumer, self.clock, self.places)
        self._taking = Taking(
            self.spec, self.groups, self.scripts, self.consumer, self._hand,
            Calm(self.groups.losses, self.scripts, self.clock, self.spec.idle_ms),
            self.counters, self._begin, self._bury,
        )  # fmt: skip
        self._heir = Heir(self.heir_of, self.spec, self.scripts)
        self._rhythm = self.rhythm or Rhythm(self.clock, self.chance)

    # --- life -----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Create the groups and begin. Unavailable when the server is away."""
        await self._reading.ensure()
        for name, loop in (("read", self._read_loop), ("beat", self._beat_loop), ("take", self._take_loop)):
            self._loops.append(asyncio.create_task(loop(), name=f"{self.spec.group}:{name}"))

    async def stop(self, grace: float) -> None:
        """Leave in order: 1 read nothing new, 2 finish what runs (beats go on), 3 give back the rest untried,
        4 forget this consumer if it holds nothing. Whatever still fails is taken over by others."""
        self._stopping = True
        self._taking.end()
        self._hand.wake()
        await self._patience.quietly(self.groups.unblock())
        await asyncio.wait(self._loops[:1], timeout=_LAST_READ_S)
        self._loops[0].cancel()
        await self._hand.settled(_LAST_READ_S)
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=grace)
        for task in (*self._loops, *self._tasks):
            task.cancel()
        await asyncio.gather(*self._loops, *self._tasks, return_exceptions=True)
        await self._patience.quietly(self._give_back(list(self._hand), self.spec.idle_ms))
        for stream in self._reading.ensured:
            await self._patience.quietly(self.scripts.retire(stream, self.spec.group, self.consumer))

    @property
    def in_hand(self) -> int:
        """Entries being worked on."""
        return len(self._hand)

    def hold(self, delivery: Delivery, owner: str, on_state: Callable[[str], None]) -> None:
        """From now on the beat also guards the run of `delivery` for `owner`; on_state hears cancel and lost."""
        item = self._hand.find(delivery.stream, delivery.entry)
        if item is not None:
            item.held = Held(entry=delivery.entry, run=delivery.run, owner=owner)
            item.on_state = on_state

    def wake(self) -> None:
        """The list of streams changed: read again with the new one."""
        self._hand.wake()
        if present := self._reading.present:
            self._track(asyncio.create_task(self._patience.quietly(self._reading.end(present))))

    def wake_for_room(self) -> None:
        """Other pools have room than before: a read that waits for too few or too many lanes must end."""
        if self._reading.is_stale():
            self.wake()

    # --- what comes without a read --------------------------------------------------------------------------------

    def shares(self) -> None:
        """Entries come by other ways too."""
        self._reading.shared = True

    def expect(self, stream: str) -> bool:
        """Keep a place for an entry of the stream; `receive` or `unexpect` must follow. False = there is none."""
        if self._stopping or stream not in self._reading.ensured or self._hand.free <= self._reading.asked:
            return False
        return self._hand.expect(stream, self._reading.awaited(place_of(stream)[0]))

    def unexpect(self, stream: str) -> None:
        """Nothing has come."""
        self._hand.unexpect(stream)

    def beside(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Work for an entry that is expected; this engine stops no sooner."""
        return self._track(asyncio.create_task(work, name=f"{self.spec.group}:begun"))

    def receive(self, row: Row) -> bool:
        """Start on an entry that was expected, and delivered to this consumer; False when there is nothing to start."""
        item = self._open(row, 0)
        self._hand.unexpect(row.stream)
        if item is not None:
            faults.hit(self.spec.group, "P1")
            self._start([item])
        return item is not None

    # --- reading --------------------------------------------------------------------------------------------------

    async def _read_loop(self) -> None:
        while not self._stopping:
            if self._hand.free <= 0:
                await self._hand.wait()
                continue
            try:
                await self._read_once(min(self.spec.batch, self._hand.free))
            except GroupLost as error:
                log.warning("group repaired", group=self.spec.group, reason=str(error))
                self.counters.repaired += 1
                self._reading.ensured.clear()
                await self._patience.pause()
            except HeadraceError as error:
                log.warning("reading failed", group=self.spec.group, reason=str(error))
                await self._patience.pause()
            except Exception:
                await self._patience.stumbled("reading")

    async def _read_once(self, count: int) -> None:
        rows = await self._reading.read(count)
        if rows is None:
            await self._hand.wait(_NO_ROOM_S)
            return
        fresh = [item for row in rows if (item := self._open(row, 0)) is not None]
        if fresh:
            faults.hit(self.spec.group, "P1")
            for work in [[item] for item in fresh] if self.spec.single else [fresh]:
                self._start(work)
            if self.spec.pace_ms:
                await self.clock.sleep(self.spec.pace_ms / 1000)

    def _open(self, row: Row, starts: int) -> Item | None:
        """Decode and verify; what cannot be handled is disposed of on the side."""
        signed = Signed(row.fields.get(b"e", b""), row.fields.get(b"s", b""))
        try:
            envelope, event = verify(self.verifier, self.spec.stream, self.spec.publishers, signed)
        except UnknownVersion as error:
            self._track(asyncio.create_task(self._postpone(row, starts, str(error))))
            return None
        except Exception as error:  # whatever it is: the others of this read must not wait for it
            self._track(asyncio.create_task(self._bury(row, starts + 1, f"{type(error).__name__}: {error}")))
            return None
        delivery = delivery_of(row, envelope, event, starts)
        item = Item((row.stream, row.entry), row, delivery, counted=starts > 0)
        if (before := self._hand.find(row.stream, row.entry)) is not None and not self._supersede(before):
            return None
        self._hand.add(item)
        return item

    def _supersede(self, before: Item) -> bool:
        """An entry that is in hand was delivered anew: the server lost its last writes, this delivery among them. Work
        that has claimed its run is void, since the claim came after the delivery; any other goes on and acknowledges
        the new delivery."""
        if before.on_state is None:
            return False
        self._hear(before, "lost")
        return True

    def _start(self, items: list[Item]) -> asyncio.Task[None]:
        task = asyncio.create_task(self._guarded(items), name=f"{self.spec.group}:work")
        for item in items:
            item.task = task
        return self._track(task)

    def _track(self, task: asyncio.Task[None]) -> asyncio.Task[None]:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # --- working --------------------------------------------------------------------------------------------------

    async def _guarded(self, items: list[Item]) -> None:
        """Work; what could not be carried out is let go of, falls idle and is taken over with its start counted."""
        try:
            await self._work(items)
        except Exception:
            self.counters.failed += 1
            log.exception("outcome not carried out", group=self.spec.group, entries=len(items))
            self._hand.remove(items)

    async def _work(self, items: list[Item]) -> None:
        """Run the handler once over `items` and carry out what it answers."""
        try:
            outcomes = await self.handler([item.delivery for item in items])
        except Unavailable as error:
            await self._wait_for_store(items, str(error))
        except OwnerLost:
            self._hand.remove(items)
        except Exception as error:
            await self._failed(items, error)
        else:
            faults.hit(self.spec.group, "P2")
            await self._carry_out(items, outcomes)

    async def _carry_out(self, items: list[Item], outcomes: Sequence[Outcome]) -> None:
        faults.hit(self.spec.group, "P3")
        jobs: list[Awaitable[None]] = []
        done: list[Item] = []
        settled: list[Item] = []
        decided: list[tuple[Item, Decided]] = []
        for item, outcome in zip(items, outcomes, strict=True):
            if isinstance(outcome, Decided):
                decided.append((item, outcome))
            elif isinstance(outcome, Settled):
                settled.append(item)
            elif isinstance(outcome, Done):
                done.append(item)
            else:
                jobs.append(self._act(item, outcome))
        if done:
            jobs.append(self._ack(done))
        if settled:
            jobs.append(self._settle(settled))
        if decided:
            jobs.append(self._decide(decided))
        await (asyncio.gather(*jobs) if len(jobs) > 1 else jobs[0])
        faults.hit(self.spec.group, "P4")

    async def _act(self, item: Item, outcome: Outcome) -> None:
        if isinstance(outcome, Again):
            await self._again(item, outcome.seconds, outcome.reason)
        elif isinstance(outcome, Dead):
            await self._bury(item.row, item.delivery.starts + 1, outcome.reason)
            self._done([item])

    async def _decide(self, decided: list[tuple[Item, Decided]]) -> None:
        """Verdicts, all of a batch together."""
        pairs = [(item.delivery, outcome) for item, outcome in decided]
        await self._patience.insist(lambda: self.acts.decided(pairs))
        await self._settle([item for item, _ in decided])

    async def _settle(self, items: list[Item]) -> None:
        """A script has acknowledged them; starts that were counted are forgotten."""
        for item in items:
            if item.counted:
                stream, entry = item.key
                await self._patience.insist(partial(self.groups.ack, stream, self.spec.group, [(entry, True)]))
        self._done(items)

    async def _ack(self, items: list[Item]) -> None:
        """Acknowledge, once per stream."""
        by_stream: dict[str, list[tuple[str, bool]]] = {}
        for item in items:
            by_stream.setdefault(item.row.stream, []).append((item.row.entry, item.counted))
        for stream, entries in by_stream.items():
            await self._patience.insist(lambda s=stream, e=entries: self.groups.ack(s, self.spec.group, e))  # type: ignore[misc]
        self._done(items)

    def _done(self, items: list[Item]) -> None:
        self.counters.handled += len(items)
        self._hand.remove(items)

    async def _failed(self, items: list[Item], error: Exception) -> None:
        """A handler raised. Alone: try again or give up. In a batch: try each alone and beside the others, so that only
        the guilty suffer and wait."""
        self.counters.failed += 1
        log.exception("handler failed", group=self.spec.group, entries=len(items))
        reason = f"{type(error).__name__}: {error}"
        pause = 0.0 if len(items) > 1 else self._patience.backoff()
        await asyncio.gather(*(self._again(item, pause, reason) for item in items))

    async def _again(self, item: Item, seconds: float, reason: str) -> None:
        starts = item.delivery.starts + 1
        if starts >= self.spec.max_starts:
            await self._bury(item.row, starts, reason)
            self._hand.remove([item])
            return
        await self.clock.sleep(seconds)
        await self._patience.insist(lambda: self.groups.mark(item.row.stream, self.spec.group, item.row.entry))
        d = item.delivery
        item.delivery = delivery_of(item.row, d.envelope, d.event, starts)
        item.counted = True
        await self._work([item])

    async def _wait_for_store(self, items: list[Item], reason: str) -> None:
        """Keep the entries, wait, run again; nothing is counted."""
        log.warning("a store is away", group=self.spec.group, entries=len(items), reason=reason)
        await self.clock.sleep(self.chance.uniform(0.2, 1.0))
        items = [item for item in items if self._hand.has(item)]
        if items:
            await self._work(items)

    async def _bury(self, row: Row, starts: int, reason: str) -> None:
        log.error("dead letter", group=self.spec.group, entry=row.entry, reason=reason)
        await self._patience.insist(lambda: self.acts.dead(row, self.spec, self.consumer, starts, reason))
        self.counters.dead += 1

    async def _postpone(self, row: Row, starts: int, reason: str) -> None:
        """A newer version: give it back for one idle limit, or bury it when its deadline is over."""
        born = int(row.entry.partition("-")[0])
        if self.clock.now_ms() - born > _UNKNOWN_LIFE_MS:
            await self._bury(row, starts + 1, reason)
            return
        entries = [(row.entry, max(0, starts - 1))]
        await self._patience.insist(
            lambda: self.scripts.release(row.stream, self.spec.group, self.consumer, 0, entries)
        )

    # --- keeping and taking over ----------------------------------------------------------------------------------

    async def _beat_loop(self) -> None:
        while True:
            await self._rhythm.rest(self.spec.idle_ms / 3000)
            await self._patience.quietly(self._beat())

    async def _beat(self) -> None:
        for stream, items in self._hand.by_stream().items():
            held = [item.held or Held(entry=item.row.entry) for item in items]
            states = await self.scripts.beat(stream, self.spec.group, self.consumer, held)
            for item, state in zip(items, states, strict=True):
                self._hear(item, state)

    def _hear(self, item: Item, state: str) -> None:
        if state == "ok" or not self._hand.has(item):
            return
        if item.on_state is not None:
            item.on_state(state)
        if state == "lost":
            self.counters.lost += 1
            self._hand.remove([item])
            if item.on_state is None and item.task is not None:
                self._abandon(item.task)

    def _abandon(self, task: asyncio.Task[None]) -> None:
        """Stop a handler that works on a lost entry; what else was in its batch and is still ours starts again."""
        rest = [item for item in self._hand if item.task is task]
        task.cancel()
        if rest:
            again = self._track(asyncio.create_task(self._after(task, rest), name=f"{self.spec.group}:again"))
            for item in rest:
                item.task = again

    async def _after(self, task: asyncio.Task[None], items: list[Item]) -> None:
        await asyncio.wait({task})
        mine = [item for item in items if self._hand.has(item)]
        if mine:
            await self._guarded(mine)

    async def _take_loop(self) -> None:
        while not self._stopping:
            try:
                await self._heir.look(self._reading.ensured)
                for stream in self.streams():
                    await self._taking.look(stream)
            except GroupLost:
                self._reading.ensured.clear()
            except HeadraceError as error:
                log.warning("taking over failed", group=self.spec.group, reason=str(error))
            except Exception:
                await self._patience.stumbled("taking over")
            await self._rhythm.rest(self.spec.idle_ms / 10_000)

    def _begin(self, row: Row, starts: int) -> asyncio.Task[None] | None:
        """Start on an entry that was taken over."""
        item = self._open(row, starts)
        return None if item is None else self._start([item])

    # --- helpers --------------------------------------------------------------------------------------------------

    async def _give_back(self, items: Sequence[Item], idle_ms: int) -> None:
        by_stream: dict[str, list[tuple[str, int]]] = {}
        for item in items:
            by_stream.setdefault(item.row.stream, []).append((item.row.entry, max(0, item.delivery.starts - 1)))
        for stream, entries in by_stream.items():
            await self.scripts.release(stream, self.spec.group, self.consumer, idle_ms, entries)
        self._hand.remove(items)
