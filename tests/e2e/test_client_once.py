"""Idempotency-Key with the official client: one run and one answer, whoever dies in between."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import asyncpg
import httpx
import openai
import pytest
import redis

from runtime.names import prefix_of
from tests.conftest import short_folder
from tests.e2e.house import House, headrace, until
from tests.e2e.scripted import DONE, ScriptedEngine, chunked, completion, event, failure, scripted, unary

ASKED: Any = {"model": "lab", "messages": [{"role": "user", "content": "say the heron it"}]}


@pytest.fixture(scope="module")
def engine() -> Iterator[ScriptedEngine]:
    with scripted() as playing:
        yield playing


@pytest.fixture(scope="module")
def house(engine: ScriptedEngine) -> Iterator[House]:
    with short_folder() as folder, headrace(folder / "data", engines={"lab": engine.url}) as running:
        yield running


@pytest.fixture(autouse=True)
def forgetful(engine: ScriptedEngine) -> None:
    engine.forget()


def client(house: House, **changes: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{house.base_url}/v1", api_key=house.key, **{"max_retries": 0, **changes})


def post(house: House, key: str, body: Any = ASKED, **headers: str) -> httpx.Response:
    said = {"authorization": f"Bearer {house.key}", "idempotency-key": key, **headers}
    return httpx.post(f"{house.base_url}/v1/chat/completions", json=body, headers=said, timeout=60)


def test_retry_after_the_death_of_the_ingress_gets_every_event_and_runs_nothing_again(
    house: House, engine: ScriptedEngine
) -> None:
    gate = threading.Event()
    engine.play(chunked(event("a "), gate, event("b "), event({}, "stop"), DONE))
    asked = {**ASKED, "stream": True, "extra_headers": {"Idempotency-Key": "death"}}
    with client(house) as lost:
        first = lost.chat.completions.with_raw_response.create(**asked)
        chunks = iter(first.parse())
        assert next(chunks).choices[0].delta.content == "a "
        house.restarted("ingress", house.kill("ingress"))
        with pytest.raises((openai.APIError, httpx.TransportError)):
            list(chunks)
    gate.set()
    with client(house, max_retries=3) as returned:
        again = returned.chat.completions.with_raw_response.create(**asked)
        texts = [chunk.choices[0].delta.content for chunk in again.parse() if chunk.choices]
    assert [text for text in texts if text] == ["a ", "b "]
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["x-headrace-run"] == first.headers["x-headrace-run"]
    assert len(engine.requests) == 1


def test_twenty_at_once_are_one_execution_with_one_answer(house: House, engine: ScriptedEngine) -> None:
    engine.play(unary(completion("once")))
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: post(house, "twenty"), range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == len({a.headers["x-headrace-run"] for a in answers}) == 1
    assert sum("idempotent-replayed" in answer.headers for answer in answers) == 19
    assert len(engine.requests) == 1


def test_other_bodies_keys_and_forms_of_the_key(house: House, engine: ScriptedEngine) -> None:
    engine.play(unary(completion("first")), unary(completion("of another")))
    assert post(house, "forms").status_code == 200
    reordered = dict(reversed(ASKED.items()))
    assert post(house, "forms", reordered).headers["idempotent-replayed"] == "true"
    reused = post(house, "forms", {**ASKED, "temperature": 1})
    assert (reused.status_code, reused.json()["error"]["code"]) == (422, "idempotency_key_reused")
    other = post(house, "forms", authorization=f"Bearer {house.new_key()['token']}")
    assert "idempotent-replayed" not in other.headers and "of another" in other.text
    assert [post(house, key).status_code for key in ("", "k" * 256)] == [400, 400]


def test_a_revoked_key_is_not_shown_the_answer_of_its_past(house: House, engine: ScriptedEngine) -> None:
    engine.play(unary(completion("secret")))
    made = house.new_key()
    assert post(house, "past", authorization=f"Bearer {made['token']}").status_code == 200
    house.request(f"/admin/v1/keys/{made['key_id']}", method="DELETE")
    until(lambda: post(house, "past", authorization=f"Bearer {made['token']}").status_code == 401)


def test_a_failure_before_the_first_token_leaves_the_key_free(house: House, engine: ScriptedEngine) -> None:
    engine.play(failure(400), unary(completion("now")))
    refused = post(house, "free")
    assert refused.status_code == 400 and "idempotent-replayed" not in refused.headers
    answer = post(house, "free")
    assert answer.status_code == 200 and "idempotent-replayed" not in answer.headers
    runs = {refused.headers["x-headrace-run"], answer.headers["x-headrace-run"]}
    assert {house.record(run)["outcome"] for run in runs} == {"failed", "completed"}


def test_the_archive_answers_when_redis_no_longer_can_and_holds_no_text(house: House, engine: ScriptedEngine) -> None:
    engine.play(chunked(event("heron "), event({}, "stop"), DONE))
    first = post(house, "archived", {**ASKED, "stream": True})
    run = first.headers["x-headrace-run"]
    frames = until(lambda: asyncio.run(kept(house, run)))
    assert b"heron" not in frames and b"archived" not in frames
    with redis.Redis.from_url(house.valkey_url) as server:
        reply, state = f"{prefix_of(run)}:reply:{run}", f"{prefix_of(run)}:run:{run}"
        until(lambda: 0 < server.pttl(reply) <= 300_000)
        server.delete(reply, state)
    again = post(house, "archived", {**ASKED, "stream": True})
    assert again.content == first.content and again.headers["idempotent-replayed"] == "true"
    assert again.headers["x-headrace-run"] == run and len(engine.requests) == 1
    read = httpx.get(f"{house.base_url}/v1/streams/{run}", headers={"authorization": f"Bearer {house.key}"})
    assert read.status_code == 200 and read.text.count("data: ") == 3


def test_an_answer_to_store_is_kept_without_a_key(house: House, engine: ScriptedEngine) -> None:
    engine.play(unary(completion("stored")))
    with client(house) as asking:
        answer = asking.chat.completions.with_raw_response.create(**ASKED, store=True)
    assert until(lambda: asyncio.run(kept(house, answer.headers["x-headrace-run"])))


async def kept(house: House, run: str) -> bytes:
    """The frames of a kept answer, b"" while there are none."""
    connection = await asyncpg.connect(house.postgres_dsn)
    found = await connection.fetchval("SELECT frames FROM archives WHERE run = $1", run)
    await connection.close()
    return found or b""
