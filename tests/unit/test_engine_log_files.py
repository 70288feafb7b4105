"""What an engine writes stays within bounds, on the disk and in the memory of whoever reads it."""

from __future__ import annotations

from pathlib import Path

from workers.provisioner.targets.logs import PIECE_BYTES, last_line, rotate, tail


def test_of_a_log_that_outgrew_its_piece_between_two_looks_only_the_end_is_kept(tmp_path: Path) -> None:
    log = tmp_path / "small.log"
    log.write_bytes(b"early\n" * 10_000 + b"late\n")
    rotate(log, piece_bytes=1_000)
    aside = tmp_path / "small.log.1"
    assert log.stat().st_size == 0 and aside.stat().st_size == 2_000 and aside.stat().st_mode & 0o777 == 0o600
    assert last_line(log) == "late"


def test_a_line_that_never_ends_is_not_read_whole(tmp_path: Path) -> None:
    log = tmp_path / "small.log"
    with log.open("wb") as file:
        file.truncate(50 * PIECE_BYTES)  # a hole: takes no disk
        file.seek(0, 2)
        file.write(b"\nthe end\n")
    found = tail(log, 10)
    assert found is not None and found[-1] == "the end" and sum(map(len, found)) <= 2 * PIECE_BYTES
    assert last_line(log) == "the end"
