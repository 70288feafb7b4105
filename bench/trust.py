"""What trust between the rooms costs: `python -m bench.trust`, or the play `trust` of scripts/promises.

Microseconds to write an event (encode and sign) and to read it (verify and decode), of a verdict, and of a frame of 200
bytes (seal and open). One process, no I/O; CPU time, the best of several rounds, because everything else on the machine
only adds to it. Promise: writing and reading an event together stay below MOST_US.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import process_time

from base.clock import SystemClock
from base.crypto import KeyRing, Signer, Verifier, new_ring_key
from base.ids import SystemRandom, mint_run_id
from bench.rolling import table
from runtime.seals import Seals
from runtime.topology import load
from schemas import envelope as wire
from schemas.envelope import Signed
from schemas.events import KeyChanged, RequestAccepted, RequestCompleted, Usage
from schemas.verdicts import PASS, Grant, Verdict, open_verdict, seal_verdict

MOST_US = 20.0
_ROUNDS, _CALLS = 7, 2_000
HEAD = ("", "bytes", "write us", "read us", "both us")


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of message. event: the promise is about it."""

    name: str
    size: int
    write_us: float
    read_us: float
    event: bool = True

    def broken(self) -> list[str]:
        """The promises that did not hold."""
        both = self.write_us + self.read_us
        return [f"{self.name} costs {both:.1f} us"] if self.event and both > MOST_US else []

    def cells(self) -> tuple[str, ...]:
        """For a table under HEAD."""
        figures = (self.write_us, self.read_us, self.write_us + self.read_us)
        return self.name, str(self.size), *(f"{figure:.1f}" for figure in figures)


def microseconds(call: Callable[[], object]) -> float:
    """CPU time of one call, the best of the rounds."""
    best = float("inf")
    for _ in range(_ROUNDS):
        begun = process_time()
        for _ in range(_CALLS):
            call()
        best = min(best, process_time() - begun)
    return best / _CALLS * 1e6


def rows() -> list[Row]:
    """Every kind."""
    clock, chance = SystemClock(), SystemRandom()
    ring, topology = KeyRing([new_ring_key(chance, "k1")]), load()
    run = mint_run_id(clock, chance, 0)
    events: Sequence[tuple[str, str, wire.Event]] = (
        ("requests", "ingress", _accepted(run)),
        ("facts", "router", RequestCompleted(run=run, model="m", endpoint="e1", usage=Usage(prompt_tokens=100))),
        ("control", "console", KeyChanged(key_id="00000000000000aa")),
    )
    found = [_event(ring, topology.streams[stream].publishers, stream, by, event) for stream, by, event in events]
    return [*found, _verdict(ring, run), _frame(ring, run, clock, chance)]


def _event(ring: KeyRing, publishers: wire.Publishers, stream: str, by: str, event: wire.Event) -> Row:
    signer, verifier = Signer(ring, by), Verifier(ring)

    def write() -> Signed:
        return wire.sign(signer, stream, wire.encode(event, id="0" * 36, by=by, run="0" * 36, deadline_ms=60_000))

    said = write()
    read = microseconds(lambda: wire.verify(verifier, stream, publishers, said))
    return Row(type(event).__name__, len(said.e) + len(said.s), microseconds(write), read)


def _verdict(ring: KeyRing, run: str) -> Row:
    grant = Grant(tenant="org", key_id="00000000000000aa", pool="m", fail={"rules": "closed"}, scopes=("key:aa",))
    verdict = Verdict(
        run=run, family="authorization", outcome=PASS, policy="p1", body_digest="ab" * 32, grant=grant, took_us=80
    )
    signer, verifier = Signer(ring, verdict.family), Verifier(ring)
    stored = seal_verdict(signer, verdict)
    write = microseconds(lambda: seal_verdict(signer, verdict))
    return Row("verdict", len(stored), write, microseconds(lambda: open_verdict(verifier, verdict.family, stored)))


def _frame(ring: KeyRing, run: str, clock: SystemClock, chance: SystemRandom) -> Row:
    seals, payload = Seals(ring, "router", clock, chance), b"x" * 200
    sealed = seals.frame(run, 1, 2, "data", 1, payload, None)
    write = microseconds(lambda: seals.frame(run, 1, 2, "data", 1, payload, None))
    read = microseconds(lambda: seals.open_frame(run, 1, 2, "data", 1, sealed.payload, b""))
    return Row("frame", len(sealed.payload), write, read, event=False)


def _accepted(run: str) -> RequestAccepted:
    return RequestAccepted(
        run=run,
        route="/v1/chat/completions",
        model="m",
        stream=True,
        key_id="00000000000000aa",
        secret_mac="ab" * 32,
        mac_kid="k1",
        body_digest="cd" * 32,
        body_bytes=1_000,
        door="ingress-1",
        families=("authorization", "rules", "persons"),
    )


if __name__ == "__main__":
    print(table(HEAD, [row.cells() for row in rows()]))
