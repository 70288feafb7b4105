"""What came of the cases: a row each, their sum, and every promise that did not hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.faults.invariants import Verdict

HEAD = (
    *("case", "runs", "completed", "coded errors", "cut, read on", "not accepted", "silent losses"),
    *("truncated, looks whole", "repeated or missing", "billing mismatches", "slowest take-over s"),
)
_FEW = 3  # examples of one kind of broken promise


@dataclass(slots=True)
class Row:
    """One case. ends: how many runs ended how; codes: of the errors that clients saw. takeovers:
    seconds and what had been struck, slowest first. continued: answers that several engines gave. broken: sentences."""

    case: str
    runs: int = 0
    ends: dict[str, int] = field(default_factory=dict)
    codes: dict[str, int] = field(default_factory=dict)
    truncated: int = 0
    order: int = 0
    billing: int = 0
    continued: int = 0
    takeovers: list[tuple[float, str]] = field(default_factory=list)
    seconds: float = 0.0
    broken: list[str] = field(default_factory=list)

    def cells(self) -> tuple[str, ...]:
        """As HEAD names them."""
        ends = [self.ends.get(name, 0) for name in ("completed", "coded", "resumed", "not accepted", "lost")]
        numbers = (self.runs, *ends, self.truncated, self.order, self.billing)
        slowest = "{:.1f} {}".format(*max(self.takeovers)) if self.takeovers else "-"
        return (self.case, *map(str, numbers), slowest)


def row_of(
    case: str,
    verdicts: Mapping[str, Verdict],
    takeovers: Sequence[tuple[float, str]],
    notes: Iterable[str],
    codes: frozenset[str] | None,
    cuts: bool,
) -> Row:
    """Adds up. codes: errors that clients may see in this case, None for any; cuts: connections may be lost."""
    row = Row(case, runs=len(verdicts), takeovers=sorted(takeovers, reverse=True), broken=list(notes))
    row.ends = dict(Counter(one.ended for one in verdicts.values()))
    row.codes = dict(Counter(one.code for one in verdicts.values() if one.code))
    row.truncated = sum(bool(one.truncated) for one in verdicts.values())
    row.order = sum(bool(one.order) for one in verdicts.values())
    row.billing = sum(bool(one.billing) for one in verdicts.values())
    row.continued = sum(one.continued for one in verdicts.values())
    row.broken += _examples(verdicts)
    if strange := {code for code in row.codes if codes is not None and code not in codes}:
        row.broken.append(f"errors that nothing here explains: {', '.join(sorted(strange))}")
    if not cuts and row.ends.keys() & {"resumed", "not accepted"}:
        row.broken.append("connections were cut though no ingress died")
    if not row.ends.get("completed"):
        row.broken.append("no run was answered whole")
    return row


def _examples(verdicts: Mapping[str, Verdict]) -> list[str]:
    """A few of each kind, with the runs' names, and how many there are."""
    by_words: dict[str, list[str]] = {}
    for name, verdict in verdicts.items():
        for words in verdict.broken:
            by_words.setdefault(words, []).append(name)
    return [f"{words} ({len(names)}: {', '.join(names[:_FEW])})" for words, names in by_words.items()]


def merged(rows: Iterable[Row]) -> list[Row]:
    """One row for each case, in the order in which they came first."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.case, []).append(row)
    return [total(same, case) for case, same in found.items()]


def total(rows: Sequence[Row], case: str = "all") -> Row:
    """The sum of the rows."""
    summed = Row(case, runs=sum(row.runs for row in rows), seconds=sum(row.seconds for row in rows))
    for row in rows:
        summed.ends = dict(Counter(summed.ends) + Counter(row.ends))
        summed.codes = dict(Counter(summed.codes) + Counter(row.codes))
        summed.truncated += row.truncated
        summed.order += row.order
        summed.billing += row.billing
        summed.continued += row.continued
        summed.takeovers += row.takeovers
        summed.broken += row.broken
    return summed


def table(rows: Sequence[Row]) -> str:
    """The rows and their sum, aligned."""
    return aligned([HEAD, *(row.cells() for row in rows), total(rows).cells()])


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Columns side by side."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def plain(rows: Sequence[Row]) -> dict[str, object]:
    """For programs."""
    return {"cases": [asdict(row) for row in rows], "all": asdict(total(rows))}


def read(value: Any) -> list[Row]:
    """The rows that `plain` wrote. ValueError for anything else."""
    try:
        rows = [Row(**one) for one in value["cases"]]
    except (TypeError, KeyError) as error:
        raise ValueError(f"not a table of scripts/faults ({error})") from None
    for row in rows:
        row.takeovers = [(seconds, name) for seconds, name in row.takeovers]
    return rows
