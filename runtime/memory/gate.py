"""The fair gate of a MemoryServer: runtime/lua/gate.lua, function for function."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

from runtime.memory.server import MemoryServer

LANES = ("interactive", "batch")
_BATCH_TURN = 10  # while both lanes wait, one of so many that are let in is of batch
_ADD_UP_MS = 1000
FAR_MS = 600_000  # an announcement that ends later was made before the server's clock was set back


@dataclass(slots=True)
class LaneQueue:
    """Who waits for a lane. tenants: virtual starts; queues: tenant -> run -> -priority; waiting: run -> since, ms."""

    virtual: float = 0.0
    tenants: dict[str, float] = field(default_factory=dict)
    queues: dict[str, dict[str, int]] = field(default_factory=dict)
    passed: dict[str, float] = field(default_factory=dict)
    waiting: dict[str, int] = field(default_factory=dict)

    def unlist(self, tenant: str, run: str) -> None:
        """Take a run out; a tenant's last one leaves its virtual time behind."""
        self.queues.get(tenant, {}).pop(run, None)
        if not self.queues.get(tenant):
            self.queues.pop(tenant, None)
            if tenant in self.tenants:
                self.passed[tenant] = self.tenants.pop(tenant)
        self.waiting.pop(run, None)


@dataclass(slots=True)
class PoolGate:
    """The gate of one pool. slots: router -> (slots, until ms); cap holds until `until`."""

    slots: dict[str, tuple[int, int]] = field(default_factory=dict)
    cap: int = 0
    until: int = 0
    turns: int = 0
    lanes: dict[str, LaneQueue] = field(default_factory=lambda: {lane: LaneQueue() for lane in LANES})

    def next_lane(self) -> str:
        """The lane whose turn it is, "" when nobody waits."""
        interactive, batch = (bool(self.lanes[lane].tenants) for lane in LANES)
        if not (interactive and batch):
            return "interactive" if interactive else "batch" if batch else ""
        self.turns += 1
        return "interactive" if self.turns % _BATCH_TURN else "batch"

    def add_up(self, now: int) -> None:
        """The announced slots that still hold."""
        self.slots = {name: told for name, told in self.slots.items() if now < told[1] <= now + FAR_MS}
        self.cap = sum(slots for slots, _ in self.slots.values())
        self.until = min([now + _ADD_UP_MS, *(until for _, until in self.slots.values())])


class MemoryGates:
    """Every gate of a server. Keyed by (partition prefix, pool)."""

    def __init__(self, server: MemoryServer) -> None:
        self._server = server

    def of(self, p: str, pool: str) -> PoolGate:
        gates: dict[tuple[str, str], PoolGate] = self._server.gates
        return gates.setdefault((p, pool), PoolGate())

    def is_open(self, p: str, pool: str, lane: str) -> bool:
        """Whether a run may pass at once."""
        gate = self.of(p, pool)
        before = (gate.lanes["interactive"], gate.lanes[lane])
        return not any(queue.tenants for queue in before) and self._room(p, pool) > 0

    def into_lane(self, p: str, pool: str, lane: str, run: str) -> str:
        """Append the pointer of a run to its lane; the entry's id."""
        key = lane_of(p, pool, lane)
        data = {"run": run, "pool": pool, "lane": lane}
        event = {"id": f"{run}/cleared", "type": "RequestCleared", "v": 1, "by": "script", "run": run}
        if key not in self._server.streams:
            self._server.make_group(key, "router")
        return self._server.add(key, {"e": msgspec.json.encode({**event, "data": data})})

    def wait(self, p: str, run_id: str, run: Mapping[str, bytes]) -> None:
        """Index a run."""
        queue, tenant = self._queue(p, run), run["tenant"].decode()
        queue.queues.setdefault(tenant, {})[run_id] = -int(run.get("priority", b"0"))
        if tenant not in queue.tenants:
            queue.tenants[tenant] = max(queue.virtual, queue.passed.get(tenant, 0.0))
        queue.passed.pop(tenant, None)
        queue.waiting.setdefault(run_id, self._server.now())

    def pump(self, p: str, pool: str, most: int) -> int:
        """Let in as many as there is room for, at most `most`; how many."""
        free, count = min(most, self._room(p, pool)), 0
        while count < free and (lane := self.of(p, pool).next_lane()):
            count += self._admit_one(p, pool, lane)
        return count

    def leave(self, p: str, run_id: str, run: dict[str, bytes], tokens: int | None) -> None:
        """A run ends: it waits no more, and its tenant is charged what it cost in the end."""
        if "lane" not in run:
            return
        queue, tenant = self._queue(p, run), run["tenant"].decode()
        if "entry" not in run:
            queue.unlist(tenant, run_id)
        charged = int(run.get("charged", b"-1"))
        if charged < 0 or tokens is None or tokens == charged:
            return
        for scores in (queue.tenants, queue.passed):
            if tenant in scores:
                scores[tenant] += (tokens - charged) / int(run.get("weight", b"1"))

    def waits(self, p: str, run_id: str, run: Mapping[str, bytes]) -> bool:
        """Whether the run is in the index."""
        return run_id in self._queue(p, run).waiting

    def _queue(self, p: str, run: Mapping[str, bytes]) -> LaneQueue:
        return self.of(p, run["pool"].decode()).lanes[run["lanename"].decode()]

    def _room(self, p: str, pool: str) -> int:
        gate, now, streams = self.of(p, pool), self._server.now(), self._server.streams
        if gate.until <= now:
            gate.add_up(now)
        lanes = [streams.get(lane_of(p, pool, lane)) for lane in LANES]
        return gate.cap - sum(len(lane.entries) for lane in lanes if lane is not None)

    def _admit_one(self, p: str, pool: str, lane: str) -> bool:
        queue = self.of(p, pool).lanes[lane]
        for tenant, start, run_id in self._next(queue):
            run = self._server.hashes.get(f"{p}:run:{run_id}", {})
            fits = run.get("state") == b"queued" and "entry" not in run
            if fits:
                cost = int(run.get("cost", b"1"))
                run["entry"] = self.into_lane(p, pool, lane, run_id).encode()
                run["charged"] = str(cost).encode()
                queue.virtual = start
                queue.tenants[tenant] = start + cost / int(run.get("weight", b"1"))
                queue.passed = {name: at for name, at in queue.passed.items() if at >= start}
            queue.unlist(tenant, run_id)
            if fits:
                return True
        return False

    def _next(self, queue: LaneQueue) -> Iterator[tuple[str, float, str]]:
        """(tenant, its virtual start, its run), the fairest first, looked up anew each time."""
        while queue.tenants:
            tenant = min(queue.tenants, key=lambda name: (queue.tenants[name], name))
            own = queue.queues.get(tenant, {})
            yield tenant, queue.tenants[tenant], min(own, key=lambda run: (own[run], run), default="")


def lane_of(p: str, pool: str, lane: str) -> str:
    """The cleared stream of a pool and lane."""
    return f"{p}:cleared:{pool}:{lane}"
