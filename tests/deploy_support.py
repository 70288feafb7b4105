"""What the files under deploy/ and compose.yaml say, as values the tests compare with the code."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from typer.main import get_command

from base.metrics_list import METRICS
from console.cli.main import build

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
#: What Prometheus and its client library bring along.
FOREIGN = {"up": set[str](), "process_resident_memory_bytes": set(), "process_cpu_seconds_total": set()}
LABELS_OF_EVERYTHING = {"job", "instance", "le"}
_OURS = {metric.name: set(metric.labels) for metric in METRICS}
_PARTS = ("bucket", "sum", "count")
_BUCKETED = {f"{m.name}_{part}": set(m.labels) for m in METRICS if m.kind == "histogram" for part in _PARTS}
KNOWN = _OURS | _BUCKETED | FOREIGN
_GROUPING = re.compile(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)")


def compose() -> dict[str, Any]:
    """compose.yaml with its anchors followed."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return found


def stage_lines(stage: str) -> list[list[str]]:
    """The instructions of one Dockerfile stage, as words; continued lines are one."""
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    found: list[list[str]] = []
    inside = False
    for line in text.split("\n"):
        words = line.split()
        if words[:1] == ["FROM"]:
            inside = words[-1] == stage
        elif inside and words and not line.startswith("#"):
            found.append(words)
    return found


def cli_error(words: list[str]) -> str:
    """Why `headrace WORDS` is no command of ours, or "". Nothing is run."""
    try:
        _parse(get_command(build()), list(words))
    except Exception as error:
        said = getattr(error, "format_message", None)  # a usage error, of click or of typer's own copy of it
        if said is None:
            raise
        return str(said())
    return ""


def _parse(command: Any, words: list[str]) -> None:
    """Follow groups to the command, then let it read its options and arguments."""
    context = command.make_context(command.name, words, resilient_parsing=False)
    with context:
        if hasattr(command, "resolve_command"):
            _, inner, rest = command.resolve_command(context, [*context._protected_args, *context.args])
            _parse(inner, rest)


def metrics_of(expression: str) -> Iterator[tuple[str, set[str]]]:
    """(metric, labels named with it) of a PromQL expression; grouping labels belong to every metric in it."""
    grouped = {label.strip() for text in _GROUPING.findall(expression) for label in text.split(",") if label.strip()}
    bare = _GROUPING.sub(" ", expression)
    for match in re.finditer(r"\b([a-z][a-z0-9_]*_[a-z0-9_]+|up)\b\s*(\{[^}]*\})?", _without_functions(bare)):
        named = {part.split("=")[0].strip(" !~") for part in (match[2] or "{}")[1:-1].split(",") if part.strip()}
        yield match[1], grouped | named


def _without_functions(expression: str) -> str:
    return re.sub(r"\b[a-z_]+\s*\(", "(", re.sub(r"\[[^\]]*\]", " ", expression))


def strangers(expression: str) -> list[str]:
    """What an expression names and no process of ours exports."""
    found = list(metrics_of(expression))
    unknown = [name for name, _ in found if name not in KNOWN]
    labels = {label for _, named in found for label in named} - LABELS_OF_EVERYTHING
    known = {label for name, _ in found for label in KNOWN.get(name, ())}
    return unknown + sorted(labels - known)


def rules() -> list[dict[str, Any]]:
    """Every alert."""
    loaded = yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())
    return [rule for group in loaded["groups"] for rule in group["rules"]]


def board() -> dict[str, Any]:
    """The dashboard."""
    found: dict[str, Any] = json.loads((DEPLOY / "grafana" / "dashboards" / "headrace.json").read_text())
    return found
