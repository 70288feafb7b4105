"""The installer's errors are one line with the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.checks_support import load_script

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
