"""docs/how-to/add-a-scanner.md followed to the letter, in a copy of the checkout: its tests pass there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.checks_support import ROOT

PAGE = (ROOT / "docs" / "how-to" / "add-a-scanner.md").read_text()
_BLOCK = r"```\w+\n(.*?)```"
NEW = re.findall(rf"^`([\w/]+\.py)`:\n\n{_BLOCK}", PAGE, re.DOTALL | re.MULTILINE)
ADDED = re.findall(rf"in\s`([\w/.]+)`,\sbehind\s`([^`]+)`:\n\n{_BLOCK}", PAGE, re.DOTALL)
COPIED = ("base", "schemas", "policy", "runtime", "state", "storage", "providers", "ingress", "workers", "console")
FILES = ("tests", "headrace.sample.yaml", "streams.yaml", "pyproject.toml")


def behind(text: str, place: str, addition: str) -> str:
    """The text with an addition behind the one line that is `place`, or behind the one place inside a line."""
    whole = re.findall(rf"^ *{re.escape(place)}$", text, re.MULTILINE)
    if len(whole) == 1:
        return text.replace(f"{whole[0]}\n", f"{whole[0]}\n{addition}", 1)
    assert text.count(place) == 1, f"{place!r} is not there once"
    return text.replace(place, place + addition.rstrip("\n"))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The checkout with what the page says done to it."""
    for name in COPIED:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    for name, text in NEW:
        (tmp_path / name).write_text(text)
    for name, place, addition in ADDED:
        file = tmp_path / name
        file.write_text(behind(file.read_text(), place, addition))
    return tmp_path


@pytest.mark.slow
def test_the_page_adds_a_scanner_that_works(copy: Path) -> None:
    assert len(NEW) == 1 and len(ADDED) == 9
    tests = [f"tests/unit/test_{name}.py" for name in ("scanner_tables", "guardrails_rules", "guardrails_policy")]
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(words, cwd=copy, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert "test_scanner_tables" not in done.stdout  # nothing failed or was skipped
    program = (
        "from console.config import load; from workers.guardrails.policy import Policies, effective;"
        "from workers.guardrails.rules import scan_text; from pathlib import Path;"
        "policy = effective(load(Path('headrace.sample.yaml'), environ={}).guardrails);"
        "print([f.kind for f in scan_text('chassis 1HGCM82633A004352', policy)], policy.actions['vin'])"
    )
    found = subprocess.run([sys.executable, "-c", program], cwd=copy, capture_output=True, text=True, timeout=60)
    assert found.stdout.strip() == "['vin'] flag", found.stderr
