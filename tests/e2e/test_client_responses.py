"""The Responses API with the official client over an engine that speaks chat alone: streams read again, runs without a
client, turns, and what is kept of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import asyncpg
import httpx
import openai
import pytest
import redis

from runtime.names import kept_key, prefix_of
from schemas.responses import run_of
from tests.conftest import short_folder
from tests.e2e.house import House, command, headrace, until
from tests.e2e.scripted import (
    CUT,
    DONE,
    HANG,
    ScriptedEngine,
    chunked,
    completion,
    event,
    scripted,
    unary,
    whole_stream,
)


@pytest.fixture(scope="module")
def engine() -> Iterator[ScriptedEngine]:
    with scripted() as playing:
        yield playing


@pytest.fixture(scope="module")
def house(engine: ScriptedEngine) -> Iterator[House]:
    disk = "redis: {appendfsync: always}"  # what was accepted is there when the server is killed
    with short_folder() as folder, headrace(folder / "data", engines={"lab": engine.url}, settings=disk) as running:
        yield running


@pytest.fixture
def client(house: House, engine: ScriptedEngine) -> Iterator[openai.OpenAI]:
    engine.forget()
    with openai.OpenAI(base_url=f"{house.base_url}/v1", api_key=house.key, max_retries=0) as made:
        yield made


def read_raw(house: House, path: str) -> httpx.Response:
    return httpx.get(f"{house.base_url}/v1/responses/{path}", headers={"authorization": f"Bearer {house.key}"})


def test_whole_and_streamed_answers(client: openai.OpenAI, engine: ScriptedEngine) -> None:
    engine.play(unary(completion("whole")), whole_stream("in ", "pieces"))
    said = client.responses.create(model="lab", input="say it", instructions="be short")
    assert (said.status, said.output_text) == ("completed", "whole")
    assert [message["role"] for message in engine.last.json["messages"]] == ["system", "user"]
    with client.responses.stream(model="lab", input="say it") as stream:
        numbers = [seen.sequence_number for seen in stream]
        final = stream.get_final_response()
    assert numbers == list(range(len(numbers))) and final.output_text == "in pieces"
    assert client.responses.retrieve(final.id).output_text == "in pieces"


def test_a_stream_is_read_on_while_it_lives_and_byte_for_byte_when_it_has_ended(
    house: House, client: openai.OpenAI, engine: ScriptedEngine
) -> None:
    gate = threading.Event()
    engine.play(chunked(event("a "), gate, event("b"), event({}, "stop"), DONE))
    first = iter(client.responses.create(model="lab", input="say it", stream=True, background=True))
    created = next(first)
    assert created.type == "response.created"
    seen = [next(first) for _ in range(4)]
    client.close()  # the reader is gone
    with openai.OpenAI(base_url=f"{house.base_url}/v1", api_key=house.key, max_retries=0) as other:
        name, after = created.response.id, seen[-1].sequence_number
        rest = iter(other.responses.retrieve(name, stream=True, starting_after=after))
        gate.set()
        later = list(rest)
    assert [one.sequence_number for one in later] == list(range(after + 1, later[-1].sequence_number + 1))
    last = later[-1]
    assert last.type == "response.completed" and last.response.output_text == "a b"
    whole = read_raw(house, f"{name}?stream=true").content
    assert read_raw(house, f"{name}?stream=true&starting_after={after}").content in whole
    assert whole.startswith(b"event: response.created\n") and b"[DONE]" not in whole


def test_a_run_in_the_background_outlives_every_process_and_finishes_without_a_client(
    house: House, client: openai.OpenAI, engine: ScriptedEngine
) -> None:
    engine.play([HANG], whole_stream("done"))
    queued = client.responses.create(model="lab", input="take your time", background=True)
    assert queued.status == "queued"
    until(lambda: len(engine.requests) == 1)
    killed = {room: house.kill(room) for room in ("ingress", "router", "valkey", "postgres")}
    for room in ("ingress", "router"):
        house.restarted(room, killed[room])
    row = house.record(run_of(queued.id))
    assert (row["outcome"], row["attempt"]) == ("completed", 2)
    with openai.OpenAI(base_url=f"{house.base_url}/v1", api_key=house.key, max_retries=3) as returned:
        shown = returned.responses.retrieve(queued.id)
    assert (shown.status, shown.output_text, shown.background) == ("completed", "done", True)


def test_a_run_in_the_background_is_cancelled_at_its_engine(client: openai.OpenAI, engine: ScriptedEngine) -> None:
    engine.play(chunked(event("a "), HANG))
    queued = client.responses.create(model="lab", input="go on", background=True)
    until(lambda: client.responses.retrieve(queued.id).status == "in_progress" and engine.requests)
    assert client.responses.cancel(queued.id).status == "cancelled"
    assert engine.last.left.wait(30)
    until(lambda: client.responses.retrieve(queued.id).status == "cancelled")
    assert client.responses.cancel(queued.id).status == "cancelled"


def test_a_stream_that_breaks_off_goes_on_as_one_answer_where_the_engine_continues(
    house: House, engine: ScriptedEngine, client: openai.OpenAI
) -> None:
    words = ("--url", engine.url, "--upstream", "engine-name", "--continue", "prefill", "--wait")
    for name in ("b", "c"):
        added = command(house, "models", "add", "going", "--deployment", name, *words)
        assert added.returncode == 0, added.stderr
    engine.play(chunked(event("one "), event("two "), CUT), whole_stream("three"))
    with client.responses.stream(model="going", input="count", max_output_tokens=9) as stream:
        numbers = [seen.sequence_number for seen in stream]
        final = stream.get_final_response()
    assert final.output_text == "one two three" and numbers == list(range(len(numbers)))
    assert engine.last.json["messages"][-1] == {"role": "assistant", "content": "one two "}
    assert engine.last.json["max_tokens"] == 7 and final.usage is not None and final.usage.output_tokens == 5


def test_turns_go_on_from_what_is_kept_and_a_deleted_one_is_gone(
    house: House, client: openai.OpenAI, engine: ScriptedEngine
) -> None:
    engine.play(unary(completion("heron")), unary(completion("again")), unary(completion("third")))
    first = client.responses.create(model="lab", input="name a bird")
    second = client.responses.create(model="lab", input="and once more", previous_response_id=first.id)
    texts = [message["content"] for message in engine.last.json["messages"]]
    assert texts == ["name a bird", "heron", "and once more"]
    run = run_of(second.id)
    body, frames = until(lambda: asyncio.run(kept(house, run)))
    assert b"bird" not in body and b"again" not in frames
    with redis.Redis.from_url(house.valkey_url) as server:
        reply, state = f"{prefix_of(run)}:reply:{run}", f"{prefix_of(run)}:run:{run}"
        until(lambda: 0 < server.pttl(reply) <= 300_000)
        assert server.exists(kept_key(run)) == 0
        assert client.responses.input_items.list(second.id).data[0].id
        server.delete(reply, state)
    assert client.responses.retrieve(second.id).to_dict() == second.to_dict()
    assert len(client.responses.input_items.list(second.id).data) == 3
    third = client.responses.create(model="lab", input="the last", previous_response_id=second.id)
    assert len(engine.last.json["messages"]) == 5 and third.output_text == "third"
    client.responses.delete(second.id)
    assert asyncio.run(kept(house, run)) is None
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(second.id)
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model="lab", input="x", previous_response_id=second.id)
    assert caught.value.code == "previous_response_not_found"


async def kept(house: House, run: str) -> tuple[bytes, bytes] | None:
    """The body and the frames of a kept response."""
    connection = await asyncpg.connect(house.postgres_dsn)
    found = await connection.fetchrow("SELECT body, frames FROM archives WHERE run = $1", run)
    await connection.close()
    return (found["body"], found["frames"]) if found else None
