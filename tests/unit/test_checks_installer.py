"""The installer's errors are one line with the remedy."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def load_script(name: str) -> ModuleType:
    """A file of scripts/ as a module; scripts is not a package."""
    spec = importlib.util.spec_from_file_location(f"scripts_{name}", ROOT / "scripts" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


installer = load_script("installer")


@pytest.mark.parametrize(
    ("output", "remedy"),
    [
        ("error: client error (Connect)\n  dns error: failed to lookup address information", "HTTPS_PROXY"),
        ("ERROR: No matching distribution found for uv==0.13.8", "the package registry cannot be reached"),
        ("invalid peer certificate: UnknownIssuer", "ca-certificates"),
        ("error: No space left on device (os error 28)", "the disk is full"),
    ],
)
def test_a_known_failure_is_one_line_with_its_remedy(output: str, remedy: str) -> None:
    text = str(installer.explain("packages", output))
    assert remedy in text
    assert "\n" not in text


def test_an_unknown_failure_shows_the_tools_last_words() -> None:
    assert "hash mismatch for x" in str(installer.explain("packages", "Resolved\n\nerror: hash mismatch for x\n"))


def test_a_python_without_pip_and_ensurepip_names_the_debian_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installer.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter(()))
    with pytest.raises(installer.InstallError, match="apt-get install python3-venv"):
        installer.bundled_pip()


def test_what_was_installed_for_tests_is_not_taken_away_by_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installer, "STAMP", tmp_path / "stamp.json")
    assert "dev" not in installer.wanted_sets(dev=False)
    (tmp_path / "stamp.json").write_text('{"sets": ["core", "weights", "build", "dev"], "hash": ""}')
    assert "dev" in installer.wanted_sets(dev=False)
