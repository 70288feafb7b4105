"""The pages of error codes, docs/errors/<code>.md in the checkout and ingress/pages/errors in the package."""

from __future__ import annotations

from functools import lru_cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from schemas.errors import Code


def _folder() -> Traversable:
    beside = Path(__file__).resolve().parents[2] / "docs" / "errors"
    return beside if beside.is_dir() else resources.files("ingress") / "pages" / "errors"


@lru_cache(maxsize=len(Code))
def error_page(code: Code) -> bytes:
    """The page as Markdown in UTF-8."""
    return (_folder() / f"{code.value}.md").read_bytes()
