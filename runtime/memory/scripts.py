"""MemoryScripts: every script of runtime/lua, step for step, over a MemoryServer.

The Lua files are the original: each method here follows the file of its name, `_finish` follows lib.lua.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from runtime.acceptance import Acceptance, Accepted, Repeat
from runtime.client import ServerError
from runtime.memory import once
from runtime.memory.gate import FAR_MS, MemoryGates, lane_of
from runtime.memory.server import Group, Held, MemoryServer, Stream, id_of, text_of
from runtime.names import prefix_of, starts_key, stream_prefix
from runtime.scripts import (
    Answer,
    Claim,
    DeadLetter,
    Ending,
    SealedFrame,
    Seat,
    Taken,
    Watched,
)
from runtime.scripts import Held as HeldEntry
from schemas.envelope import Signed
from schemas.verdicts import REFUSE

Values = dict[str, str | bytes | int]

_TIMES = ("accepted", "cleared", "claimed", "first")


class MemoryScripts:
    """Twin of runtime.scripts.RedisScripts."""

    def __init__(self, server: MemoryServer, retention_ms: int) -> None:
        self._server = server
        self._gates = MemoryGates(server)
        self._retention = retention_ms

    # --- a run's way in -------------------------------------------------------------------------------------------

    async def accept(self, new: Acceptance) -> tuple[bool, int]:
        await self._server.turn()
        return self._accept(new)

    def _accept(self, new: Acceptance) -> tuple[bool, int]:
        s, p, now = self._server, prefix_of(new.run), self._server.now()
        live = s.live.setdefault(p, {})
        if f"{p}:run:{new.run}" in s.hashes:
            return True, len(live)
        used = s.bytes.get(p, 0) if live else 0
        if len(live) >= new.most_runs or used + len(new.body) > new.most_bytes:
            return False, len(live)
        self._take_in(p, new, used, now)
        return True, len(live)

    def _take_in(self, p: str, new: Acceptance, used: int, now: int) -> None:
        """What the accept script writes."""
        s = self._server
        s.live[p][new.run] = now + new.checks_ms
        s.bodies[f"{p}:body:{new.run}"] = new.body
        s.bytes[p] = used + len(new.body)
        s.add(f"{p}:requests", {"e": new.signed.e, "s": new.signed.s})
        s.hashes[f"{p}:run:{new.run}"] = _hash(
            {
                "state": "checking",
                "families": " ".join(new.families),
                "watchers": new.watcher,
                "policy": new.policy,
                "key": new.key_id,
                "stream": int(new.stream),
                "a": new.signed.e,
                "as": new.signed.s,
                "bytes": len(new.body),
                "deadline": now + new.deadline_ms,
                "seq": 0,
                "epoch": 0,
                "t:accepted": now,
                **({"keep": new.keep_ms} if new.keep_ms else {}),
            }
        )

    async def accept_once(self, new: Acceptance, repeat: Repeat) -> Accepted:
        await self._server.turn()
        seen = once.same_before(self._server, new, repeat)
        if seen is not None:
            return seen
        here = self._hash(new.run) is not None
        fits, live = self._accept(new)
        if fits and not here:
            once.begin(self._server, new, repeat)
        return Accepted(state="new" if fits else "full", live=live)

    async def archived(self, run: str) -> bool:
        await self._server.turn()
        p, found = prefix_of(run), self._hash(run)
        if found is None or found["state"] != b"ended":
            return False
        self._server.expire(f"{p}:run:{run}", self._retention)
        self._server.expire(f"{p}:reply:{run}", self._retention)
        return True

    async def verdict(self, answer: Answer) -> tuple[bool, str]:
        await self._server.turn()
        p, run = prefix_of(answer.run), self._hash(answer.run)
        moved = False
        if run is not None and run["state"] == b"checking":
            due = _words(run, "families")
            if answer.family in due and f"o:{answer.family}" not in run:
                _store_answer(run, answer)
                self._follow_policy(p, answer, run)
            moved = self._decide(p, answer.run, run, due)
        if answer.entry:
            self._server.ack(f"{p}:requests", answer.family, answer.entry)
        return moved, run["state"].decode() if run is not None else "gone"

    def _follow_policy(self, p: str, answer: Answer, run: dict[str, bytes]) -> None:
        """A run that nobody watches follows its policy once authorization has said it."""
        if answer.family != "authorization" or answer.outcome == REFUSE or run.get("watchers"):
            return
        if self._depart(p, answer.run, run["policy"].decode()) == "cancel":
            run["cancel"] = run.get("leaver", b"client")

    def _decide(self, p: str, run_id: str, run: dict[str, bytes], due: Sequence[str]) -> bool:
        """Authorization first: nothing is decided before it answered, and its refusal is the one that shows."""
        if "o:authorization" not in run:
            return False
        refusing = [name for name in ("authorization", *due) if run.get(f"o:{name}") == REFUSE.encode()]
        if refusing:
            by = refusing[0]
            frame = SealedFrame(kind="error", events=1, payload=run[f"rd:{by}"], headers=run.get(f"rh:{by}", b""))
            signed = Signed(run[f"re:{by}"], run[f"rs:{by}"])
            self._finish(p, run_id, run, frame, Ending(kind="RequestRefused", signed=signed, outcome="refused"))
            return True
        if any(f"o:{name}" not in run for name in due):
            return False
        self._clear(p, run_id, run)
        return True

    def _clear(self, p: str, run_id: str, run: dict[str, bytes]) -> None:
        s, pool, lane = self._server, run["pool"].decode(), run["lanename"].decode()
        key, passes = lane_of(p, pool, lane), self._gates.is_open(p, pool, lane)
        s.lanes.setdefault(p, set()).add(key)
        if run_id in s.live.get(p, {}):
            s.live[p][run_id] = int(run["deadline"])
        if passes:
            run["entry"] = self._gates.into_lane(p, pool, lane, run_id).encode()
        else:
            self._gates.wait(p, run_id, run)
        run.update(_hash({"state": "queued", "lane": key, "t:cleared": s.now()}))
        if not passes:
            self._gates.pump(p, pool, 1)

    # --- owning it ------------------------------------------------------------------------------------------------

    async def claim(self, run: str, stream: str, entry: str, consumer: str, owner: str) -> Claim:
        await self._server.turn()
        s, found = self._server, self._hash(run)
        if found is None or found["state"] not in (b"queued", b"running") or found.get("entry") != entry.encode():
            self._drop_entry(stream, entry)
            return Claim(state="gone")
        if self._group(stream, "router").holder(id_of(entry)) != consumer:
            return Claim(state="lost")
        told = dict(found)
        if found.get("owner") != owner.encode():
            epoch, first = int(found["epoch"]) + 1, int(found["seq"]) + 1
            told["epoch"] = str(epoch).encode()
            mine: Values = {"state": "running", "owner": owner, "epoch": epoch, "first": first, "t:claimed": s.now()}
            found.update(_hash(mine))
        return Claim(
            state="ok",
            epoch=int(found["epoch"]),
            sequence=int(found["seq"]),
            left_ms=int(found["deadline"]) - s.now(),
            body=s.bodies.get(f"{prefix_of(run)}:body:{run}", b""),
            fields=told,
        )

    async def flush(self, run: str, owner: str, last: int, frame: SealedFrame) -> str:
        await self._server.turn()
        p, found = prefix_of(run), self._hash(run)
        if found is None or found.get("owner") != owner.encode() or found["state"] != b"running":
            return "lost"
        done = "cancel" if "cancel" in found else "ok"
        sequence = int(found["seq"])
        if sequence == last:
            return done
        if sequence + frame.events != last:
            return "gap"
        key = f"{p}:reply:{run}"
        if sequence > 0 and key not in self._server.streams:
            return "expired"
        epoch = int(found["epoch"])
        fields: Values = {"k": "data", "n": frame.events, "d": frame.payload}
        if frame.headers:
            fields["h"] = frame.headers
        self._server.add(key, fields, (epoch, last))
        found.setdefault("t:first", str(self._server.now()).encode())
        found["seq"] = str(last).encode()
        self._push(
            p,
            run,
            found,
            epoch,
            last,
            SealedFrame(kind="data", events=frame.events, payload=frame.payload, headers=frame.headers),
        )
        return done

    async def end(self, run: str, guard: str, value: str, place: str, frame: SealedFrame, ending: Ending) -> str:
        await self._server.turn()
        found = self._hash(run)
        if found is None:
            return "lost"
        state, mine = found["state"].decode(), found.get("owner") == value.encode()
        if state == "ended":
            if guard == "owner" and not mine:
                return "lost"
            self._drop_run_entry(found)
            return "ended"
        held = {
            "owner": mine and state == "running",
            "state": state == value,
            "unwatched": state != "running" and not found.get("watchers"),
        }[guard]
        if not held or _place(found) != place:
            return "lost"
        self._finish(prefix_of(run), run, found, frame, ending)
        return "ok"

    def _finish(self, p: str, run_id: str, run: dict[str, bytes], frame: SealedFrame, ending: Ending) -> None:
        """lib.lua's finish: last frame, fact, freeing, push, terminal state, acknowledgement."""
        s, now = self._server, self._server.now()
        billed = int(run["seq"]) > 0 or (ending.tokens or 0) > 0
        kept = ending.outcome == "completed" or (ending.outcome == "failed" and billed)
        keep = int(run.get("keep", b"0")) if kept else 0
        retention = max(self._retention, keep)
        epoch, sequence = int(run["epoch"]), int(run["seq"]) + frame.events
        reply: Values = {"k": frame.kind, "n": frame.events, "d": frame.payload, "h": frame.headers}
        s.add(f"{p}:reply:{run_id}", reply, (epoch, sequence))
        s.add(f"{p}:facts", _fact(run_id, run, epoch, ending, now) | ({"keep": keep} if keep else {}))
        freed = s.bodies.pop(f"{p}:body:{run_id}", b"")
        s.bytes[p] = max(0, s.bytes.get(p, 0) - len(freed))
        s.live.get(p, {}).pop(run_id, None)
        if not run.get("watchers"):
            s.left.get(p, {}).pop(run_id, None)
        s.expire(f"{p}:reply:{run_id}", retention)
        s.expire(f"{p}:run:{run_id}", retention)
        once.end(s, run_id, run, kept)
        self._push(p, run_id, run, epoch, sequence, frame)
        run.update(_hash({"state": "ended", "outcome": ending.outcome, "seq": sequence, "t:ended": now}))
        self._gates.leave(p, run_id, run, ending.tokens)
        self._drop_run_entry(run)

    def _push(self, p: str, run_id: str, run: dict[str, bytes], epoch: int, sequence: int, frame: SealedFrame) -> None:
        """The stored bytes to every watching door, once each."""
        head = f"{run_id} {epoch} {sequence} {frame.events} {frame.kind} {len(frame.headers)}\n"
        message = head.encode() + frame.headers + frame.payload
        for door in dict.fromkeys(watcher.partition("#")[0] for watcher in _words(run, "watchers")):
            self._server.publish(f"{p}:push:{door}", message)

    def _drop_run_entry(self, run: dict[str, bytes]) -> None:
        if "entry" in run:
            self._drop_entry(run["lane"].decode(), run["entry"].decode())

    def _drop_entry(self, lane: str, entry: str) -> None:
        self._server.starts.get(starts_key(lane, "router"), {}).pop(entry, None)
        self._server.delete(lane, entry)
        p, _, rest = lane.partition(":cleared:")
        self._gates.pump(p, rest.rpartition(":")[0], 1)
        self._server.ack(lane, "router", entry)

    async def tenure(self, p: str) -> float:
        await self._server.turn()
        s, now = self._server, self._server.now()
        id, since = s.servers.get(p, ("", 0))
        if id == s.run_id and since <= now:
            return (now - since) / 1000
        s.servers[p] = (s.run_id, now)
        return 0.0

    async def announce(self, p: str, router: str, holds_ms: int, slots: Mapping[str, int], most: int) -> Seat:
        await self._server.turn()
        now, left = self._server.now(), most
        routers = {
            name: until for name, until in self._server.routers.get(p, {}).items() if now < until <= now + FAR_MS
        }
        routers.pop(router, None)
        if holds_ms:
            routers[router] = now + holds_ms
        self._server.routers[p] = routers
        for pool, count in slots.items():
            gate = self._gates.of(p, pool)
            gate.slots.pop(router, None)
            if holds_ms:
                gate.slots[router] = (count, now + holds_ms)
            gate.add_up(now)
            left -= self._gates.pump(p, pool, left)
        names = sorted(routers)
        return Seat(place=names.index(router) if router in names else -1, routers=len(names), admitted=most - left)

    async def regate(self, run: str) -> bool:
        await self._server.turn()
        p, found = prefix_of(run), self._hash(run)
        if found is None or found["state"] != b"queued":
            return False
        entries = self._server.streams.get(found["lane"].decode(), Stream()).entries
        if "entry" in found and id_of(found["entry"].decode()) in entries:
            return False
        if "entry" not in found and self._gates.waits(p, run, found):
            return False
        found.pop("entry", None)
        self._gates.wait(p, run, found)
        self._gates.pump(p, found["pool"].decode(), 1)
        return True

    # --- from outside ---------------------------------------------------------------------------------------------

    async def cancel(self, run: str, by: str, *, unwatched: bool = False) -> str:
        await self._server.turn()
        found = self._hash(run)
        if found is None:
            return "gone"
        if unwatched and found.get("watchers"):
            return "watched"
        if found["state"] != b"running":
            return found["state"].decode()
        found["cancel"] = by.encode()
        router = found["owner"].decode().partition(":")[0]
        self._server.publish(f"{prefix_of(run)}:push:{router}", f"cancel {run}".encode())
        return "flagged"

    async def watch(self, run: str, watcher: str, *, add: bool) -> Watched:
        await self._server.turn()
        found = self._hash(run)
        if found is None:
            return Watched(state="gone")
        whole, before = watcher.endswith("#"), _words(found, "watchers")
        kept = [word for word in before if word != watcher and not (whole and word.startswith(watcher))]
        if add:
            kept.append(watcher)
        undecided = found["state"] == b"checking" and "o:authorization" not in found
        policy = "undecided" if undecided else found["policy"].decode()
        if found["state"] != b"ended":
            if kept and not before:
                self._server.left.get(prefix_of(run), {}).pop(run, None)
            elif before and not kept:
                if not undecided:
                    self._depart(prefix_of(run), run, policy)
                found["leaver"] = b"lost" if whole else b"client"
            found["watchers"] = " ".join(kept).encode()
        return Watched(
            state=found["state"].decode(),
            watchers=len(kept),
            policy=policy,
            sequence=int(found["seq"]),
            epoch=int(found["epoch"]),
        )

    def _depart(self, p: str, run_id: str, policy: str) -> str:
        """lib.lua's depart: when the run ends unless somebody comes back."""
        word, _, seconds = policy.partition(":")
        if word != "finish":
            self._server.left.setdefault(p, {})[run_id] = self._server.now() + round(1000 * float(seconds or 0))
        return word

    # --- groups ---------------------------------------------------------------------------------------------------

    async def beat(self, stream: str, group: str, consumer: str, held: Sequence[HeldEntry]) -> list[str]:
        await self._server.turn()
        return [self._beat(stream, self._group(stream, group), consumer, item) for item in held]

    def _beat(self, stream: str, group: Group, consumer: str, item: HeldEntry) -> str:
        if group.holder(id_of(item.entry)) != consumer:
            return "lost"
        state = "ok"
        if item.owner:
            run = self._hash(item.run) or {}
            if run.get("owner") != item.owner.encode() or run.get("state") != b"running":
                return "lost"
            state = "cancel" if "cancel" in run else "ok"
        self._claim_again(stream, group, item.entry, self._server.now())
        return state

    def _claim_again(self, stream: str, group: Group, entry: str, since_ms: int) -> None:
        """XCLAIM by the holder: sets the idle time, or drops an entry that was deleted under it."""
        if id_of(entry) in self._server.streams[stream].entries:
            group.pending[id_of(entry)].since_ms = since_ms
        else:
            del group.pending[id_of(entry)]

    async def take(self, stream: str, group: str, consumer: str, idle_ms: int, entry: str) -> Taken:
        await self._server.turn()
        found, id = self._group(stream, group), id_of(entry)
        row = found.pending.get(id)
        if row is None or row.since_ms > self._server.now() - idle_ms:
            return Taken(state="idle_no_more")
        counts = self._server.starts.setdefault(starts_key(stream, group), {})
        fields = self._server.streams[stream].entries.get(id)
        if fields is None:
            counts.pop(entry, None)
            del found.pending[id]
            return Taken(state="missing")
        found.consumers.add(consumer)
        found.pending[id] = Held(consumer, self._server.now())
        counts[entry] = counts.get(entry, 0) + 1
        return Taken(state="taken", starts=counts[entry], fields=dict(fields))

    async def release(
        self, stream: str, group: str, consumer: str, idle_ms: int, entries: Sequence[tuple[str, int]]
    ) -> int:
        await self._server.turn()
        found, given = self._group(stream, group), 0
        counts = self._server.starts.setdefault(starts_key(stream, group), {})
        for entry, starts in entries:
            if found.holder(id_of(entry)) != consumer:
                continue
            if starts:
                counts[entry] = starts
            else:
                counts.pop(entry, None)
            self._claim_again(stream, found, entry, self._server.now() - idle_ms)
            given += 1
        return given

    async def dead(self, letter: DeadLetter) -> str:
        await self._server.turn()
        s, p = self._server, stream_prefix(letter.stream)
        if self._group(letter.stream, letter.group).holder(id_of(letter.entry)) != letter.consumer:
            return "lost"
        said: Values = {"stream": letter.stream, "group": letter.group, "entry": letter.entry, "starts": letter.starts}
        s.add(f"{p}dlq", {**said, "reason": letter.reason, "run": letter.run, "d": letter.sealed})
        run = self._hash(letter.run) if letter.run else None
        if run is not None and letter.ending and run["state"] != b"ended" and _place(run) == letter.place:
            mine = (
                run.pop("entry", b"") if run.get("entry") == letter.entry.encode() else b""
            )  # acknowledged below, last
            frame = SealedFrame(kind="error", events=1, payload=letter.frame)
            self._finish(p.rstrip(":"), letter.run, run, frame, letter.ending)
            run.update({"entry": mine} if mine else {})
        if ":cleared:" in letter.stream:
            self._drop_entry(letter.stream, letter.entry)
        else:
            s.starts.get(starts_key(letter.stream, letter.group), {}).pop(letter.entry, None)
            s.ack(letter.stream, letter.group, letter.entry)
        return "dead"

    async def trim(self, stream: str, groups: Sequence[str]) -> int:
        await self._server.turn()
        found = self._server.streams.get(stream)
        if found is None or not found.groups or any(name not in found.groups for name in groups):
            return 0
        least = min(min(group.pending, default=(group.last[0], group.last[1] + 1)) for group in found.groups.values())
        gone = [id for id in found.entries if id < least]
        for id in gone:
            del found.entries[id]
        return len(gone)

    async def retire(self, stream: str, group: str, consumer: str) -> bool:
        await self._server.turn()
        found = self._group(stream, group)
        if any(row.consumer == consumer for row in found.pending.values()):
            return False
        found.consumers.discard(consumer)
        return True

    async def disown(self, stream: str, group: str, consumer: str, idle_ms: int) -> int:
        await self._server.turn()
        rows = [row for row in self._group(stream, group).pending.values() if row.consumer == consumer]
        for row in rows:
            row.since_ms = self._server.now() - idle_ms
        return len(rows)

    # --- helpers --------------------------------------------------------------------------------------------------

    def _hash(self, run: str) -> dict[str, bytes] | None:
        return self._server.hashes.get(f"{prefix_of(run)}:run:{run}")

    def _group(self, stream: str, group: str) -> Group:
        found = self._server.group(stream, group)
        if found is None:
            raise ServerError(f"NOGROUP No such key '{stream}' or consumer group '{group}'")
        return found


