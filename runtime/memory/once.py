"""What an Idempotency-Key remembers in a MemoryServer: same_before of accept.lua, and its part of finish.lua."""

from __future__ import annotations

from runtime.acceptance import Acceptance, Accepted, Repeat
from runtime.memory.server import MemoryServer
from runtime.names import once_key, prefix_of

Run = dict[str, bytes]


def same_before(s: MemoryServer, new: Acceptance, repeat: Repeat) -> Accepted | None:
    """The run that the key has; None = it has none, and this may become it."""
    p, known = prefix_of(new.run), False
    for number, mark in enumerate(repeat.marks):
        m = s.hashes.get(once_key(p, mark.name))
        if m is None:
            continue
        known, r = True, s.hashes.get(f"{p}:run:{m['run'].decode()}")
        lost = m["fate"] == b"" and r is None
        if m["fate"] != b"forgotten" and not lost:
            return _found(s, p, m, r, new, mark.asked)
        mine = lost and m["run"] == new.run.encode()
        if number == 0 and not mine and int(m["life"]) >= repeat.life:
            return Accepted(state="again", life=int(m["life"]) + 1)
    if known or repeat.asked:
        return None
    since = s.once.setdefault(p, s.now())
    return Accepted(state="unknown") if s.now() - since < new.keep_ms else None


def _found(s: MemoryServer, p: str, m: Run, r: Run | None, new: Acceptance, asked: str) -> Accepted:
    """It has a run: watch it, if it is the same request and still here."""
    run = m["run"].decode()
    if m["asked"] != asked.encode():
        return Accepted(state="other", run=run)
    if r is None:
        return Accepted(state="gone", run=run)
    watchers = r["watchers"].decode().split()
    if new.watcher in watchers:
        mine = run == new.run
        return Accepted(state="new", live=len(s.live.get(p, {}))) if mine else Accepted(state="watched", run=run)
    if r["state"] != b"ended":
        if "cancel" in r:
            return Accepted(state="ending", run=run)
        if not watchers:
            s.left.get(p, {}).pop(run, None)
        r["watchers"] = " ".join([*watchers, new.watcher]).encode()
    return Accepted(state="watched", run=run)


def begin(s: MemoryServer, new: Acceptance, repeat: Repeat) -> None:
    """The key has this run now."""
    p, mark = prefix_of(new.run), repeat.marks[0]
    key = once_key(p, mark.name)
    s.hashes[f"{p}:run:{new.run}"]["once"] = key.encode()
    fields = {"run": new.run, "life": str(repeat.life), "asked": mark.asked, "fate": ""}
    s.hashes[key] = {name: value.encode() for name, value in fields.items()}
    s.expire(key, new.deadline_ms + new.keep_ms)


def end(s: MemoryServer, run_id: str, run: Run, kept: bool) -> None:
    """What becomes of the key once its run has ended."""
    key = run.get("once", b"").decode()
    mark = s.hashes.get(key)
    if mark is not None and mark["run"] == run_id.encode():
        mark["fate"] = b"kept" if kept else b"forgotten"
        s.expire(key, int(run["keep"]))
