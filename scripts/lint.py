"""House rules that no off-the-shelf linter knows: `lint.py rules` fails on a violation, `lint.py sizes` only reports.

- Time, chance and sleep enter through base/: no time.time, time.monotonic, random, uuid1/uuid4, os.urandom, secrets or
  asyncio.sleep elsewhere. A simulation could not bend them. bench/, scripts/ and tests/ are exempt.
- Only runtime/ knows how to acknowledge and claim: the words xack, xclaim and xautoclaim occur nowhere else.
- SQL is SQL: no string is built in a call of execute, executemany, fetch, fetchrow, fetchval or copy in storage/.
- No mark of a merge is left, not even in a docstring, where Python and the formatter do not mind it.
"""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = (
    *("base", "schemas", "policy", "runtime", "state", "storage"),
    *("providers", "ingress", "workers", "console"),
)
FORBIDDEN = {
    *("time.time", "time.time_ns", "time.monotonic", "time.monotonic_ns", "time.perf_counter"),
    *("uuid.uuid1", "uuid.uuid4", "os.urandom", "asyncio.sleep"),
}
FORBIDDEN_MODULES = ("random", "secrets")
MERGE_MARKS = ("<" * 7, ">" * 7)
DELIVERY_WORDS = ("xack", "xclaim", "xautoclaim")
SQL_CALLS = ("execute", "executemany", "fetch", "fetchrow", "fetchval", "copy_to_table", "copy_from_query", "cursor")
LONG_FUNCTION, LONG_FILE = 60, 500


def python_files(*folders: str) -> list[Path]:
    """Python files of the packages that git knows or would add, so that nobody's scratch files count."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *(f"{name}/" for name in folders)]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    return [ROOT / name for name in sorted(set(listed)) if name.endswith(".py") and (ROOT / name).exists()]


def imported_names(tree: ast.Module) -> dict[str, str]:
    """Local name -> what it stands for, so that `from time import monotonic as now` is seen."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {(item.asname or item.name): item.name for item in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {(item.asname or item.name): f"{node.module}.{item.name}" for item in node.names}
    return names


def full_name(node: ast.expr, names: dict[str, str]) -> str:
    """`time.monotonic` for whatever spelling leads to it, "" for anything that is no plain name."""
    if isinstance(node, ast.Name):
        return names.get(node.id, "")
    if isinstance(node, ast.Attribute):
        owner = full_name(node.value, names)
        return f"{owner}.{node.attr}" if owner else ""
    return ""


def clock_rule(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Uses and imports of time and chance."""
    names = imported_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [item.name for item in node.names]
            for module in modules:
                if module.split(".")[0] in FORBIDDEN_MODULES and not getattr(node, "level", 0):
                    yield node.lineno, f"module {module}: take chance from base.ids.Random"
        if isinstance(node, ast.Name | ast.Attribute) and full_name(node, names) in FORBIDDEN:
            yield node.lineno, f"{full_name(node, names)}: take it from base.clock or base.ids"


def delivery_rule(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Names, attributes and command strings of delivery; prose in docstrings and comments may speak of them."""
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        word = ""
        if isinstance(node, ast.Attribute):
            word = node.attr
        elif isinstance(node, ast.Name):
            word = node.id
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            word = node.value
        if any(known in word.lower() for known in DELIVERY_WORDS):
            yield getattr(node, "lineno", 0), f"{word[:40]!r}: only runtime/ acknowledges and claims"


def sql_rule(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Built strings as the statement of a database call."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or not node.args:
            continue
        if node.func.attr in SQL_CALLS and is_built(node.args[0]):
            yield (
                node.lineno,
                f"{node.func.attr}() of a built string: put the statement into queries.sql, pass arguments",
            )


def merge_rule(text: str) -> Iterator[tuple[int, str]]:
    """Lines that a merge has left, at any depth."""
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip().startswith(MERGE_MARKS):
            yield number, "left over from a merge: choose what is to stand here"


def is_built(node: ast.expr) -> bool:
    """An f-string with a value in it, `%` or `+` on strings, or `.format(...)`."""
    if isinstance(node, ast.JoinedStr):
        return any(isinstance(part, ast.FormattedValue) for part in node.values)
    if isinstance(node, ast.BinOp):
        sides = (node.left, node.right)
        return any(isinstance(side, ast.JoinedStr) or _is_text(side) or is_built(side) for side in sides)
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format"


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def violations(path: Path, text: str) -> Iterator[tuple[int, str]]:
    """Everything wrong with one file; `path` is relative to the repository and decides which rules apply."""
    tree = ast.parse(text)
    room = path.parts[0]
    yield from merge_rule(text)
    if room != "base":
        yield from clock_rule(tree)
    if room != "runtime":
        yield from delivery_rule(tree)
    if room == "storage":
        yield from sql_rule(tree)


def check_rules() -> int:
    """Print every violation; 1 when there is one."""
    found = 0
    for path in python_files(*PACKAGES):
        relative = path.relative_to(ROOT)
        for line, problem in sorted(set(violations(relative, path.read_text()))):
            print(f"{relative}:{line}: {problem}")
            found += 1
    return 1 if found else 0


def function_sizes(tree: ast.Module) -> Iterator[tuple[str, int, int]]:
    """Name, first line and number of lines of every function."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node.lineno, (node.end_lineno or node.lineno) - node.lineno + 1


def report_sizes() -> int:
    """Long functions and files, and the shape of the whole. Never fails: sizes are defended in review."""
    functions: list[int] = []
    files: list[int] = []
    for path in python_files(*PACKAGES):
        text, relative = path.read_text(), path.relative_to(ROOT)
        files.append(text.count("\n"))
        if files[-1] > LONG_FILE:
            print(f"long file      {relative}: {files[-1]} lines")
        for name, line, lines in function_sizes(ast.parse(text)):
            functions.append(lines)
            if lines > LONG_FUNCTION:
                print(f"long function  {relative}:{line} {name}: {lines} lines")
    for kind, sizes in (("functions", functions), ("files", files)):
        if len(sizes) > 1:
            tenth = statistics.quantiles(sizes, n=10)[-1]
            print(
                f"{kind}: {len(sizes)}, lines median {statistics.median(sizes):.0f}, 90 % {tenth:.0f}, max {max(sizes)}"
            )
    return 0


def main() -> int:
    """`rules` or `sizes`."""
    return {"rules": check_rules, "sizes": report_sizes}[sys.argv[1]]()


if __name__ == "__main__":
    sys.exit(main())