def _store_answer(run: dict[str, bytes], answer: Answer) -> None:
    """One family's answer into the hash; empty parts are left out."""
    family, ending = answer.family, answer.ending
    wanted: Values = {f"v:{family}": answer.stored}
    if answer.outcome == REFUSE:
        wanted[f"rd:{family}"] = answer.frame
        wanted[f"rh:{family}"] = answer.headers
        wanted[f"re:{family}"] = ending.signed.e if ending else b""
        wanted[f"rs:{family}"] = ending.signed.s if ending else b""
    if family == "authorization":
        wanted.update(pool=answer.pool, lanename=answer.lane, tenant=answer.tenant, policy=answer.policy)
        wanted.update(weight=str(answer.weight), cost=str(answer.cost), priority=str(answer.priority))
    run[f"o:{family}"] = answer.outcome.encode()
    run.update(_hash({name: value for name, value in wanted.items() if value}))


def _fact(run_id: str, run: dict[str, bytes], epoch: int, ending: Ending, now: int) -> Values:
    """The terminal fact with everything that its readers need."""
    times = {name: int(run.get(f"t:{name}", b"0")) for name in _TIMES}
    if ending.outcome == "completed":
        times["first"] = times["first"] or now
    entry: Values = {
        "run": run_id,
        "kind": ending.kind,
        "n": epoch,
        "e": ending.signed.e,
        "s": ending.signed.s,
        "t": msgspec.json.encode({**times, "ended": now}),
        "a": run.get("a", b""),
        "as": run.get("as", b""),
    }
    for family in _words(run, "families"):
        if f"v:{family}" in run:
            entry[f"v:{family}"] = run[f"v:{family}"]
    return entry


def _place(run: dict[str, bytes]) -> str:
    return text_of((int(run["epoch"]), int(run["seq"])))


def _words(run: dict[str, bytes], name: str) -> list[str]:
    return run.get(name, b"").decode().split()


def _hash(fields: Values) -> dict[str, bytes]:
    return {name: value if isinstance(value, bytes) else str(value).encode() for name, value in fields.items()}
