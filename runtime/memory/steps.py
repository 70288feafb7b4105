"""What several scripts of a MemoryServer have in common: lib.lua, finish.lua, and whose a stream's entries are."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from runtime.client import ServerError
from runtime.memory import once
from runtime.memory.gate import MemoryGates
from runtime.memory.server import Group, MemoryServer, text_of
from runtime.names import MANY, kept_key, prefix_of, starts_key
from runtime.scripts import Ending, SealedFrame, Write, head_of

Values = dict[str, str | bytes | int]

_TIMES = ("accepted", "cleared", "claimed", "first")


class Steps:
    """The shared steps over one server."""

    def __init__(self, server: MemoryServer, retention_ms: int) -> None:
        self._server = server
        self._gates = MemoryGates(server)
        self._retention = retention_ms

    def _hash(self, run: str) -> dict[str, bytes] | None:
        return self._server.hashes.get(f"{prefix_of(run)}:run:{run}")

    def _group(self, stream: str, group: str) -> Group:
        found = self._server.group(stream, group)
        if found is None:
            raise ServerError(f"NOGROUP No such key '{stream}' or consumer group '{group}'")
        return found

    def _finish(self, p: str, run_id: str, run: dict[str, bytes], frame: SealedFrame, ending: Ending) -> None:
        """lib.lua's finish: last frame, fact, freeing, push, terminal state, acknowledgement."""
        s, now = self._server, self._server.now()
        billed = int(run["seq"]) > 0 or (ending.tokens or 0) > 0
        kept = ending.outcome == "completed" or (ending.outcome == "failed" and billed)
        shown = kept or "background" in run
        keep = int(run.get("keep", b"0")) if shown else 0
        retention = max(self._retention, keep)
        epoch, sequence = int(run["epoch"]), int(run["seq"]) + frame.events
        reply: Values = {"k": frame.kind, "n": frame.events, "d": frame.payload, "h": frame.headers}
        s.add(f"{p}:reply:{run_id}", reply, (epoch, sequence))
        s.add(f"{p}:facts", _fact(run_id, run, epoch, ending, now) | ({"keep": keep} if keep else {}))
        freed = s.bodies.pop(f"{p}:body:{run_id}", b"")
        s.bytes[p] = max(0, s.bytes.get(p, 0) - len(freed))
        if keep and "keepbody" in run and freed:
            s.bodies[kept_key(run_id)] = freed
            s.expire(kept_key(run_id), keep)
        s.live.get(p, {}).pop(run_id, None)
        if not run.get("watchers"):
            s.left.get(p, {}).pop(run_id, None)
        s.expire(f"{p}:reply:{run_id}", retention)
        s.expire(f"{p}:run:{run_id}", retention)
        once.end(s, run_id, run, kept)
        self._push(p, run_id, run, epoch, sequence, frame)
        run.update(hash_of({"state": "ended", "outcome": ending.outcome, "seq": sequence, "t:ended": now}))
        self._gates.leave(p, run_id, run, ending.tokens)
        self._drop_run_entry(run)

    def _push(self, p: str, run_id: str, run: dict[str, bytes], epoch: int, sequence: int, frame: SealedFrame) -> None:
        """The stored bytes to every watching door, once each."""
        head = f"{run_id} {epoch} {sequence} {frame.events} {frame.kind} {len(frame.headers)}\n"
        message = head.encode() + frame.headers + frame.payload
        for door in doors_of(run):
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

    def _depart(self, p: str, run_id: str, policy: str) -> str:
        """lib.lua's depart: when the run ends unless somebody comes back."""
        word, _, seconds = policy.partition(":")
        if word != "finish":
            self._server.left.setdefault(p, {})[run_id] = self._server.now() + round(1000 * float(seconds or 0))
        return word


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
    for family in words(run, "families"):
        if f"v:{family}" in run:
            entry[f"v:{family}"] = run[f"v:{family}"]
    return entry


def place_of(run: dict[str, bytes]) -> str:
    return text_of((int(run["epoch"]), int(run["seq"])))


def words(run: dict[str, bytes], name: str) -> list[str]:
    return run.get(name, b"").decode().split()


def hash_of(fields: Values) -> dict[str, bytes]:
    return {name: value if isinstance(value, bytes) else str(value).encode() for name, value in fields.items()}


def doors_of(run: dict[str, bytes]) -> list[str]:
    """The ingresses that watch it."""
    return list(dict.fromkeys(watcher.partition("#")[0] for watcher in words(run, "watchers")))


def many(told: Sequence[Write]) -> bytes:
    """flush.lua's push: frames of many runs in one message."""
    heads = " ".join([head_of(write) for write in told])
    return MANY + heads.encode() + b"\n" + b"".join([write.frame.headers + write.frame.payload for write in told])
