"""The documents say what the code does: the reference is fresh and whole, links lead somewhere, commands exist."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import tomllib
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from base.metrics_list import METRICS
from console.cli.main import build
from console.config import Settings, load
from schemas.envelope import message_classes
from schemas.errors import Code
from tests.checks_support import ROOT, load_script

reference = load_script("reference")
routes = load_script("reference_routes")
TOPOLOGY = yaml.safe_load((ROOT / "streams.yaml").read_text())
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def page(name: str) -> str:
    return (ROOT / "docs" / "reference" / name).read_text()


def rows(text: str) -> set[str]:
    """What stands in the first cell of table rows, as code."""
    return set(re.findall(r"^\| \[?`([^`]+)`", text, re.MULTILINE))


# --- the reference ------------------------------------------------------------------------------------------------


def test_the_reference_is_what_the_code_says() -> None:
    assert reference.stale() == [], "run scripts/docs"


def models_in(kind: Any) -> Iterator[type[BaseModel]]:
    """Every section model that an annotation leads to."""
    if inspect.isclass(kind) and issubclass(kind, BaseModel):
        yield kind
    for inner in typing.get_args(kind):
        yield from models_in(inner)


def settings_of(model: type[BaseModel], path: str, seen: set[type[BaseModel]]) -> Iterator[str]:
    """Dotted paths of all settings, those of a model only where it comes first."""
    for name, field in model.model_fields.items():
        yield f"{path}{name}"
        for inner in models_in(field.annotation):
            if inner not in seen:
                seen.add(inner)
                mark = {tuple: "[]", dict: ".<name>"}.get(typing.get_origin(field.annotation) or str, "")
                yield from settings_of(inner, f"{path}{name}{mark}.", seen)


@pytest.mark.parametrize("key", sorted(settings_of(Settings, "", set())))
def test_every_setting_is_in_the_reference(key: str) -> None:
    text = page("settings.md")
    assert key in rows(text) or f"## `{key}`" in text or f"## `{key}[]`" in text or f"## `{key}.<name>`" in text


def test_every_setting_says_what_it_is() -> None:
    for line in page("settings.md").splitlines():
        if line.startswith("| `"):
            assert not line.endswith("|  |"), line


def test_every_stream_and_group_is_in_the_reference() -> None:
    text = page("streams.md")
    for name, stream in TOPOLOGY["streams"].items():
        assert f"## `{name}`" in text
        assert set(stream.get("groups") or {}) <= rows(text)


def test_every_stream_and_group_is_in_the_asyncapi_document() -> None:
    written = json.loads(page("asyncapi.json"))
    assert set(written["channels"]) == set(TOPOLOGY["streams"])
    for name, stream in TOPOLOGY["streams"].items():
        for group in stream.get("groups") or {}:
            assert f"{group}.receive.{name}" in written["operations"]


def test_every_message_is_in_the_reference_with_a_sentence() -> None:
    for name, kind in message_classes().items():
        assert f"### `{name}`" in page("events.md")
        assert kind.__doc__ and not kind.__doc__.startswith(f"{name}("), f"{name} needs a docstring"


def test_every_metric_is_in_the_reference() -> None:
    assert {metric.name for metric in METRICS} <= rows(page("metrics.md"))


@pytest.mark.parametrize("code", list(Code))
def test_every_error_code_has_a_page_that_says_what_to_do(code: Code) -> None:
    assert code.value in rows(page("errors.md"))
    text = (ROOT / "docs" / "errors" / f"{code}.md").read_text()
    for heading in ("## What happened\n\n", "## What to do\n\n"):
        assert len(text.partition(heading)[2].partition("\n## ")[0].strip()) > 20, heading


def commands(command: Any, path: str) -> Iterator[str]:
    inner = getattr(command, "commands", {})
    if not inner:
        yield path
    for name in inner:
        yield from commands(inner[name], f"{path} {name}")


def every_command() -> list[str]:
    from typer.main import get_command

    return sorted(commands(get_command(build()), "headrace"))


@pytest.mark.parametrize("command", every_command())
def test_every_command_is_in_the_reference(command: str) -> None:
    assert re.search(rf"^## `{command}[` ]", page("cli.md"), re.MULTILINE)


def test_every_route_is_in_the_reference() -> None:
    text = page("routes.md")
    for document in (routes.door_document(), routes.admin_document()):
        assert document["paths"]
        for path, methods in document["paths"].items():
            for method in methods:
                assert re.search(rf"^\| {method.upper()} \| `{re.escape(path)}`", text, re.MULTILINE)
                assert f"### `{method.upper()} {path}`" in text


# --- everything else ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(path: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(#[^)\s]*)?\)", without_code(path.read_text())):
        if target.startswith("https://"):
            continue
        to = path.parent / target if target else path
        assert to.exists(), target
        if anchor:
            assert anchor[1:] in anchors(to), f"{target}{anchor}"


def without_code(text: str) -> str:
    """The text without its blocks and words of code: what looks like a link there is none."""
    return re.sub(r"`[^`\n]*`", "`code`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))


def anchors(path: Path) -> set[str]:
    """What a link into the page may name: its headings as they are made into anchors."""
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    titles = [title.lower().replace("`", "") for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE)]
    return {re.sub(r"[^\w\- ]", "", title).strip().replace(" ", "-") for title in titles}


def test_every_page_stands_in_the_index() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / target).resolve() for target in re.findall(r"\]\(([^)#]+)", index.read_text())}
    pages = {path for folder in ("how-to", "why", "reference") for path in index.parent.glob(f"{folder}/*")}
    unlinked = {str(path.relative_to(ROOT)) for path in pages - linked if path.suffix != ".svg"}  # no page: a picture
    assert unlinked == set()


def test_a_wrong_anchor_would_be_found() -> None:
    assert "states-of-a-run" in anchors(ROOT / "ARCHITECTURE.md")
    assert "no-such-heading" not in anchors(ROOT / "ARCHITECTURE.md")


def shell_lines(path: Path) -> Iterator[str]:
    """Lines of the shell blocks of a page, continued lines joined."""
    for block in re.findall(r"```sh\n(.*?)```", path.read_text(), re.DOTALL):
        yield from block.replace("\\\n", " ").splitlines()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_that_is_shown_exists(path: Path) -> None:
    known = every_command()
    for line in shell_lines(path):
        words = line.split()
        if words[:1] == ["headrace"]:
            assert any(line == name or line.startswith(name + " ") for name in known), line
        elif words and words[0].startswith("scripts/"):
            assert (ROOT / words[0]).exists(), line


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_option_that_is_shown_exists(path: Path) -> None:
    text = page("cli.md")
    for line in shell_lines(path):
        if line.startswith("headrace "):
            for option in re.findall(r" (--[a-z-]+)", line.partition(" -- ")[0]):
                assert f"`{option}`" in text, line


def test_every_dependency_is_explained() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["embedded"]]
    text = (ROOT / "docs" / "why" / "dependencies.md").read_text()
    for dependency in wanted:
        name = re.split(r"[\[<>=~]", dependency)[0]
        assert re.search(rf"\b{re.escape(name)}\b", text), name


GROUPS = {
    group: (name, stream, spec["room"])
    for name, stream in TOPOLOGY["streams"].items()
    for group, spec in (stream.get("groups") or {}).items()
}
ROOMS = sorted({room for _, _, room in GROUPS.values()})


def card(room: str) -> dict[str, str]:
    """Heading -> text of a room's card: Reads, Group, Writes, Refuses, Owns."""
    whole = importlib.import_module(room).__doc__ or ""
    text = re.findall(r"^ *Reads\b.*?\n *Owns\b[^\n]*", whole, re.DOTALL | re.MULTILINE)[0]
    parts = re.split(r"^ *(Reads|Group|Writes|Refuses|Owns)\b", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_card_says_what_streams_yaml_says_it_reads(room: str) -> None:
    said = card(room)
    own = {group for group, (_, _, of) in GROUPS.items() if of == room}
    assert words(said["Group"]) & set(GROUPS) == own
    for name, stream, of in GROUPS.values():
        if of == room:
            kinds = {kind for published in stream["publishers"].values() for kind in published}
            assert {name, *kinds} <= words(said["Reads"])


@pytest.mark.parametrize("room", [*ROOMS, "ingress"])
def test_every_room_card_says_what_streams_yaml_lets_it_write(room: str) -> None:
    publishers = {group for group, (_, _, of) in GROUPS.items() if of == room} | {room.rpartition(".")[2]}
    for name, stream in TOPOLOGY["streams"].items():
        kinds = {kind for who, published in stream["publishers"].items() if who in publishers for kind in published}
        if kinds:
            assert {name, *kinds} <= words(card(room)["Writes"])


@pytest.mark.parametrize("floor", ["base", "schemas", "policy", "runtime", "state", "storage", "providers", "console"])
def test_every_file_of_a_floor_is_on_its_card(floor: str) -> None:
    files = {path.stem for path in (ROOT / floor).glob("*.py")} - {"__init__"}
    assert files <= words(importlib.import_module(floor).__doc__ or "")


def test_the_sample_loads_and_shows_every_section() -> None:
    sample = ROOT / "headrace.sample.yaml"
    load(sample, environ={})
    assert set(yaml.safe_load(sample.read_text())) == set(Settings.model_fields)


def test_the_sample_shows_the_defaults(tmp_path: Path) -> None:
    from workers.guardrails.policy import effective

    sample, default = load(ROOT / "headrace.sample.yaml", environ={}), load(environ={}, folder=tmp_path)
    for name in Settings.model_fields:
        if name not in ("guardrails", "audit"):
            assert getattr(sample, name) == getattr(default, name), name
    assert effective(sample.guardrails) == effective(default.guardrails)


def sources(name: str) -> list[Path]:
    """Files of the packages whose path ends like this."""
    return [path for path in ROOT.glob("[a-z]*/**/*") if str(path).endswith("/" + name) and ".venv" not in path.parts]


def test_every_name_of_the_tour_exists() -> None:
    text = re.sub(r"\s+", " ", (ROOT / "ARCHITECTURE.md").read_text())
    named = re.findall(r"`([\w/]+\.py): ([\w., ]+)`", text)
    assert len(named) > 15
    for file, names in named:
        code = "".join(path.read_text() for path in sources(file))
        for name in re.split(r"[., ]+", names):
            assert re.search(rf"\b(def|class) {name}\b", code), f"{file}: {name}"


def test_every_file_of_the_tour_exists() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    for file in re.findall(r"`([\w/]+\.(?:py|lua|sql))`", text):
        assert sources(file), file
