"""POST /v1/responses at the door: what becomes of a request, what is stored, and how failures are told."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import orjson
import pytest
from msgspec import structs

from schemas.errors import Code, Failure
from schemas.records import ArchiveRecord
from schemas.responses import response_id
from storage.memory import MemoryArchive, MemoryRequests
from tests.ingress_support import PlayedRun, chat_body, completion, gateway, post, raw, until
from tests.responses_door import answer, ask, begun, body_of, call, delta, event, spoken, tell, whole

BROKEN = Failure(code=Code.upstream_interrupted, message="broke off")


async def test_the_official_client_reads_a_whole_answer_and_a_stream() -> None:
    async with gateway(answer) as up, up.client() as client:
        said = await client.responses.create(model="tiny", input="Hello")
        assert (said.output_text, said.status) == ("Hello", "completed")
        seen = [one async for one in await client.responses.create(model="tiny", input="Hello", stream=True)]
        assert [one.sequence_number for one in seen] == list(range(7))
        assert seen[-1].type == "response.completed" and seen[-1].response.output_text == "Hello"


async def test_a_stream_is_the_routers_bytes_and_ends_without_done() -> None:
    told: list[bytes] = []

    async def play(run: PlayedRun) -> None:
        told.extend(await tell(run, "a", "b"))

    async with gateway(play) as up:
        streamed = await ask(up, stream=True)
        assert streamed.body == b"".join(told) and streamed.clean
        assert streamed.headers["content-type"].startswith("text/event-stream")


async def test_the_body_that_goes_on_has_items_and_says_what_holds() -> None:
    async with gateway(answer) as up:
        await ask(up, input="hi", unknown={"kept": 1}, metadata={"a": "b"}, max_output_tokens=5)
        run = await up.door.first()
        body, accepted = orjson.loads(run.new.body), run.new.accepted
        assert body["input"] == [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}]
        assert (body["store"], body["background"], body["unknown"]) == (True, False, {"kept": 1})
        assert (accepted.route, accepted.max_tokens) == ("/v1/responses", 5)
        assert accepted.keep_body and accepted.keep_ms > 0 and not accepted.background


async def test_what_is_not_to_be_stored_is_not_kept() -> None:
    async with gateway(answer) as up:
        assert body_of(await ask(up, store=False))["store"] is False
        accepted = (await up.door.first()).new.accepted
        assert not accepted.keep_body and accepted.keep_ms == 0


async def test_where_nothing_is_stored_an_omitted_store_is_false_and_wishes_are_refused_with_the_way_out() -> None:
    async with gateway(answer, allow_store=False) as up:
        assert body_of(await ask(up))["store"] is False
        assert (await ask(up, store=False, background=False)).status == 200
        assert not (await up.door.first()).new.accepted.keep_body
        wishes: list[dict[str, Any]] = [{"store": True}, {"background": True}, {"previous_response_id": "resp_1"}]
        for wish in [*wishes, {"input": [{"type": "item_reference", "id": "x"}]}]:
            refused = await ask(up, **wish)
            assert refused.status == 400 and str(refused.error["param"]).partition("[")[0] in wish
            assert "server.allow_store: true" in str(refused.error["message"])


@pytest.mark.parametrize("stream", [False, True])
async def test_a_failure_before_the_first_byte_is_the_status(stream: bool) -> None:
    async def fail(run: PlayedRun) -> None:
        await run.fail(Failure(code=Code.no_engine, message="none"))

    async with gateway(fail) as up:
        refused = await ask(up, stream=stream)
        assert (refused.status, refused.error["code"]) == (503, "server_is_overloaded")


async def test_a_failure_after_the_first_byte_is_the_last_event_with_the_whole_object() -> None:
    async def play(run: PlayedRun) -> None:
        await run.put("data", begun(run) + spoken(1) + delta(3, "a"), 4)
        await run.fail(BROKEN)

    async with gateway(play) as up, up.client() as client:
        seen = [one async for one in await client.responses.create(model="tiny", input="x", stream=True)]
        last = seen[-1]
        assert [one.sequence_number for one in seen] == [0, 1, 2, 3, 4]
        assert last.type == "response.failed" and last.response.status == "failed"
        assert last.response.error is not None
        assert (last.response.error.code, last.response.error.type) == ("server_error", "upstream_interrupted")
        assert last.response.id == response_id((await up.door.first()).run)
        assert last.response.output_text == "a" and last.response.output[0].to_dict()["status"] == "incomplete"
        assert (await client.responses.retrieve(last.response.id)).to_dict() == last.response.to_dict()


async def test_a_stream_that_fails_after_its_head_and_before_its_first_event_begins_all_the_same() -> None:
    async def play(run: PlayedRun) -> None:
        await until(lambda: run.watching == 1)
        await run.waited.wait()
        await run.fail(BROKEN)

    async with gateway(play, commit_after=0.05) as up, up.client() as client:
        stream = await client.responses.create(model="tiny", input="x", stream=True)  # its head is here
        run = await up.door.first()
        run.waited.set()
        seen = [one async for one in stream]
        assert [(one.type, one.sequence_number) for one in seen] == [("response.created", 0), ("response.failed", 1)]
        again = client.responses.stream(response_id=response_id(run.run))
        async with again as helped:
            assert [one.type async for one in helped] == ["response.created", "response.failed"]
        rest = await client.responses.retrieve(response_id(run.run), stream=True, starting_after=0)
        assert [one.type async for one in rest] == ["response.failed"]


async def test_an_idempotency_key_works_as_on_other_routes() -> None:
    async with gateway(answer) as up:
        await ask(up, "idempotency-key: once")
        new = (await up.door.first()).new
        assert new.once is not None and new.accepted.keep_ms > 0


async def test_a_repeat_is_the_same_request_however_the_turn_before_it_is_kept_by_then() -> None:
    async with gateway(answer) as up:
        first = body_of(await ask(up, input="card 4111"))
        turn = await up.door.first()
        refers = [{"type": "item_reference", "id": first["output"][0]["id"]}]
        for fields in ({"input": "next", "previous_response_id": first["id"]}, {"input": refers}):
            marks, sizes = [], []
            for body in (turn.new.body, turn.new.body.replace(b"4111", b"[CARD]")):  # as guards have rewritten it
                turn.new = structs.replace(turn.new, body=body)
                await ask(up, "idempotency-key: k", **fields)
                *_, last = up.door.runs.values()
                assert last.new.once is not None
                marks.append(last.new.once.marks)
                sizes.append(len(orjson.loads(last.new.body)["input"]))
            assert marks[0] == marks[1] and sizes == ([3, 3] if "previous_response_id" in fields else [1, 1])


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": ["hi"]}, "input[0]"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"content": "x"}]}, "input[0].role"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0].call_id"),
        ({"input": [{"type": "item_reference"}]}, "input[0].id"),
        ({"input": [{"role": "user", "content": "x", "id": {}}]}, "input[0].id"),
        ({"input": [{"role": "user", "content": "x", "id": 7}]}, "input[0].id"),
        ({"model": 7}, "model"),
        ({"tools": {}}, "tools"),
        ({"text": "x"}, "text"),
        ({"stream": "yes"}, "stream"),
        ({"background": 1}, "background"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata"),
        ({"metadata": {"n" * 65: ""}}, "metadata"),
        ({"metadata": {"n": "x" * 513}}, "metadata"),
        ({"service_tier": 1}, "service_tier"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"truncation": "some"}, "truncation"),
        ({"stream_options": {}}, "stream_options"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"background": True, "store": False}, "background"),
        ({"previous_response_id": 3}, "previous_response_id"),
    ],
)
async def test_wrong_input_is_a_400_that_names_the_field(wrong: dict[str, Any], param: str) -> None:
    async with gateway() as up:
        refused = await ask(up, **wrong)
        assert (refused.status, refused.error["param"]) == (400, param)
        assert up.door.runs == {}


# --- in the background --------------------------------------------------------------------------------------------


async def test_in_the_background_the_answer_is_queued_at_once_and_leaving_ends_nothing() -> None:
    async with gateway() as up:
        shown = body_of(await ask(up, background=True))
        run = await up.door.first()
        accepted = run.new.accepted
        assert (shown["id"], shown["status"], shown["background"]) == (response_id(run.run), "queued", True)
        assert (accepted.stream, accepted.background, accepted.on_disconnect) == (True, True, "finish")
        assert run.new.deadline_ms == 3_600_000
        await until(lambda: run.watching == 0)
        assert (await call(up, "GET", run.run)).status == 200
        assert body_of(await call(up, "GET", run.run))["status"] == "in_progress"
        await tell(run, "done")
        assert body_of(await call(up, "GET", run.run))["output"] == whole(run, "done")["output"]


async def test_a_repeat_under_an_idempotency_key_is_shown_what_has_become_of_the_first() -> None:
    archive = MemoryArchive(MemoryRequests())
    async with gateway(archive=archive) as up:
        queued = body_of(await ask(up, "idempotency-key: k", background=True))
        run = up.door.before = await up.door.first()
        again = await ask(up, "idempotency-key: k", background=True)
        assert (body_of(again)["id"], body_of(again)["status"]) == (queued["id"], "in_progress")
        assert again.headers["idempotent-replayed"] == "true"
        await tell(run, "done")
        assert body_of(await ask(up, "idempotency-key: k", background=True))["status"] == "completed"
        kept = ArchiveRecord(
            run=run.run,
            tenant="acme",
            key_id="k",
            once="",
            asked="",
            stream=True,
            frames=b"",
            ended_ms=1,
            expires_ms=10**15,
        )
        await archive.keep([kept], 1)
        up.door.forgotten.add(run.run)
        assert body_of(await ask(up, "idempotency-key: k", background=True))["status"] == "completed"


async def test_a_streamed_run_in_the_background_is_a_stream_with_its_own_deadline() -> None:
    async with gateway(answer, background_deadline=9.0) as up:
        streamed = await ask(up, background=True, stream=True, input="xy")
        assert streamed.body.count(b"event: ") == 4
        assert (await up.door.first()).new.deadline_ms == 9_000


async def test_who_may_not_use_the_model_hears_it_before_anything_is_queued() -> None:
    async with gateway() as up:
        token = await up.other_key(models=("org/*",))
        assert (await ask(up, token=token, background=True)).status == 404
        refused = await ask(up, "x-headrace-on-disconnect: cancel", background=True)
        assert (refused.status, refused.error["param"]) == (400, "x-headrace-on-disconnect")
        assert up.door.runs == {}


async def test_cancel_ends_a_run_in_the_background_and_may_be_said_again() -> None:
    async with gateway() as up, up.client() as client:
        queued = await client.responses.create(model="tiny", input="x", background=True)
        run = await up.door.first()
        await run.put("data", begun(run) + spoken(1) + delta(3, "a"), 4)
        for _ in range(2):
            assert (await client.responses.cancel(queued.id)).status == "cancelled"
        assert run.cancelled == ["client"]
        assert (await client.responses.retrieve(queued.id)).status == "cancelled"
        last = (await call(up, "GET", f"{queued.id}?stream=true&starting_after=3")).body
        assert last.startswith(b"event: response.failed\n") and b'"status":"cancelled"' in last
        assert (await client.responses.retrieve(queued.id)).output_text == "a"


async def test_only_what_runs_in_the_background_can_be_cancelled() -> None:
    async with gateway(answer) as up:
        shown = body_of(await ask(up))
        refused = await call(up, "POST", f"{shown['id']}/cancel")
        assert refused.status == 400 and "background" in str(refused.error["message"])


async def test_a_run_that_failed_says_so_when_it_is_asked_for() -> None:
    async with gateway() as up, up.client() as client:
        queued = await client.responses.create(model="tiny", input="x", background=True)
        await (await up.door.first()).fail(Failure(code=Code.rate_limit_exceeded, message="too many"))
        shown = await client.responses.retrieve(queued.id)
        assert shown.status == "failed" and shown.error is not None
        assert (shown.error.code, shown.error.message) == ("rate_limit_exceeded", "too many")


# --- earlier turns ------------------------------------------------------------------------------------------------


async def test_the_next_turn_begins_with_what_was_asked_and_answered() -> None:
    async with gateway(answer) as up, up.client() as client:
        first = await client.responses.create(model="tiny", input="one", instructions="only now")
        second = await client.responses.create(model="tiny", input="two", previous_response_id=first.id)
        third = await client.responses.create(model="tiny", input="three", previous_response_id=second.id)
        assert third.previous_response_id == second.id
        *_, last = up.door.runs.values()
        body = orjson.loads(last.new.body)
        texts = [(item["role"], item["content"][0]["text"]) for item in body["input"]]
        assert texts == [
            *[("user", "one"), ("assistant", "one"), ("user", "two"), ("assistant", "two"), ("user", "three")]
        ]
        assert body.get("instructions") is None


async def test_a_turn_that_is_not_there_not_stored_unfinished_or_of_others_is_not_found() -> None:
    async with gateway() as up:
        rival = await up.other_key(tenant="rival")
        asking = asyncio.create_task(ask(up, store=False))
        unstored = await up.door.first()
        await answer(unstored)
        await asking
        waiting = body_of(await ask(up, background=True))["id"]
        for name in ("resp_nothing", response_id(unstored.run), waiting):
            refused = await ask(up, previous_response_id=name)
            assert (refused.status, refused.error["code"]) == (400, "previous_response_not_found")
            assert refused.error["param"] == "previous_response_id"
        assert (await ask(up, token=rival, previous_response_id=waiting)).error["code"] == "previous_response_not_found"


async def test_an_item_that_is_referred_to_is_put_in_its_place() -> None:
    async with gateway(answer) as up, up.client() as client:
        first = await client.responses.create(model="tiny", input="one")
        (asked,) = [item async for item in client.responses.input_items.list(first.id)]
        said = f"msg_{first.id.removeprefix('resp_')}_0"
        by_name: Any = [{"type": "item_reference", "id": name} for name in (asked.id, said)]
        by_name += [{"role": "user", "content": "two"}]
        await client.responses.create(model="tiny", input=by_name)
        *_, last = up.door.runs.values()
        body = orjson.loads(last.new.body)
        assert [(item["role"], item.get("id")) for item in body["input"]] == [
            *[("user", asked.id), ("assistant", said), ("user", None)]
        ]
        rival = await up.other_key(tenant="rival")
        wrong = ((said, rival), ("msg_theirs", up.token), (f"{said}9", up.token))
        for name, token in wrong:
            refused = await ask(up, token=token, input=[{"type": "item_reference", "id": name}])
            assert (refused.status, refused.error["param"]) == (404, "input[0].id"), name


async def test_an_id_is_not_repeated_to_the_client_at_any_length() -> None:
    async with gateway() as up:
        for wrong in ({"previous_response_id": "x" * 9999}, {"input": [{"type": "item_reference", "id": "x" * 9999}]}):
            refused = await ask(up, **wrong)
            assert refused.status in (400, 404) and len(refused.body) < 500


async def test_a_chat_is_no_turn_to_go_on_from() -> None:
    async with gateway() as up:
        asking = asyncio.create_task(raw(up.port, post(up.token, chat_body(store=True))))
        run = await up.door.first()
        await run.answer(completion("x"))
        await asking
        refused = await ask(up, previous_response_id=response_id(run.run))
        assert (refused.status, refused.error["code"]) == (400, "previous_response_not_found")


async def test_turns_together_may_not_pass_the_limit_of_a_body() -> None:
    async with gateway(answer, body_limit=1024) as up:
        first = body_of(await ask(up, input="x" * 600))
        refused = await ask(up, previous_response_id=first["id"])
        assert (refused.status, refused.error["param"]) == (413, "previous_response_id")


async def test_openai_errors_are_those_of_the_client() -> None:
    async with gateway() as up, up.client() as client:
        with pytest.raises(openai.BadRequestError) as caught:
            await client.responses.create(model="tiny", input="x", previous_response_id="resp_none")
        assert caught.value.code == "previous_response_not_found"
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve("resp_none")


def test_an_event_of_these_tests_is_one_of_the_protocol() -> None:
    assert event(0, "x") == b'event: x\ndata: {"type":"x","sequence_number":0}\n\n'
