"""What reads bytes of strangers, as functions that atheris and Hypothesis call: each takes any bytes and either reads
them or refuses them in the documented way. Any other exception is a finding.

    python -m tests.fuzz_targets SECONDS [TARGET ...]      atheris, led by coverage; see scripts/fuzz
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress

from base.crypto import CryptoError, KeyRing, RingKey, Verifier
from base.ids import SystemRandom
from ingress.asked import parse_chat, parse_completion, parse_embedding, parse_moderation
from ingress.credentials import credential_of
from ingress.headers import client_request_id, deadline_ms, priority, traceparent
from ingress.protocol import without_offer
from ingress.responses.asked import parse_response
from providers import openai_openai, responses_chunks, responses_openai
from providers.errors import BadResponse, Broken, EngineError, Untranslatable
from providers.http_answer import Answer
from providers.openai_errors import engine_error
from providers.ports import Question
from providers.sse import Splitter
from runtime.seals import Seals
from runtime.topology import load
from schemas import envelope as wire
from schemas.errors import DecodeError, Refusal, SignatureError, UnknownVersion
from schemas.frames import decode_failure
from schemas.routes import RESPONSES
from schemas.verdicts import open_verdict, read_verdict
from tests.golden_support import MESSAGES, RING, RUN, envelope_of
from tests.run_support import CLOCK

TOPOLOGY = load()
SEALS = Seals(KeyRing([RingKey("golden", bytes(range(32)))]), "router", CLOCK, SystemRandom())


def events(data: bytes) -> None:
    """A stream of an engine means the same in one piece and cut anywhere."""
    cut = data[0] if data else 0
    with suppress(BadResponse):
        assert _split(data[:cut], data[cut:]) == _split(data)


def _split(*pieces: bytes) -> list[bytes]:
    splitter = Splitter(max_event=1 << 16)
    return [event for piece in pieces for event in splitter.feed(piece)] + splitter.finish()


def bodies(data: bytes) -> None:
    """A request body; what goes on reads the same again."""
    for parse in (parse_chat, parse_completion, parse_embedding, parse_moderation, parse_response):
        with suppress(Refusal):
            body = parse(data).body
            assert parse(body).body == body
    with suppress(Refusal, Untranslatable):
        responses_openai.request(_question(parse_response(data).body), "engine")


def _question(body: bytes) -> Question:
    return Question(run=RUN, route=RESPONSES, model="public", body=body, stream=True)


def headers(data: bytes) -> None:
    """Values of the headers that the door reads, and the bytes of a head."""
    found = dict.fromkeys((b"authorization", b"x-stainless-read-timeout", b"traceparent"), data)
    with suppress(Refusal):
        credential_of({b"authorization": b"Bearer " + data}, RING)
    with suppress(Refusal):
        priority({b"x-headrace-priority": data})
    assert deadline_ms(found, 600, 3600) >= 1
    traceparent(found)
    client_request_id({b"x-client-request-id": data})
    without_offer(data, 65536)


def answers(data: bytes) -> None:
    """What an engine answers: whole, as an event of a stream, as an error."""
    for holds in ("choices", "data"):
        with suppress(BadResponse, EngineError):
            openai_openai.answer(data, "public", holds)
    question = _question(b"{}")
    with suppress(BadResponse, EngineError):
        responses_chunks.answer(question, data)
    for stream in (openai_openai.ChatStream("public", False), responses_chunks.ResponseStream(question)):
        with suppress(BadResponse, Broken, EngineError):
            stream.take(data)
            stream.ending()
    engine_error(500, {"retry-after": data.decode("latin1")}, data)


def upstream(data: bytes) -> None:
    """What a server sends in answer to a request means the same in one piece and cut anywhere."""
    cut = sum(data) % (len(data) + 1)  # the first byte of an answer is always the same
    whole, parts = _answer(data), _answer(data[:cut], data[cut:])
    assert whole == parts


def _answer(*pieces: bytes) -> tuple[object, ...]:
    """Status, headers, body and whether it is all; of what cannot be read only that."""
    answer = Answer()
    try:
        for piece in pieces:
            answer.feed(piece)
    except BadResponse:
        return ("unreadable",)
    answer.end()
    return answer.status, answer.headers, answer.take(), answer.has_head, answer.complete


def entries(data: bytes) -> None:
    """An entry of every stream, as nobody signed it."""
    for name, stream in TOPOLOGY.streams.items():
        for signature in (b"", b"golden:" + data, data):
            with suppress(DecodeError, SignatureError, UnknownVersion):
                wire.verify(Verifier(RING), name, stream.publishers, wire.Signed(data, signature))
    with suppress(DecodeError, UnknownVersion):
        wire.decode(data)


def stored(data: bytes) -> None:
    """Verdicts, frames, bodies and letters as they lie in Redis."""
    with suppress(SignatureError, DecodeError):
        open_verdict(Verifier(RING), "rules", data)
    for read in (read_verdict, decode_failure):
        with suppress(DecodeError):
            read(data)
    with suppress(DecodeError):
        SEALS.open_frame(RUN, 1, 1, "data", 1, data, b"")
    for opened in (SEALS.open_body, lambda run, sealed: SEALS.open_letter(sealed, run)):
        with suppress(CryptoError):
            opened(RUN, data)


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    target.__name__: target for target in (events, bodies, headers, answers, upstream, entries, stored)
}
#: Where chance begins.
SEEDS = (
    b'data: {"model":"m","choices":[{"index":0,"delta":{"content":"x"},"finish_reason":null}]}\r\n\r\ndata: [DONE]\n\n',
    b'{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true,"max_tokens":5}',
    b'{"model":"m","input":[{"type":"function_call","call_id":"c","name":"f","arguments":"{}"},{"role":"user","content":'
    b'[{"type":"input_image","image_url":"u"}]}],"tools":[{"type":"function","name":"f"}],"tool_choice":{"type":"x"}}',
    b'{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":"{"}}]}}]}',
    b'{"model":"m","input":["x",[1,2]],"prompt":"p","temperature":0.5,"usage":{"prompt_tokens":1}}',
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nhi\r\n0\r\nt:\r\n\r\n",
    b"HTTP/1.0 404 Not Found\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\n{}HTTP/1.1 200 OK\r\n\r\nrest",
    b'{"error":{"message":"m","type":"t","param":null,"code":"c"},"choices":[{"message":{"content":"\\ud83d"}}]}',
    *(envelope_of(event, by) for (_, by), said in MESSAGES.items() for event in said),
)


_CHILD = """
import atheris
with atheris.instrument_imports(include=["base", "ingress", "policy", "providers", "runtime", "schemas", "tests"]):
    from tests import fuzz_targets
fuzz_targets.fuzz({name!r}, {seconds})
"""


def fuzz(name: str, seconds: int) -> None:
    """One target in this process, for good: atheris ends the process."""
    import atheris

    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(SEEDS):
            with open(f"{corpus}/{number}", "wb") as file:
                file.write(seed)
        words = [sys.argv[0], f"-max_total_time={seconds}", "-max_len=4096", "-verbosity=1", corpus]
        atheris.Setup(words, TARGETS[name])
        atheris.Fuzz()


def main() -> int:
    """Every target in a process of its own; 1 when one of them found something."""
    seconds, *names = sys.argv[1:]
    found = 0
    for name in names or TARGETS:
        print(f"{name}: {seconds} s", flush=True)
        words = [sys.executable, "-c", _CHILD.format(name=name, seconds=int(seconds))]
        done = subprocess.run(words, capture_output=True, text=True)
        print("\n".join(done.stderr.splitlines()[-4 if done.returncode == 0 else -60 :]))
        found |= done.returncode
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
