"""The sweeper: ends what is past its deadline, lets go of lost watchers, ends what nobody came back to, puts cleared
runs that fell between two steps back to the gate, trims what everyone acknowledged.

Any process may run it; every step is idempotent. What to do with a run is decided by `judge`, a pure function; the end
script then checks that the run still stands where it was seen. After its start, an outage or a failover nobody is late
for `calm_s`: doors beat and families answer first; only runs past their own deadline are ended meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass

from base import logs, metrics
from base.clock import Clock
from base.ids import Random
from base.replies import time_ms
from runtime.leaving import cancel_run
from runtime.names import prefix
from runtime.runs import Runs, cut_short
from runtime.scripts import Answer, Scripts
from runtime.seals import Seals
from schemas.errors import Code, DecodeError, Failure, HeadraceError
from schemas.ports import Redis
from schemas.verdicts import read_verdict

log = logs.room("runtime")

_PERIOD_S = 1.0
_PAGE = 100  # runs looked at in one read
_PAGES = 100  # reads per round and partition
_CALM_S = 8.0  # longer than a door's heartbeat and a family's idle limit
_STEP_MS = 2_000  # no step of a run takes this long
_LOST_GRACE_MS = 30_000  # how long a run outlives its ingress, for a resume elsewhere


@dataclass(frozen=True, slots=True)
class Fill:
    """Count these families' missing verdicts as skipped: their policy is to fail open."""

    families: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fail:
    """End the run with this failure."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Drop:
    """The run has no state: forget its deadline."""


Judgement = Fill | Fail | Drop


def judge(fields: Mapping[str, bytes], server_ms: int) -> Judgement:
    """What becomes of a run whose time in {p}:live is over. Pure."""
    if not fields:
        return Drop()
    if fields["state"] != b"checking":
        return Fail(_failure(Code.deadline_exceeded, "The request was not finished within its deadline."))
    missing = [name for name in fields["families"].decode().split() if f"o:{name}" not in fields]
    if int(fields["deadline"]) <= server_ms or "authorization" in missing:
        return Fail(_failure(Code.deadline_exceeded, "The request could not be checked within its deadline. Retry it."))
    fail = _fail_policy(fields)
    closed = [name for name in missing if fail.get(name, "closed") != "open"]
    if closed:
        words = f"The guardrail {closed[0]} did not answer in time, and its policy is to fail closed. Retry later."
        return Fail(_failure(Code.guardrail_unavailable, words))
    return Fill(tuple(missing))


def _fail_policy(fields: Mapping[str, bytes]) -> Mapping[str, str]:
    try:
        grant = read_verdict(fields["v:authorization"].partition(b" ")[2]).grant
    except (DecodeError, KeyError):
        return {}
    return grant.fail if grant else {}


def _failure(code: Code, message: str) -> Failure:
    return Failure(code=code.value, message=message, should_retry=True)


def is_old(state: bytes | None, cleared: bytes | None, now: int) -> bool:
    """Whether a run was cleared so long ago that the step which cleared it is over."""
    return state == b"queued" and int(cleared or 0) < now - _STEP_MS


class Sweeper:
    """One loop over all partitions."""

    def __init__(
        self,
        redis: Redis,
        scripts: Scripts,
        runs: Runs,
        seals: Seals,
        clock: Clock,
        chance: Random,
        partitions: int,
        trims: Mapping[str, tuple[str, ...]],
        calm_s: float = _CALM_S,
    ) -> None:
        self._redis, self._scripts, self._runs, self._seals = redis, scripts, runs, seals
        self._clock, self._chance, self._partitions = clock, chance, partitions
        self._trims, self._calm_s = trims, calm_s
        self._calm_until = clock.monotonic() + calm_s
        self._looked: dict[str, int] = {}  # partition -> where the next page of its live runs begins
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._loop(), name="sweeper")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _loop(self) -> None:
        while True:
            await self._clock.sleep(_PERIOD_S * self._chance.uniform(0.8, 1.2))
            await self.round()

    async def round(self) -> None:
        """One sweep; an outage that shows in it puts off what only lateness would decide."""
        try:
            await self.sweep(calm=self._clock.monotonic() >= self._calm_until)
        except HeadraceError as error:
            self._calm_until = self._clock.monotonic() + self._calm_s
            log.info("sweep put off", reason=str(error))
        except Exception:
            log.exception("sweep failed")

    async def sweep(self, calm: bool = True) -> int:
        """One round; how many runs it moved. calm: whether silence counts as being late."""
        now = time_ms(await self._redis.execute("TIME"))
        moved = 0
        for number in range(self._partitions):
            p = prefix(number)
            settled = calm and await self._scripts.tenure(p) >= self._calm_s
            moved += await self._all_overdue(p, now, settled)
            if settled:
                await self._lost_doors(p, now)
                moved += await self._unwatched(p)
                moved += await self._astray(p, now)
        for stream, groups in self._trims.items():
            await self._scripts.trim(stream, groups)
        return moved

    async def _all_overdue(self, p: str, now: int, calm: bool) -> int:
        """Every run whose time is over; one that cannot be moved does not stand in the way of the others."""
        moved = stuck = 0
        for _ in range(_PAGES):
            due = await self._redis.execute("ZRANGEBYSCORE", f"{p}:live", "-inf", now, "LIMIT", stuck, _PAGE)
            for run in due:
                done = await self._try(run.decode(), self._overdue(p, run.decode(), now, calm))
                moved, stuck = moved + done, stuck + (not done)
            if len(due) < _PAGE:
                break
        return moved

    async def _try(self, run: str, work: Awaitable[bool]) -> bool:
        try:
            return await work
        except HeadraceError as error:
            log.info("a run was left for the next sweep", run=run, reason=str(error))
        except Exception:
            log.exception("a run cannot be swept", run=run)
        return False

    async def _overdue(self, p: str, run: str, now: int, calm: bool) -> bool:
        fields = await self._runs.fields(run)
        if fields and not calm and int(fields["deadline"]) > now:
            return False
        match judge(fields, now):
            case Drop():
                await self._drop(p, run)
                return True
            case Fill(families):
                for family in families:
                    answer = Answer(run=run, family=family, entry="", outcome="missing", stored=b"")
                    await self._scripts.verdict(answer)
                return True
            case Fail(failure):
                return await self._fail(run, fields, failure)

    async def _astray(self, p: str, now: int) -> int:
        """Cleared runs that neither wait nor lie in a lane, put back to the gate; a page of the live runs a round."""
        start = self._looked.get(p, 0)
        page = [run.decode() for run in await self._redis.execute("ZRANGE", f"{p}:live", start, start + _PAGE - 1)]
        self._looked[p] = start + _PAGE if len(page) == _PAGE else 0
        rows = await asyncio.gather(
            *(self._redis.execute("HMGET", f"{p}:run:{run}", "state", "t:cleared") for run in page)
        )
        old = [run for run, row in zip(page, rows, strict=True) if is_old(row[0], row[1], now)]
        found = [run for run in old if await self._scripts.regate(run)]
        if found:
            log.warning("runs were put back to the gate", runs=found[:10], count=len(found))
            metrics.inc("headrace_swept_total", len(found), reason="astray")
        return len(found)

    async def _drop(self, p: str, run: str) -> None:
        """Forget a run without state; the deadline goes last, so that a crash is repeated."""
        body = f"{p}:body:{run}"
        size = await self._redis.execute("STRLEN", body)
        if await self._redis.execute("DEL", body):
            await self._redis.execute("DECRBY", f"{p}:bytes", size)
        await self._redis.execute("ZREM", f"{p}:live", run)

    async def _fail(self, run: str, fields: Mapping[str, bytes], failure: Failure) -> bool:
        epoch, sequence = int(fields["epoch"]), int(fields["seq"])
        frame = self._seals.error(run, epoch, sequence + 1, failure)
        ending = self._seals.ending(cut_short(run, fields, failure), epoch)
        state = fields["state"].decode()
        ended = await self._scripts.end(run, "state", state, f"{epoch}-{sequence}", frame, ending) == "ok"
        metrics.inc("headrace_swept_total", int(ended), reason="deadline")
        return ended

    async def _lost_doors(self, p: str, now: int) -> None:
        """Watchers of an ingress that is silent for the grace time have left; their runs follow their policy."""
        lost = await self._redis.execute("ZRANGEBYSCORE", f"{p}:doors", "-inf", now - _LOST_GRACE_MS)
        if not lost:
            return
        for run in await self._redis.execute("ZRANGE", f"{p}:live", 0, -1):
            for door in lost:
                await self._scripts.watch(run.decode(), f"{door.decode()}#", add=False)
        await self._redis.execute("ZREM", f"{p}:doors", *lost)

    async def _unwatched(self, p: str) -> int:
        """Runs that nobody watches and whose policy ends them now; those of a door lost just now too."""
        now = time_ms(await self._redis.execute("TIME"))
        due = await self._redis.execute("ZRANGEBYSCORE", f"{p}:left", "-inf", now, "LIMIT", 0, _PAGE * _PAGES)
        return sum([await self._try(run.decode(), self._follow_policy(p, run.decode())) for run in due])

    async def _follow_policy(self, p: str, run: str) -> bool:
        """End it as its last watcher's going means. An end takes its time along; a flag and a loss need help."""
        fields = await self._runs.fields(run)
        by = fields.get("leaver", b"client").decode()
        done = await cancel_run(self._scripts, self._runs, self._seals, run, by, unwatched=True)
        if done in ("flagged", "gone"):
            await self._redis.execute("ZREM", f"{p}:left", run)
        ended = done in ("flagged", "cancelled")
        metrics.inc("headrace_swept_total", int(ended), reason="left")
        return ended
