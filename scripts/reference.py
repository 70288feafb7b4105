"""Writes docs/reference from the code, and the table on top of each page of docs/errors. `--check` only compares.

    settings.md   console.config.Settings         streams.md   streams.yaml, the keys of runtime and state
    events.md     schemas                         metrics.md   base.metrics_list.METRICS
    errors.md     schemas.errors, ingress.errors  cli.md       console.cli
    routes.md     the OpenAPI documents of both ports
    asyncapi.json runtime.asyncapi, as served at /asyncapi.json

Exit code 1 with the names of stale pages when `--check` finds any. A page of docs/errors is written by hand below its
table; a code without a page gets one that only has headings.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from reference_routes import routes  # noqa: E402 - found by the line above
from reference_words import prose, table  # noqa: E402

REFERENCE, ERRORS = ROOT / "docs" / "reference", ROOT / "docs" / "errors"
NOTE = "<!-- Written by scripts/docs from the code. Change the code, then run it again. -->\n\n"
END = "<!-- end of what scripts/docs writes -->\n"


# --- settings ---------------------------------------------------------------------------------------------------


def settings() -> str:
    """Every key of headrace.yaml."""
    from console.config import Settings

    schema = Settings.model_json_schema()
    intro = (
        "# Settings\n\n"
        "Strongest first: command line, environment, `.env`, `headrace.yaml`, the defaults below. In the environment "
        "`server.port` is `HEADRACE__SERVER__PORT`; lists and mappings are written as YAML or JSON there. In the file "
        "`${NAME}` takes an environment variable and a value `file:PATH` the text of a file. An unknown key is an "
        "error that names file and line. A commented example: "
        "[headrace.sample.yaml](../../headrace.sample.yaml).\n\n"
    )
    top: list[list[str]] = []
    parts: list[str] = []
    seen: set[str] = set()
    places = _places(schema)
    for name, field in schema["properties"].items():
        inner = _referred(field)
        item = _referred(field.get("items", {}))
        if inner or item:
            parts += list(_section(schema["$defs"], name + ("[]" if item else ""), str(inner or item), seen, places))
        if not inner:
            top.append(_setting(name, field, places))
    return intro + "## Top level\n\n" + table(_SETTING, top) + "".join(parts)


_SETTING = ("key", "type", "default", "meaning")


def _places(schema: Mapping[str, Any]) -> dict[str, str]:
    """Model -> the first section that is of it, which is where it is explained."""
    found: dict[str, str] = {}

    def visit(model: Mapping[str, Any], path: str) -> None:
        for key, field in model["properties"].items():
            for mark, part in (("", field), ("[]", field.get("items")), (".<name>", field.get("additionalProperties"))):
                kind = _referred(part)
                if kind and found.setdefault(kind, f"{path}{key}{mark}") == f"{path}{key}{mark}":
                    visit(schema["$defs"][kind], f"{path}{key}{mark}.")

    visit(schema, "")
    return found


def _section(defs: Mapping[str, Any], path: str, name: str, seen: set[str], places: Mapping[str, str]) -> Iterator[str]:
    """A model's heading and table, then those of the models inside it. A model shown before is only referred to."""
    if name in seen:
        return
    seen.add(name)
    model = defs[name]
    rows, inner = [], []
    for key, field in model["properties"].items():
        kind = _referred(field)
        if kind is None or places[kind] != f"{path}.{key}":
            required = key in model.get("required", ())
            rows.append(_setting(f"{path}.{key}", field, places, required))
        if kind is not None:
            inner.append((f"{path}.{key}", kind))
        for mark, part in (("[]", field.get("items")), (".<name>", field.get("additionalProperties"))):
            if isinstance(part, dict) and _referred(part):
                inner.append((f"{path}.{key}{mark}", str(_referred(part))))
    yield f"## `{path}`\n\n{prose(model.get('description'))}" + (table(_SETTING, rows) if rows else "")
    for where, kind in inner:
        yield from _section(defs, where, kind, seen, places)


def _referred(field: Any) -> str | None:
    return field["$ref"].rpartition("/")[2] if isinstance(field, dict) and "$ref" in field else None


