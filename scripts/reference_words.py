"""Markdown for the pages of docs/reference."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; pipes and line ends in cells are made harmless."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(_cell(cell) for cell in line) + " |\n" for line in lines) + "\n"


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", safe(text)).replace("|", "\\|").strip()


def safe(text: str) -> str:
    """Words in angle brackets are no tags, unless they stand in code."""
    pieces = re.split(r"(`[^`]*`)", text)
    return "".join(piece if piece.startswith("`") else re.sub(r"<(?=\w)", "&lt;", piece) for piece in pieces)


def prose(text: str | None) -> str:
    """A docstring as Markdown text; its indented blocks stay blocks."""
    return safe(inspect.cleandoc(text or "")) + "\n\n"
