"""POST /v1/responses: a run like any other, but for what is kept of it and for who waits.

In the background nobody has to: the client is shown the object as it stands, or the stream as long as it likes, and the
run goes on. A failure after the first byte is an event with the whole object, as clients of this API read failures.
"""

from __future__ import annotations

from collections.abc import Mapping

import orjson
from msgspec.structs import replace

from base import logs
from ingress.asked import Asked
from ingress.credentials import allow
from ingress.exchange import Exchange
from ingress.headers import Wishes
from ingress.reading import Found
from ingress.responses.asked import PREVIOUS, asked_of, decide, fields_of, is_reference
from ingress.responses.conversation import earlier, in_full
from ingress.responses.resource import Response, failed, last_events, unfinished
from ingress.responses.shown import broken, created_ms, object_of
from ingress.routes.work import Work
from policy.api_keys import Credential
from policy.disconnect import FINISH, HEADER
from schemas.errors import Code, Failure, HeadraceError, Refusal
from schemas.ports import NewRun, Watch

log = logs.room("ingress")


def _too_long(limit: int, param: str) -> Refusal:
    words = f"With the turns before it this request is larger than the limit of {limit} bytes."
    return Refusal.of(Code.request_too_large, words, param=param)


class ResponsesWork(Work):
    """The ASGI handler of the route."""

    async def _asked(self, raw: bytes, headers: Mapping[bytes, bytes]) -> Asked:
        """Whoever names an earlier response or an item of one, or will not wait, is authenticated here: by what they
        may see, and because a refusal after `queued` would be read late."""
        fields = decide(fields_of(raw), allow_store=self._settings.allow_store)
        previous, refers = fields.get(PREVIOUS), any(map(is_reference, fields["input"]))
        if not (previous or refers or fields["background"]):
            return asked_of(fields)
        said = asked_of(fields).body if previous or refers else b""
        key = (await allow(headers, self._parts, fields["model"])).key
        items = await in_full(self._parts, fields["input"], key)
        fields["input"] = [*await earlier(self._parts, previous, key), *items] if previous else items
        asked = asked_of(fields)
        if said and len(asked.body) > self._settings.body_limit:
            raise _too_long(self._settings.body_limit, PREVIOUS if previous else "input")
        return replace(asked, said=said)

    def _new_run(self, run: str, asked: Asked, who: Credential, wishes: Wishes, strict: bool) -> NewRun:
        new = super()._new_run(run, asked, who, wishes, strict)
        accepted = replace(new.accepted, keep_body=asked.store)
        if not asked.background:
            return replace(new, accepted=accepted)
        if wishes.disconnect:
            words = (
                f"The header '{HEADER}' means nothing with 'background': the run goes on. Leave it out, or cancel it."
            )
            raise Refusal.of(Code.invalid_request, words, param=HEADER)
        accepted = replace(accepted, stream=True, background=True, on_disconnect=FINISH)
        return replace(new, accepted=accepted, deadline_ms=round(self._settings.background_deadline * 1000))

    async def _answer(self, watch: Watch, out: Exchange, new: NewRun) -> bool:
        async def last_words(failure: Failure) -> bytes:
            return b"".join(last_events(out.events, await self._broken(watch.run, new, failure)))

        out.last_words = last_words
        if new.accepted.background and not orjson.loads(new.body).get("stream"):
            await self._at_once(watch, out, new)
            return False
        return await super()._answer(watch, out, new)

    async def _broken(self, run: str, new: NewRun, failure: Failure) -> Response:
        """What is left of a response that broke off; without the store, what was asked."""
        try:
            status = await self._parts.door.status(run)
            if status is not None:
                return await broken(self._parts, status, failure)
        except HeadraceError as error:
            log.warning("what was said of a response cannot be read", run=run, reason=str(error))
        return failed(unfinished(run, self._parts.clock.now_ms(), orjson.loads(new.body), "failed"), failure)

    async def _at_once(self, watch: Watch, out: Exchange, new: NewRun) -> None:
        """The object as it stands: queued, unless the request came before under its Idempotency-Key."""
        if watch.replayed and new.once is not None:
            shown = await self._earlier(watch.run, new.once.tenant)
        else:
            status = await self._parts.door.status(watch.run)
            born = created_ms(status) if status else self._parts.clock.now_ms()
            shown = unfinished(watch.run, born, orjson.loads(new.body), "queued")
        await out.answer(200, orjson.dumps(shown))

    async def _earlier(self, run: str, tenant: str) -> Response:
        """What has become of the first request under the key."""
        parts = self._parts
        found: Found | None = await parts.door.status(run)
        if found is None and parts.archive is not None:
            found = await parts.archive.find(tenant, run, parts.clock.now_ms())
        if found is None:
            raise Refusal.of(Code.not_found, "The response under this Idempotency-Key is no longer kept.")
        return await object_of(parts, found)
