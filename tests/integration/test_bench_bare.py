"""The durable path with nothing in it: it must give whole answers, or its figures would be no floor."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from base.ports import free_port
from bench.bare.house import Bare
from bench.measure import MockEngine
from console.embedded.processes import identify

MESSAGES: Any = [{"role": "user", "content": "a word, and another"}]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MockEngine]:
    started = MockEngine(tmp_path_factory.mktemp("bare") / "mock.log", None)
    yield started
    started.program.stop(5)


@pytest.fixture(scope="module")
def client(engine: MockEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    engine.set({"ttft_ms": 0, "itl_ms": 3, "tokens": 16})
    bare = Bare(tmp_path_factory.mktemp("bare") / "house", free_port(), engine.url, None)
    try:
        peer = bare.ready(30)
        with openai.OpenAI(base_url=peer.url, api_key="none", max_retries=0, timeout=30) as made:
            yield made
    finally:
        bare.stop()
    assert not any(identify(pid) for pids in peer.groups.values() for pid in pids)


def whole(client: openai.OpenAI) -> str:
    return str(client.chat.completions.create(model="m", messages=MESSAGES, max_tokens=16).choices[0].message.content)


def streamed(client: openai.OpenAI) -> list[str]:
    stream = client.chat.completions.create(model="m", messages=MESSAGES, max_tokens=40, stream=True)
    return [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]


def test_answers_and_streams_come_whole(client: openai.OpenAI) -> None:
    assert len(whole(client).split()) == 16
    assert len("".join(streamed(client)).split()) == 40


def test_so_do_many_at_once_and_each_gets_its_own(client: openai.OpenAI) -> None:
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda n: streamed(client) if n % 2 else [whole(client)], range(64)))
    assert sorted(len("".join(answer).split()) for answer in answers) == [16] * 32 + [40] * 32


def test_the_engine_is_asked_once_for_each(client: openai.OpenAI, engine: MockEngine) -> None:
    before = engine.settled()
    for _ in range(5):
        whole(client)
    assert engine.settled()["requests"] - before["requests"] == 5
