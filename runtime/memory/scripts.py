"""MemoryScripts: every script of runtime/lua, step for step, over a MemoryServer.

The Lua files are the original: each method here follows the file of its name. Those of groups stand in entries.py, what
several have in common in steps.py, the gate and the Idempotency-Keys in files of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from runtime.acceptance import Acceptance, Accepted, Repeat
from runtime.claims import Claim, Handed, Moved, Taker
from runtime.memory import once
from runtime.memory.entries import MemoryEntries
from runtime.memory.gate import FAR_MS, lane_of
from runtime.memory.server import Held as Pending
from runtime.memory.server import Id, Stream, id_of, text_of
from runtime.memory.steps import Values, doors_of, hash_of, many, place_of, words
from runtime.names import kept_key, prefix_of
from runtime.scripts import (
    Answer,
    Ending,
    Said,
    SealedFrame,
    Seat,
    Watched,
    Write,
    only,
)
from schemas.envelope import Signed
from schemas.errors import HeadraceError
from schemas.verdicts import REFUSE

#: What a router needs of a run's hash beside the verdicts.
_CLAIMED = frozenset({"a", "as", "cancel", "deadline", "t:accepted", "t:cleared"})


class MemoryScripts(MemoryEntries):
    """Twin of runtime.scripts.RedisScripts."""

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
        aside = s.aside(p) if new.keep_body else 0
        if len(live) >= new.most_runs or used + aside + len(new.body) > new.most_bytes:
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
        s.hashes[f"{p}:run:{new.run}"] = hash_of(
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
                **({"keepbody": 1} if new.keep_body else {}),
                **({"background": 1} if new.background else {}),
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

    async def archived(self, run: str) -> str:
        await self._server.turn()
        p, found = prefix_of(run), self._hash(run)
        if found is None or found["state"] != b"ended":
            return ""
        self._server.drop(kept_key(run))
        self._server.expire(f"{p}:run:{run}", self._retention)
        self._server.expire(f"{p}:reply:{run}", self._retention)
        return "deleted" if "deleted" in found else "let_go"

    async def forget(self, run: str) -> bool:
        await self._server.turn()
        found = self._hash(run)
        if found is None or found["state"] != b"ended":
            return False
        found["deleted"] = b"1"
        self._server.drop(f"{prefix_of(run)}:reply:{run}")
        self._server.drop(kept_key(run))
        return True

    async def verdict(self, answer: Answer) -> tuple[bool, str]:
        return only(await self.verdicts([Said((answer,))]))[:2]

    async def verdicts(self, said: Sequence[Said]) -> list[Moved | HeadraceError]:
        await self._server.turn()
        return [self._verdict(one.run, one.answers, one.taker) for one in said]

    def _verdict(self, name: str, answers: Sequence[Answer], taker: Taker | None) -> Moved:
        p, run = prefix_of(name), self._hash(name)
        moved, handed = False, None
        if run is not None and run["state"] == b"checking":
            due = words(run, "families")
            for answer in answers:
                self._take_answer(p, answer, run, due)
            done = self._decide(p, name, run, due)
            moved = bool(done)
            if done == "passed" and taker and run["pool"].decode() == taker.pool:
                handed = self._hand_over(name, run, taker)
        elif run is not None and taker and run["state"] == b"running" and run["owner"] == taker.owner.encode():
            handed = self._handed(name, run, taker, id_of(run["entry"].decode()))
        for answer in answers:
            if answer.entry:
                self._server.ack(f"{p}:requests", answer.family, answer.entry)
        return Moved(moved, run["state"].decode() if run is not None else "gone", handed)

    def _hand_over(self, name: str, run: dict[str, bytes], taker: Taker) -> Handed | None:
        """Deliver the lane's next entry to the router that has a place for it."""
        lane = run["lane"].decode()
        group = self._server.group(lane, "router")
        id = next((id for id, _ in self._server.streams[lane].after(group.last)), None) if group else None
        if group is None or id is None:
            return None
        group.consumers.add(taker.consumer)
        group.last = id
        group.pending[id] = Pending(taker.consumer, self._server.now())
        return self._handed(name, run, taker, id)

    def _handed(self, name: str, run: dict[str, bytes], taker: Taker, id: Id) -> Handed:
        fields = self._server.streams[run["lane"].decode()].entries.get(id, {})
        mine = run["entry"] == text_of(id).encode()
        claim = self._own(name, run, taker.owner) if mine else None
        return Handed(entry=text_of(id), envelope=fields.get(b"e", b""), claim=claim)

    def _take_answer(self, p: str, answer: Answer, run: dict[str, bytes], due: Sequence[str]) -> None:
        """The first answer of a family that must give one."""
        if answer.family in due and f"o:{answer.family}" not in run:
            _store_answer(run, answer)
            self._follow_policy(p, answer, run)

    def _follow_policy(self, p: str, answer: Answer, run: dict[str, bytes]) -> None:
        """A run that nobody watches follows its policy once authorization has said it."""
        if answer.family != "authorization" or answer.outcome == REFUSE or run.get("watchers"):
            return
        if self._depart(p, answer.run, run["policy"].decode()) == "cancel":
            run["cancel"] = run.get("leaver", b"client")

    def _decide(self, p: str, run_id: str, run: dict[str, bytes], due: Sequence[str]) -> str:
        """refused | passed | waits (at the gate) | "" nothing yet. Authorization first: nothing is decided before it
        answered, and its refusal is the one that shows."""
        if "o:authorization" not in run:
            return ""
        refusing = [name for name in ("authorization", *due) if run.get(f"o:{name}") == REFUSE.encode()]
        if refusing:
            by = refusing[0]
            frame = SealedFrame(kind="error", events=1, payload=run[f"rd:{by}"], headers=run.get(f"rh:{by}", b""))
            signed = Signed(run[f"re:{by}"], run[f"rs:{by}"])
            self._finish(p, run_id, run, frame, Ending(kind="RequestRefused", signed=signed, outcome="refused"))
            return "refused"
        if any(f"o:{name}" not in run for name in due):
            return ""
        return "passed" if self._clear(p, run_id, run) else "waits"

    def _clear(self, p: str, run_id: str, run: dict[str, bytes]) -> bool:
        """Whether it passed the gate at once."""
        s, pool, lane = self._server, run["pool"].decode(), run["lanename"].decode()
        key, passes = lane_of(p, pool, lane), self._gates.is_open(p, pool, lane)
        s.lanes.setdefault(p, set()).add(key)
        if run_id in s.live.get(p, {}):
            s.live[p][run_id] = int(run["deadline"])
        if passes:
            run["entry"] = self._gates.into_lane(p, pool, lane, run_id).encode()
        else:
            self._gates.wait(p, run_id, run)
        run.update(hash_of({"state": "queued", "lane": key, "t:cleared": s.now()}))
        if not passes:
            self._gates.pump(p, pool, 1)
        return passes

    # --- owning it ------------------------------------------------------------------------------------------------

    async def claim(self, run: str, stream: str, entry: str, consumer: str, owner: str) -> Claim:
        await self._server.turn()
        found = self._hash(run)
        if found is None or found["state"] not in (b"queued", b"running") or found.get("entry") != entry.encode():
            self._drop_entry(stream, entry)
            return Claim(state="gone")
        if self._group(stream, "router").holder(id_of(entry)) != consumer:
            return Claim(state="lost")
        return self._own(run, found, owner)

    def _own(self, run: str, found: dict[str, bytes], owner: str) -> Claim:
        """gate.lua's owned and claim_of."""
        s, told = self._server, dict(found)
        if found.get("owner") != owner.encode():
            epoch, first = int(found["epoch"]) + 1, int(found["seq"]) + 1
            mine: Values = {"state": "running", "owner": owner, "epoch": epoch, "first": first, "t:claimed": s.now()}
            found.update(hash_of(mine))
        return Claim(
            state="ok",
            epoch=int(found["epoch"]),
            sequence=int(found["seq"]),
            left_ms=int(found["deadline"]) - s.now(),
            body=s.bodies.get(f"{prefix_of(run)}:body:{run}", b""),
            fields={name: value for name, value in told.items() if name in _CLAIMED or name.startswith("v:")},
        )

    async def flush(self, writes: Sequence[Write]) -> list[str]:
        await self._server.turn()
        pushes: dict[str, list[Write]] = {}
        said = [self._flush(write, pushes) for write in writes]
        for door, told in pushes.items():
            self._server.publish(f"{prefix_of(writes[0].run)}:push:{door}", many(told))
        return said

    def _flush(self, write: Write, pushes: dict[str, list[Write]]) -> str:
        run, last, frame = write.run, write.last, write.frame
        p, found = prefix_of(run), self._hash(run)
        if found is None or found.get("owner") != write.owner.encode() or found["state"] != b"running":
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
        fields: Values = {"k": "data", "n": frame.events, "d": frame.payload}
        if frame.headers:
            fields["h"] = frame.headers
        self._server.add(key, fields, (write.epoch, last))
        found.setdefault("t:first", str(self._server.now()).encode())
        found |= {"seq": str(last).encode(), "said": str(frame.said).encode()}
        for door in doors_of(found):
            pushes.setdefault(door, []).append(write)
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
        if not held or place_of(found) != place:
            return "lost"
        self._finish(prefix_of(run), run, found, frame, ending)
        return "ok"

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
        whole, before = watcher.endswith("#"), words(found, "watchers")
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
    run.update(hash_of({name: value for name, value in wanted.items() if value}))
