"""Many streams at once, pieces as they come, large prompts, and connections used again."""

from __future__ import annotations

import asyncio
import http.client
import threading
from typing import Any

from openai import AsyncOpenAI, OpenAI

from tests.e2e.house import Engine, House, read_event, send
from tests.e2e.scripted import DONE, Reply, ScriptedEngine, chunked, event

LAB = "lab/scripted"


def user(text: str) -> Any:
    return [{"role": "user", "content": text}]


async def test_fifty_parallel_streams_all_complete_and_each_gets_its_own_answer(house: House, mock: Engine) -> None:
    mock.set(itl_ms=5)
    try:
        async with AsyncOpenAI(base_url=house.base_url + "/v1", api_key=house.key, max_retries=0) as client:
            answers = await asyncio.gather(*(told(client, f"par-{number}") for number in range(50)))
    finally:
        mock.set(itl_ms=0)
    sent = [mock.ledger(f"par-{number}")[f"par-{number}"] for number in range(50)]
    assert [len(attempts) for attempts in sent] == [1] * 50
    assert answers == [attempts[0]["text"] for attempts in sent]
    assert len(set(answers)) == 50


async def told(client: AsyncOpenAI, name: str) -> str:
    """The whole answer to a request with this name."""
    stream = await client.chat.completions.create(
        model="mock", messages=user(f"@@id={name}"), max_tokens=20, stream=True
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[-1].choices[0].finish_reason == "length"
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


def test_pieces_arrive_one_by_one(client: OpenAI, lab: ScriptedEngine) -> None:
    """Each piece is said only after the client has the one before, so nothing on the way can be held back."""
    heard = [threading.Event() for _ in range(6)]
    steps: list[Any] = []
    for number, gate in enumerate(heard):
        steps += [event(f"piece {number}"), gate]
    lab.play(chunked(*steps, event({}, "stop"), DONE))
    stream = client.chat.completions.create(model=LAB, messages=user("slowly"), stream=True, timeout=20)
    got = []
    for chunk in stream:
        got.append(chunk.choices[0].delta.content)
        if len(got) <= len(heard):
            heard[len(got) - 1].set()
    assert got == [f"piece {number}" for number in range(6)] + [None]


def test_prompt_of_300_kilobytes_reaches_the_engine_whole(client: OpenAI, lab: ScriptedEngine) -> None:
    text = "".join(f"{number} grüße; " for number in range(25_000))
    assert len(text.encode()) > 300_000
    client.chat.completions.create(model=LAB, messages=user(text))
    assert lab.last.json["messages"] == user(text)


def test_upload_in_chunks_is_taken(house: House, lab: ScriptedEngine) -> None:
    connection = http.client.HTTPConnection(house.base_url.partition("://")[2], timeout=30)
    pieces = [b'{"model": "lab/scri', b'pted", "messages": [{"role": "us', b'er", "content": "hi"}]}']
    headers = {"authorization": f"Bearer {house.key}", "content-type": "application/json"}
    connection.request("POST", "/v1/chat/completions", iter(pieces), headers, encode_chunked=True)
    assert connection.getresponse().status == 200
    connection.close()
    assert lab.last.json["messages"] == user("hi")


def test_connection_is_used_again_after_a_stream_and_after_an_error(house: House, lab: ScriptedEngine) -> None:
    lab.play(streamed("a"), streamed("b"))
    connection = house.post({"model": LAB, "messages": user("one"), "stream": True})
    first, socket = connection.getresponse(), connection.sock
    assert b"".join(iter(lambda: read_event(first), b"")).endswith(DONE)
    send(connection, b"[]", house.key)
    assert connection.getresponse().read().startswith(b'{"error"')
    send(connection, {"model": LAB, "messages": user("two"), "stream": True}, house.key)
    assert connection.getresponse().read().endswith(DONE)
    assert connection.sock is socket
    connection.close()


def streamed(text: str) -> Reply:
    return chunked(event(text), event({}, "stop"), DONE)
