"""Responses that are there already: shown, read again from any event, listed, deleted; never to others."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import openai
import orjson
import pytest

from ingress.routes import responses as routes
from schemas.errors import Unavailable
from schemas.records import ArchiveRecord
from schemas.responses import response_id
from storage.memory import MemoryArchive, MemoryRequests
from tests.ingress_support import Gateway, PlayedRun, chat_body, completion, gateway, post, raw, until
from tests.responses_door import answer, ask, begun, body_of, call, delta, event, spoken, tell, whole


async def told(up: Gateway, *texts: str) -> tuple[PlayedRun, list[bytes]]:
    """A streamed run that has ended, and its events."""
    asking = asyncio.create_task(ask(up, stream=True))
    run = await up.door.first()
    events = await tell(run, *texts)
    await asking
    return run, events


async def test_an_ended_stream_is_read_again_byte_for_byte_from_any_event() -> None:
    async with gateway() as up:
        run, events = await told(up, "a", "b")
        for after in range(-1, len(events)):
            query = f"?stream=true&starting_after={after}" if after >= 0 else "?stream=true"
            again = await call(up, "GET", run.run + query)
            assert again.status == 200 and again.body == b"".join(events[after + 1 :])
            assert again.headers["content-type"].startswith("text/event-stream")


async def test_a_frame_of_several_events_is_cut_where_the_reader_stands() -> None:
    async with gateway() as up:
        asking = asyncio.create_task(ask(up, stream=True))
        run = await up.door.first()
        events = [begun(run), delta(1, "a"), delta(2, "b"), event(3, "response.completed", response=whole(run, "ab"))]
        await run.put("data", b"".join(events[:3]), 3)
        await run.put("end", events[3])
        await asking
        assert (await call(up, "GET", run.run + "?stream=true&starting_after=1")).body == b"".join(events[2:])


async def test_a_living_stream_is_followed_by_the_official_client() -> None:
    async with gateway() as up, up.client() as client:
        queued = await client.responses.create(model="tiny", input="x", background=True)
        run = await up.door.first()
        await run.put("data", begun(run) + delta(1, "a"), 2)
        stream = await client.responses.retrieve(queued.id, stream=True, starting_after=0)
        seen = [await anext(aiter(stream))]
        await run.put("data", delta(2, "b"))
        await run.put("end", event(3, "response.completed", response=whole(run, "ab")))
        seen += [one async for one in stream]
        assert [one.sequence_number for one in seen] == [1, 2, 3] and seen[-1].type == "response.completed"


async def test_a_response_that_was_no_stream_cannot_be_read_as_one() -> None:
    async with gateway(answer) as up:
        shown = body_of(await ask(up, input="x"))
        assert body_of(await call(up, "GET", shown["id"])) == shown
        refused = await call(up, "GET", shown["id"] + "?stream=true")
        assert (refused.status, refused.error["param"]) == (400, "stream")


async def test_every_route_refuses_others_unknown_ids_and_runs_that_are_no_responses() -> None:
    async with gateway() as up:
        run, _ = await told(up, "a")
        rival = await up.other_key(tenant="rival")
        chat = asyncio.create_task(raw(up.port, post(up.token, chat_body())))
        await until(lambda: len(up.door.runs) == 2)
        other = next(one for one in up.door.runs.values() if one is not run)
        await other.answer(completion("x"))
        await chat
        for method, rest in (("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/input_items")):
            for name, token in ((run.run, rival), ("resp_x", up.token), (other.run, up.token)):
                refused = await call(up, method, name + rest, token)
                assert (refused.status, refused.error["code"]) == (404, "not_found"), (method, rest, name)
                assert refused.error["param"] == "response_id"
            assert (await call(up, method, run.run + rest, "sk-nothing")).status == 401


async def test_another_key_of_the_tenant_may_read() -> None:
    async with gateway() as up:
        run, _ = await told(up, "a")
        run.tenant = "acme"
        assert (await call(up, "GET", run.run, await up.other_key())).status == 200


async def test_what_was_asked_is_listed_in_pages() -> None:
    items = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
    items += [{"type": "function_call_output", "call_id": "c", "output": "three"}]
    async with gateway() as up, up.client() as client:
        queued = await client.responses.create(model="tiny", input=cast(Any, items), background=True)
        listed = [item async for item in client.responses.input_items.list(queued.id, limit=1, order="asc")]
        assert [item.type for item in listed] == ["message", "message", "function_call_output"]
        assert [item.to_dict().get("content") for item in listed][1][0]["type"] == "output_text"  # type: ignore[index]
        assert len({item.id for item in listed}) == 3
        page = body_of(await call(up, "GET", f"{queued.id}/input_items?limit=2"))
        assert (page["object"], page["has_more"], page["data"][0]["call_id"]) == ("list", True, "c")
        assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], page["data"][1]["id"])
        for wrong, param in (("limit=0", "limit"), ("order=up", "order"), ("after=nothing", "after")):
            refused = await call(up, "GET", f"{queued.id}/input_items?{wrong}")
            assert (refused.status, refused.error["param"]) == (400, param)


async def test_items_without_an_id_and_items_that_were_sent_twice_are_listed_under_ids_of_their_own() -> None:
    said = {"role": "user", "content": "one", "id": "msg_1"}
    items = [said, {"role": "user", "content": "two", "id": None}, said, {"role": "user", "content": "three"}]
    async with gateway() as up, up.client() as client:
        queued = await client.responses.create(model="tiny", input=cast(Any, items), background=True)
        pages = client.responses.input_items.list(queued.id, limit=1, order="asc")
        listed = [item.to_dict() async for item in pages]
        assert [item["content"][0]["text"] for item in listed] == ["one", "two", "one", "three"]  # type: ignore[index]
        assert listed[0]["id"] == "msg_1" and len({str(item["id"]) for item in listed}) == 4


async def test_an_item_of_an_engine_that_has_no_id_of_text_can_stand_beside_those_that_are_referred_to() -> None:
    async with gateway() as up:
        asking = asyncio.create_task(ask(up, input="one"))
        run = await up.door.first()
        odd = whole(run, "said")
        odd["output"].append({"type": "reasoning", "id": {}})
        await run.answer(orjson.dumps(odd))
        await asking
        name = odd["output"][0]["id"]
        again = asyncio.create_task(ask(up, input=[{"type": "item_reference", "id": name}]))
        await until(lambda: len(up.door.runs) == 2)
        *_, last = up.door.runs.values()
        assert orjson.loads(last.new.body)["input"][0]["id"] == name
        await last.answer(orjson.dumps(whole(last, "x")))
        assert (await again).status == 200


async def test_an_input_that_is_not_kept_is_not_found() -> None:
    async with gateway() as up:
        run, _ = await told(up, "a")
        run.keeps_body = False
        assert (await call(up, "GET", run.run + "/input_items")).status == 404
        assert body_of(await call(up, "GET", run.run))["status"] == "completed"


async def test_a_deleted_response_is_gone_and_one_that_runs_is_cancelled_first() -> None:
    async with gateway() as up, up.client() as client:
        queued = await client.responses.create(model="tiny", input="x", background=True)
        run = await up.door.first()
        deleted = body_of(await call(up, "DELETE", queued.id))
        assert deleted == {"id": queued.id, "object": "response", "deleted": True}
        assert run.cancelled == ["client"] and run.deleted
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(queued.id)
        assert (await call(up, "DELETE", queued.id)).status == 404


class AwayOnce(MemoryArchive):
    """An archive that cannot be reached when the first answer is to be deleted."""

    away = True

    async def forget(self, tenant: str, run: str) -> bool:
        if self.away:
            self.away = False
            raise Unavailable("PostgreSQL is away")
        return await super().forget(tenant, run)


async def test_a_deletion_that_the_archive_did_not_hear_is_repeated_by_asking_again() -> None:
    archive = AwayOnce(MemoryRequests())
    async with gateway(archive=archive) as up:
        run, _ = await told(up, "a")
        kept = ArchiveRecord(
            run=run.run, tenant="acme", key_id="k", once="", asked="", stream=True, frames=b"", ended_ms=1,
            expires_ms=10**15,
        )  # fmt: skip
        await archive.keep([kept], 1)
        assert (await call(up, "DELETE", run.run)).status == 503 and run.deleted
        assert (await call(up, "GET", run.run)).status == 404
        assert body_of(await call(up, "DELETE", run.run))["deleted"] is True
        assert await archive.find("acme", run.run, 1) is None
        assert (await call(up, "DELETE", run.run)).status == 404


async def test_the_reader_of_a_living_run_is_shown_what_was_said_so_far_and_counts_as_nobody() -> None:
    async with gateway() as up, up.client() as client:
        asking = asyncio.create_task(ask(up, stream=True, input="x"))
        run = await up.door.first()
        shown = body_of(await call(up, "GET", run.run))
        assert (shown["status"], shown["output"], shown["created_at"]) == ("in_progress", [], 7)
        assert shown["id"] == response_id(run.run)
        assert orjson.loads(run.new.body)["stream"] is True
        await run.put("data", begun(run) + spoken(1) + delta(3, "he"), 4)
        await run.put("data", delta(4, "llo"))
        said = await client.responses.retrieve(shown["id"])
        assert (said.status, said.output_text) == ("in_progress", "hello")
        assert said.output[0].to_dict()["status"] == "in_progress" and run.watching == 1
        await run.put("end", event(5, "response.completed", response=whole(run, "hello")))
        await asking


async def test_a_response_that_runs_on_while_it_is_deleted_is_to_be_deleted_again_in_a_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(routes, "_STOPPING_S", 0.1)
    async with gateway() as up, up.client() as client:
        queued = await client.responses.create(model="tiny", input="x", background=True)
        run = await up.door.first()
        run.deaf = True  # its owner does not hear that it is cancelled
        with pytest.raises(openai.InternalServerError) as caught:
            await client.responses.delete(queued.id)
        assert caught.value.status_code == 503 and "delete it again" in caught.value.message
        assert int(caught.value.response.headers["retry-after"]) >= 1 and run.cancelled == ["client"]
        run.deaf = False
        await client.responses.delete(queued.id)
        assert run.deleted
