"""One answer of the mock engine, on its schedule.

Token k is due at arrival + ttft + k * itl: an absolute schedule, so lateness does not add up. A unary answer is due
when its last token would be. Whatever happens, an answer is counted as ended exactly once.
"""

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Protocol

from bench import wire
from bench.engine_state import Attempt, Engine
from bench.script import Script
from bench.stamps import TOKEN_HEAD, encode, token

#: Tokens written in one go when no time lies between them.
BURST = 64


class Client(Protocol):
    """What an answer needs of its connection."""

    writable: bool

    def send(self, data: bytes) -> None: ...

    def hang_up(self) -> None: ...

    def answered(self) -> None: ...


class Answer:
    """Begins when built; `leave` and `resume` tell it what its client does."""

    def __init__(self, client: Client, engine: Engine, asked: Script, attempt: Attempt) -> None:
        self._client, self._engine, self._script, self._attempt = client, engine, asked, attempt
        self._loop = asyncio.get_running_loop()
        self._ident = f"chatcmpl-mock{engine.stats.requests}"
        self._total, self._sent = asked.tokens or max(engine.settings.tokens - asked.said, 1), 0
        self._timer: asyncio.Handle | None = None
        self.over = False
        ttft, self._itl = _pace(engine.settings.ttft_ms, engine.settings.itl_ms, asked.slow)
        self._due = monotonic() + ttft
        engine.stats.live += 1
        if asked.stream:
            engine.stats.streams += 1
            self._bytes = wire.StreamBytes(self._ident, asked.model, asked.usage, asked.text)
            self._wait(self._begin)
        else:
            engine.stats.unary += 1
            self._due += (self._total - 1) * self._itl
            self._wait(self._unary)

    def leave(self) -> None:
        """The client has gone."""
        if not self.over:
            self._engine.stats.aborted += 1
            self._attempt.left_s = monotonic()
            self._end("aborted")

    def resume(self) -> None:
        """The client takes bytes again after `writable` was false."""
        if self._timer is None and not self.over and self._script.hang != self._sent:
            self._write_tokens()

    def _wait(self, step: Callable[[], None]) -> None:
        delay = self._due - monotonic()
        if delay > 0:
            self._timer = self._loop.call_later(delay, step)
        else:
            step()

    def _begin(self) -> None:
        self._client.send(wire.STREAM_HEAD + self._bytes.role())
        self._write_tokens()

    def _write_tokens(self) -> None:
        """Write what is due, then sleep until the next; ends the stream after its last token."""
        self._timer = None
        for _ in range(BURST):
            if self._struck():
                return
            self._write_token()
            if self._sent == self._total:
                self._finish_stream()
                return
            if not self._client.writable:
                return
            self._due += self._itl
            delay = self._due - monotonic()
            if delay > 0:
                self._timer = self._loop.call_later(delay, self._write_tokens)
                return
        self._timer = self._loop.call_soon(self._write_tokens)

    def _write_token(self) -> None:
        text = self._token(self._sent)
        self._client.send(self._bytes.before + text + self._bytes.after)
        self._sent += 1
        self._engine.stats.tokens += 1
        if self._script.ledger_id:
            self._attempt.text += text.decode()

    def _token(self, place: int) -> bytes:
        """The token at a place of this answer; what was said before stands in front of it."""
        return TOKEN_HEAD + encode(self._script.said + place) if self._script.counted else token()

    def _struck(self) -> bool:
        """Carry out the fault asked for at this token: True when nothing more is to be written now."""
        if self._sent == self._script.hang:
            self._attempt.state = "hang"
            return True
        if self._sent == self._script.cut:
            self._cut()
            return True
        return False

    def _cut(self) -> None:
        self._engine.stats.faults += 1
        self._end("cut")
        self._client.hang_up()

    def _finish_stream(self) -> None:
        usage = wire.usage_of(self._script.prompt_tokens, self._sent) if self._script.usage else None
        self._client.send(self._bytes.finish(self._reason(), usage))
        self._engine.stats.finished += 1
        self._end("finished")

    def _unary(self) -> None:
        self._timer = None
        if self._script.hang is not None:
            self._attempt.state = "hang"
            return
        text = b"".join(self._token(place) for place in range(self._total)).decode()
        usage = wire.usage_of(self._script.prompt_tokens, self._total)
        whole = wire.completion(self._ident, self._script.model, text, self._reason(), usage, plain=self._script.text)
        if self._script.cut is not None:
            self._client.send(whole[: len(whole) // 2])
            self._cut()
            return
        self._client.send(whole)
        self._sent = self._total
        self._engine.stats.tokens += self._total
        self._engine.stats.finished += 1
        if self._script.ledger_id:
            self._attempt.text = text
        self._end("finished")

    def _reason(self) -> str:
        return "length" if self._script.tokens else "stop"

    def _end(self, state: str) -> None:
        """Close the books; a hang stays a hang in the ledger, so that a test finds it."""
        self.over = True
        if self._timer:
            self._timer.cancel()
        self._engine.stats.live -= 1
        self._attempt.tokens = self._sent
        if self._attempt.state == "running":
            self._attempt.state = state
        self._client.answered()


def _pace(ttft_ms: float, itl_ms: float, slow: bool) -> tuple[float, float]:
    """Seconds to the first token and between tokens."""
    if slow:
        return max(100.0, ttft_ms * 10) / 1000, max(100.0, itl_ms * 10) / 1000
    return ttft_ms / 1000, itl_ms / 1000
