"""Carrying out what handlers decided: verdicts, dead letters. Used by the engine, known to no handler."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.group_spec import Spec
from runtime.groups import Row
from runtime.jointly import Alone, Verdicts
from runtime.runs import Runs, cut_short
from runtime.scripts import Answer, DeadLetter, Ending, Scripts
from runtime.seals import Seals
from schemas import envelope as wire
from schemas.errors import Code, DecodeError, Failure, SignatureError, UnknownVersion
from schemas.events import RequestRefused
from schemas.outcomes import Decided, Delivery
from schemas.verdicts import REFUSE, limit_headers, seal_verdict

_GAVE_UP = Failure(
    code=Code.internal_error,
    message="The request could not be handled; it was set aside for the operator. Retry it, and report its request id "
    "if it fails again.",
)


class Acts:
    """Implements runtime.consume.Acts for one publisher. verdicts: where they go, else alone to `scripts`."""

    def __init__(self, scripts: Scripts, runs: Runs, seals: Seals, verdicts: Verdicts | None = None) -> None:
        self._scripts, self._runs, self._seals = scripts, runs, seals
        self._verdicts = verdicts or Alone(scripts)

    async def decided(self, pairs: Sequence[tuple[Delivery, Decided]]) -> None:
        """Sign and store the verdicts; the script acknowledges each and moves its run on."""
        await self._verdicts.tell([self._answer(delivery, outcome) for delivery, outcome in pairs])

    def _answer(self, delivery: Delivery, outcome: Decided) -> Answer:
        verdict = outcome.verdict
        frame, headers, ending = b"", b"", None
        if verdict.outcome == REFUSE:
            failure = verdict.failure or _GAVE_UP
            fact = outcome.ending or RequestRefused(run=verdict.run, family=verdict.family, failure=failure)
            shown = self._seals.error(verdict.run, 0, 1, failure, limit_headers(verdict.grant) if verdict.grant else {})
            frame, headers = shown.payload, shown.headers
            ending = self._seals.ending(fact, 0)
        grant = verdict.grant
        return Answer(
            run=verdict.run,
            family=verdict.family,
            entry=delivery.entry,
            outcome=verdict.outcome,
            stored=seal_verdict(self._seals.signer, verdict),
            pool=grant.pool if grant else "",
            lane=grant.lane if grant else "",
            tenant=grant.tenant if grant else "",
            policy=grant.on_disconnect if grant else "",
            weight=grant.weight if grant else 1,
            cost=grant.cost if grant else 1,
            priority=grant.priority if grant else 0,
            frame=frame,
            headers=headers,
            ending=ending,
            asked=delivery,
        )

    async def dead(self, row: Row, spec: Spec, consumer: str, starts: int, reason: str) -> None:
        """To the dead letters; the entry's run ends with it if the entry was genuine."""
        run = self._genuine(row, spec)
        place, frame, ending = await self._last_words(run) if run else ("", b"", None)
        await self._scripts.dead(
            DeadLetter(
                stream=row.stream,
                group=spec.group,
                consumer=consumer,
                entry=row.entry,
                starts=starts,
                sealed=self._seals.letter(row.fields, row.entry),
                reason=reason[:500],
                run=run if ending else "",
                place=place,
                frame=frame,
                ending=ending,
            )
        )

    def _genuine(self, row: Row, spec: Spec) -> str:
        """The run of a signed entry (or of one that only a script could write), else ""."""
        signed = wire.Signed(row.fields.get(b"e", b""), row.fields.get(b"s", b""))
        if spec.stream not in ("requests", "cleared"):
            return ""
        try:
            return wire.verify(self._seals.verifier, spec.stream, spec.publishers, signed)[0].run
        except (DecodeError, SignatureError, UnknownVersion):
            return ""

    async def _last_words(self, run: str) -> tuple[str, bytes, Ending | None]:
        fields = await self._runs.fields(run)
        if not fields or fields["state"] == b"ended":
            return "", b"", None
        epoch, sequence = int(fields["epoch"]), int(fields["seq"])
        frame = self._seals.error(run, epoch, sequence + 1, _GAVE_UP).payload
        return f"{epoch}-{sequence}", frame, self._seals.ending(cut_short(run, fields, _GAVE_UP), epoch)