def _setting(key: str, field: Mapping[str, Any], places: Mapping[str, str], required: bool = False) -> list[str]:
    from workers.guardrails.policy import DEFAULT_ACTIONS

    default = field.get("default", "required" if required else None)
    group, _, last = key.rpartition(".")
    default = dict(DEFAULT_ACTIONS).get(last) if group == "guardrails.actions" else default  # type: ignore[call-overload]
    shown = "" if default in (None, "", [], {}) or "$ref" in field else yaml.safe_dump(default, default_flow_style=True)
    shown = shown.replace("\n...", "").strip()
    return [f"`{key}`", kind_of(field, places), f"`{shown}`" if shown else "", field.get("description", "")]


def kind_of(field: Mapping[str, Any], places: Mapping[str, str]) -> str:
    """A JSON schema's type and bounds in a few words. places: model -> the section that explains it."""
    if "anyOf" in field:
        return ", or ".join(kind_of(part, places) for part in field["anyOf"] if part.get("type") != "null")
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "$ref" in field:
        return f"as `{places[str(_referred(field))]}`"
    if field.get("type") == "array":
        return f"list of {kind_of(field.get('items', {}), places).removeprefix('as ')}"
    if field.get("type") == "object":
        return f"mapping to {kind_of(field.get('additionalProperties', {}), places).removeprefix('as ')}"
    bounds = [f"{sign} {field[key]}" for key, sign in _BOUNDS if key in field]
    word = "secret" if field.get("format") == "password" else str(field.get("type", "value"))
    return word + (f" ({', '.join(bounds)})" if bounds else "")


_BOUNDS = (("minimum", ">="), ("exclusiveMinimum", ">"), ("maximum", "<="))


# --- streams ----------------------------------------------------------------------------------------------------


def streams() -> str:
    """streams.yaml as tables, and every other Redis key."""
    import state
    from runtime import names

    declared = yaml.safe_load((ROOT / "streams.yaml").read_text())
    parts = [
        "# Streams and keys\n\n[streams.yaml](../../streams.yaml) declares every stream; nothing reads or writes one "
        "that is not in it. Times are milliseconds. Families that must answer about each run: "
        + ", ".join(f"`{name}`" for name in declared["families"])
        + ".\n\n"
    ]
    parts += [_stream(name, stream) for name, stream in declared["streams"].items()]
    parts.append(f"## Every key of delivery\n\n```text\n{inspect.cleandoc(names.__doc__ or '')}\n```\n\n")
    parts.append(f"## Every key of shared state\n\n```text\n{inspect.cleandoc(state.__doc__ or '')}\n```\n")
    return "".join(parts)


def _stream(name: str, stream: Mapping[str, Any]) -> str:
    text = f"## `{name}`\n\n{stream['description']}\n\n"
    text += table(("property", "value"), [[key, _value(stream[key])] for key in stream if key not in _APART])
    text += table(("published by", "what"), [[who, ", ".join(what)] for who, what in stream["publishers"].items()])
    groups = stream.get("groups") or {}
    rows = [[f"`{group}`", *[str(spec.get(key, "")) for key in _GROUP]] for group, spec in groups.items()]
    return text + (table(("group", *_GROUP), rows) if rows else "No group reads it.\n\n")


_APART = ("description", "publishers", "groups")
_GROUP = ("room", "batch", "concurrency", "idle_limit", "max_starts", "pace", "description")


