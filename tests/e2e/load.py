"""Steady load by the official client, which repeats nothing by itself: whatever fails is seen."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from openai import OpenAI

from tests.e2e.house import until

SHORT, LONG = 5, 250  # tokens; at 20 ms each a long answer takes five seconds

#: Asks a model for so many tokens; how many came with an answer that came to its end.
Ask = Callable[[OpenAI, str, int], int]


def stream(client: OpenAI, model: str, tokens: int) -> int:
    """A streamed answer."""
    parts = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "go"}], max_tokens=tokens, stream=True
    )
    chunks = [chunk for chunk in parts if chunk.choices]
    assert chunks[-1].choices[0].finish_reason
    return sum(bool(chunk.choices[0].delta.content) for chunk in chunks)


def unary(client: OpenAI, model: str, tokens: int) -> int:
    """An answer in one piece."""
    answer = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "go"}], max_tokens=tokens
    )
    assert answer.choices[0].finish_reason and answer.usage
    return answer.usage.completion_tokens


class Load:
    """Short requests, one after another on a thread for each of `asks`, until the block ends. Any failure is raised."""

    def __init__(self, client: OpenAI, model: str, asks: Sequence[Ask] = (stream,) * 4) -> None:
        self._client, self._model, self._asks = client, model, asks
        self._over, self._counting = threading.Event(), threading.Lock()
        self._pool = ThreadPoolExecutor(len(asks) + 12)
        self._loops: list[Future[None]] = []
        self._answered = 0

    def __enter__(self) -> Load:
        self._loops = [self._pool.submit(self._loop, ask) for ask in self._asks]
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._pool.shutdown()
        for loop in self._loops:
            loop.result()
        assert self._answered

    def long(self, number: int, ask: Ask = stream) -> list[Future[int]]:
        """Long answers beside them."""
        return [self._pool.submit(ask, self._client, self._model, LONG) for _ in range(number)]

    def goes_on(self, number: int = 20) -> None:
        """Wait until so many more were answered, from now on."""
        wanted = self._answered + number
        until(lambda: self._answered >= wanted or any(loop.done() for loop in self._loops), 60)

    def _loop(self, ask: Ask) -> None:
        while not self._over.is_set():
            assert ask(self._client, self._model, SHORT) == SHORT
            with self._counting:
                self._answered += 1
