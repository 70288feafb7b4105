"""The door on real delivery: the twin first, then a cluster-enabled Valkey with four partitions."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator

import openai
import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from console.embedded.valkey import EmbeddedValkey
from runtime.scripts import Answer
from schemas.errors import Code, Failure
from schemas.events import RequestRefused
from state.memory import MemoryKeys
from tests.doorway_support import Doorway, accepted, claimed, doorway, finish, say, seals
from tests.ingress_support import chat_body, chunk, chunk_json, connected, head, new_key, post, raw
from tests.run_support import RING, Hands, World, answer, open_world, until


@pytest_asyncio.fixture(params=["memory", "valkey"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    url = request.getfixturevalue("valkey_cluster") if request.param == "valkey" else ""
    async with open_world(request.param, lambda: url) as opened:
        yield opened


@pytest_asyncio.fixture
async def door(world: World) -> AsyncIterator[Doorway]:
    minted, record = new_key(RING)
    async with doorway(world, MemoryKeys([record]), minted.token, "door-1") as opened:
        yield opened


async def test_a_stream_comes_through_and_can_be_read_again_at_another_door(world: World, door: Doorway) -> None:
    async def play() -> Hands:
        hands = await claimed(world)
        await say(world, hands, 2, "He", "l")
        await say(world, hands, 3, "lo")
        await finish(world, hands, 4)
        return hands

    playing = asyncio.create_task(play())
    client = AsyncOpenAI(base_url=f"{door.url}/v1", api_key=door.token, max_retries=0, timeout=60)
    chat = client.chat.completions.with_streaming_response
    async with client, chat.create(model="tiny", messages=[{"role": "user", "content": "hi"}], stream=True) as response:
        assert response.headers["x-headrace-endpoint"] == "e1"
        texts = [piece.choices[0].delta.content or "" async for piece in await response.parse()]
    assert "".join(texts) == "Hello"
    hands = await playing
    minted, record = new_key(RING, tenant="org")
    async with doorway(world, MemoryKeys([record]), minted.token, "door-2") as other:
        again = await raw(other.port, head("GET", f"/v1/streams/{hands.run}?after=1", minted.token))
    whole = [chunk_json("l"), chunk_json("lo"), b"[DONE]"]
    assert again.body == b"".join(b"id: %d\ndata: %b\n\n" % (n, data) for n, data in enumerate(whole, 2))


async def test_a_refusal_of_a_family_is_the_status(world: World, door: Doorway) -> None:
    async def refuse() -> None:
        hands = await accepted(world)
        failure = Failure(code=Code.content_policy_violation, message="a card number")
        fact = RequestRefused(run=hands.run, family="rules", failure=failure)
        no = Answer(
            run=hands.run,
            family="rules",
            entry="",
            outcome="refuse",
            stored=b"verdict",
            frame=seals("rules").error(hands.run, 0, 1, failure).payload,
            ending=seals("rules").ending(fact, 0),
        )
        await world.scripts.verdict(answer(hands.run, "authorization"))
        await world.scripts.verdict(no)

    refusing = asyncio.create_task(refuse())
    async with AsyncOpenAI(base_url=f"{door.url}/v1", api_key=door.token, max_retries=0, timeout=60) as client:
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(
                model="tiny", messages=[{"role": "user", "content": "hi"}], stream=True
            )
    assert caught.value.code == "content_policy_violation"
    await refusing


@pytest.mark.parametrize("stream", [False, True])
async def test_leaving_while_it_is_checked_ends_the_run(world: World, door: Doorway, stream: bool) -> None:
    async with connected(door.port) as (_, writer):
        writer.write(post(door.token, chat_body(stream=stream)))
        hands = await accepted(world)
        await world.scripts.verdict(answer(hands.run, "authorization"))

    async def ended() -> bool:
        return await hands.state() == "ended"

    await until(ended)
    assert await hands.kinds() == ["RequestCancelled"]


async def test_leaving_in_mid_stream_asks_the_owner_to_stop(world: World, door: Doorway) -> None:
    async with connected(door.port) as (reader, writer):
        writer.write(post(door.token, chat_body(stream=True)))
        hands = await claimed(world)
        await say(world, hands, 1, "a")
        await reader.readuntil(chunk("a"))

    async def flagged() -> bool:
        return "cancel" in await world.runs.fields(hands.run)

    await until(flagged)


async def test_over_the_bound_of_live_runs_the_door_says_when_to_come_back(world: World) -> None:
    minted, record = new_key(RING)
    async with doorway(world, MemoryKeys([record]), minted.token, "door-1", most=0) as full:
        refused = await raw(full.port, post(minted.token, chat_body()))
    assert (refused.status, refused.error["code"]) == (503, "server_is_overloaded")
    assert int(refused.headers["retry-after"]) >= 1


async def test_while_the_store_is_away_new_requests_are_told_and_afterwards_served(
    spare_valkey: EmbeddedValkey,
) -> None:
    minted, record = new_key(RING)
    request = post(minted.token, chat_body())
    async with (
        open_world("valkey", lambda: spare_valkey.url) as world,
        doorway(world, MemoryKeys([record]), minted.token, "door-1") as up,
    ):
        pid = spare_valkey.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        refused = await raw(up.port, request)
        assert (refused.status, refused.error["code"]) == (503, "store_unavailable")
        assert int(refused.headers["retry-after-ms"]) > 0
        spare_valkey.start()

        async def served() -> bool:
            async with connected(up.port) as (reader, writer):
                writer.write(request)
                with contextlib.suppress(TimeoutError):
                    return b"503" not in await asyncio.wait_for(reader.readline(), 1.0)
            return True  # no answer yet: it was accepted and waits

        await until(served)
        await accepted(world)