def _value(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else f"`{value}`"


# --- events -----------------------------------------------------------------------------------------------------


def events() -> str:
    """Envelope, messages, and the values inside them."""
    from schemas import commands, envelope, events, frames, records, verdicts
    from schemas import errors as failures

    carried = _carriers()
    text = "# Events, commands and the values in them\n\nFrozen dataclasses of `schemas/`, as JSON in an envelope.\n\n"
    text += prose(envelope.__doc__) + _class(envelope.Envelope, "")
    for title, module in (("Events", events), ("Commands", commands)):
        text += f"## {title}\n\n{_fenced(module.__doc__)}"
        found = [kind for kind in envelope.message_classes().values() if kind.__module__ == module.__name__]
        text += "".join(_class(kind, carried.get(kind.__name__, "")) for kind in found)
    values = (
        events.Usage,
        events.Attempt,
        events.Choice,
        events.Seen,
        events.FactTimes,
        verdicts.Verdict,
        verdicts.Grant,
        verdicts.Edit,
    )
    text += "## Values\n\n" + "".join(_class(kind, "") for kind in (*values, failures.Failure))
    text += f"## Frames\n\n{_fenced(frames.__doc__)}" + _class(frames.Frame, "")
    return text + "## Records\n\n" + "".join(_class(kind, "") for kind in _records(records))


def _carriers() -> dict[str, str]:
    """Message -> `publisher on stream` for all that streams.yaml allows."""
    found: dict[str, list[str]] = {}
    for name, stream in yaml.safe_load((ROOT / "streams.yaml").read_text())["streams"].items():
        for who, what in stream["publishers"].items():
            for kind in what:
                found.setdefault(kind, []).append(f"{who} on `{name}`")
    return {kind: "Published by " + ", ".join(places) + ".\n\n" for kind, places in found.items()}


def _records(module: Any) -> list[type[Any]]:
    kinds = [kind for kind in vars(module).values() if inspect.isclass(kind)]
    return [kind for kind in kinds if dataclasses.is_dataclass(kind) or issubclass(kind, msgspec.Struct)]


def _class(kind: type[Any], note: str) -> str:
    hints = get_type_hints(kind)
    rows = []
    struct = issubclass(kind, msgspec.Struct)
    for field in msgspec.structs.fields(kind) if struct else dataclasses.fields(kind):
        shown = "" if field.default in (dataclasses.MISSING, msgspec.NODEFAULT) else f"`{field.default!r}`"
        rows.append([f"`{field.name}`", f"`{_type(hints[field.name])}`", shown])
    return f"### `{kind.__name__}`\n\n{prose(kind.__doc__)}{note}" + table(("field", "type", "default"), rows)


def _type(hint: Any) -> str:
    text = hint.__name__ if inspect.isclass(hint) and not getattr(hint, "__args__", None) else str(hint)
    return re.sub(r"\b(?:schemas\.\w+|typing|collections\.abc|msgspec)\.", "", text)


def _fenced(text: str | None) -> str:
    return f"```text\n{inspect.cleandoc(text or '')}\n```\n\n"


# --- metrics, errors --------------------------------------------------------------------------------------------


def metrics() -> str:
    """The one list."""
    from base.metrics_list import METRICS

    text = (
        "# Metrics\n\nEach process answers `/metrics` in the Prometheus format on its health port (`health_ports` in "
        "`connection.json`); the door also on its public port. No label is ever a key, a user or a request.\n\n"
    )
    rows = [
        [f"`{m.name}`", m.kind, ", ".join(f"`{label}`" for label in m.labels), m.unit, m.meaning, m.remedy]
        for m in METRICS
    ]
    return text + table(("metric", "kind", "labels", "unit", "meaning", "when it looks wrong"), rows)


def meanings() -> dict[str, str]:
    """Code -> the sentence behind it in schemas/errors.py."""
    source = (ROOT / "schemas" / "errors.py").read_text()
    return {name: said.strip() for name, said in re.findall(r'^    (\w+) = "\w+"  #: (.+)$', source, re.MULTILINE)}


def errors() -> str:
    """Every code with its status and the words clients see."""
    from schemas.errors import Code

    text = (
        "# Error codes\n\nEvery failure has one of these names: in the log, in the record "
        "(`headrace requests list`), in dead letters. Clients get OpenAI's error object with the status, `type` and "
        "`code` below. When an engine's own error is passed on, its status and code are shown instead.\n\n"
    )
    rows = [[f"[`{code}`](../errors/{code}.md)", *_face(code)[:3], meanings()[code]] for code in Code]
    return text + table(("name", "HTTP", "`type`", "`code`", "meaning"), rows)


def _face(code: Any) -> tuple[str, str, str, str]:
    """(status, type, public code, default retry-after) as text."""
    from ingress.errors import FACES
    from schemas.errors import STATUS

    face, status = FACES[code], STATUS[code]
    shown = "499 (never sent: the client is gone)" if status == 499 else str(status)
    wait = f"{face.retry_ms} ms" if face.retry_ms is not None else "none"
    return shown, f"`{face.type}`", f"`{face.code}`" if face.code else "null", wait


def error_page(code: Any) -> tuple[Path, str]:
    """A code's page: the table from the code, the rest as it stands."""
    path = ERRORS / f"{code}.md"
    rest = path.read_text().partition(END)[2] if path.exists() else ""
    status, kind, public, wait = _face(code)
    rows = [["HTTP status", status], ["`error.type`", kind], ["`error.code`", public], ["default retry-after", wait]]
    head = f"# {code}\n\n{NOTE}{meanings()[code].capitalize()}.\n\n" + table(("", "what clients see"), rows)
    return path, head + END + (rest or "\n## What happened\n\n## What to do\n")


# --- command line, asyncapi ---------------------------------------------------------------------------------------


def cli() -> str:
    """Every command with its arguments and options."""
    from typer.main import get_command

    from console.cli.main import build

    text = (
        "# The command line\n\nErrors are one line and exit code 2. Commands that ask a running Headrace find it by "
        "`HEADRACE_ADMIN_URL` and `HEADRACE_ADMIN_KEY` (`chat`: `HEADRACE_BASE_URL`, `HEADRACE_API_KEY`), else by "
        "`DIR/connection.json` with `--data DIR`. `up`, `start`, `doctor`, `topology` and `version` work without "
        "one; `scale` speaks to the supervisor of `--data DIR`.\n\n"
    )
    return text + "".join(_commands(get_command(build()), "headrace"))


def _commands(command: Any, path: str) -> Iterator[str]:
    inner = getattr(command, "commands", {})
    if not inner:
        shown = [*(f" {_argument(p)}" for p in command.params if p.param_type_name == "argument")]
        text = f"## `{path}{''.join(shown)}`\n\n{command.help or ''}\n\n"
        rows = [_parameter(p) for p in command.params if p.name != "help"]
        yield text + (table(("", "default", "meaning"), rows) if rows else "")
    for name in inner:
        yield from _commands(inner[name], f"{path} {name}")


def _argument(parameter: Any) -> str:
    name = parameter.name.upper()
    return name if parameter.required else f"[{name}]"


def _parameter(parameter: Any) -> list[str]:
    option = parameter.param_type_name == "option"
    name = ", ".join(parameter.opts) if option else parameter.name.upper()
    default = parameter.default
    shown = "" if callable(default) or default in (None, "", False, 0, (), []) else f"`{default}`"
    return [f"`{name}`", shown, parameter.help or ""]


def asyncapi() -> str:
    """The streams, as /asyncapi.json tells of them."""
    from runtime.asyncapi import document
    from runtime.topology import load

    return document(load()).decode()


# --- pages ------------------------------------------------------------------------------------------------------

PAGES: Mapping[str, Callable[[], str]] = {
    "settings.md": settings,
    "streams.md": streams,
    "events.md": events,
    "metrics.md": metrics,
    "errors.md": errors,
    "cli.md": cli,
    "routes.md": routes,
}


def pages() -> dict[Path, str]:
    """Every page as it should be."""
    from schemas.errors import Code

    found = {REFERENCE / name: NOTE + make().rstrip() + "\n" for name, make in PAGES.items()}
    found[REFERENCE / "asyncapi.json"] = asyncapi()
    return found | dict(error_page(code) for code in Code)


def stale() -> list[str]:
    """Pages that are missing or say something else, and pages of errors that no longer exist."""
    wanted = pages()
    wrong = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    return sorted(str(path.relative_to(ROOT)) for path in [*wrong, *(set(ERRORS.glob("*.md")) - set(wanted))])


def main() -> int:
    parser = argparse.ArgumentParser(description="Write docs/reference from the code.")
    parser.add_argument("--check", action="store_true", help="only say what is stale; exit code 1 when anything is")
    if parser.parse_args().check:
        old = stale()
        if old:
            print("stale, run scripts/docs: " + ", ".join(old), file=sys.stderr)
        return 1 if old else 0
    for path, text in pages().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
