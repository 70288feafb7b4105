"""What the wheel and the source archive hold: every file the code reads, and nothing of the workshop."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from base.version import version
from tests.conftest import short_folder
from tests.package_support import ROOT, build

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
WHEEL: dict[str, Any] = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
PACKAGES: list[str] = WHEEL["packages"]


@pytest.fixture(scope="module")
def built() -> Iterator[tuple[Path, Path]]:
    with short_folder() as folder:
        yield build(folder / "dist")


def names(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


def tracked() -> set[str]:
    """Every file of a package that git knows."""
    done = subprocess.run(["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_every_file_of_a_package_is_in_the_wheel(built: tuple[Path, Path]) -> None:
    assert tracked() - names(built[0]) == set()


def test_files_of_the_top_lie_where_the_installed_code_reads_them(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[0]) as wheel:
        for source, inside in WHEEL["force-include"].items():
            for path in (ROOT / source).glob("*") if (ROOT / source).is_dir() else [ROOT / source]:
                name = f"{inside}/{path.name}" if (ROOT / source).is_dir() else inside
                assert wheel.read(name) == path.read_bytes()


def test_every_kind_of_data_is_there(built: tuple[Path, Path]) -> None:
    suffixes = {Path(name).suffix for name in names(built[0])}
    assert {".lua", ".sql", ".yaml", ".md"} <= suffixes


def test_nothing_of_the_workshop_is_in_the_wheel(built: tuple[Path, Path]) -> None:
    tops = {name.split("/")[0] for name in names(built[0])}
    assert tops == {*PACKAGES, f"headrace-{version()}.dist-info"}
    assert [name for name in names(built[0]) if name.endswith((".pyc", ".pem", ".key", ".env"))] == []


def test_the_licence_and_the_command_are_in_the_wheel(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[0]) as wheel:
        about = f"headrace-{version()}.dist-info"
        assert "headrace = console.cli.main:main" in wheel.read(f"{about}/entry_points.txt").decode()
        assert b"Apache License" in wheel.read(f"{about}/licenses/LICENSE")


def test_the_version_stands_in_one_place() -> None:
    assert version() == PROJECT["project"]["version"]
    written = [path for path in ROOT.glob("*/**/*.py") if path.parts[len(ROOT.parts)] in PACKAGES]
    assert [path for path in written if f'"{version()}"' in path.read_text()] == []


def test_the_archive_builds_the_same_wheel(built: tuple[Path, Path], tmp_path: Path) -> None:
    with tarfile.open(built[1]) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # older Pythons 3.11 have none
        archive.extractall(tmp_path)
    (source,) = tmp_path.iterdir()
    words = [str(Path(sys.executable).parent / "hatchling"), "build", "-t", "wheel", "-d", str(tmp_path / "again")]
    done = subprocess.run(words, cwd=source, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    (again,) = (tmp_path / "again").glob("*.whl")
    assert names(again) == names(built[0])
