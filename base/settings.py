"""Settings: one frozen tree from five sources, every mistake named at once with its file, line and key.

Precedence, strongest first: command line > environment (HEADRACE__SECTION__KEY, then names known elsewhere, such as
REDIS_URL) > .env (the same two) > headrace.yaml > defaults. A variable known elsewhere that is empty counts as not set.
In the YAML file `${NAME}` takes an environment (or .env) variable and a whole value `file:PATH` takes a file's text
(relative to the YAML file, end of line removed), so that secrets need not stand in it. Unknown keys are errors.
Values are never part of a message: a mistyped secret stays out of the terminal. Lists are replaced, never merged.
"""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError

PREFIX = "HEADRACE__"
_DEPTH = 32  # levels of nesting; also ends a YAML alias that contains itself
_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_ASSIGNMENT = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*")

Path_ = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)


class Section(BaseModel):
    """What every room's settings derive from: frozen, no unknown keys, secrets hidden in errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


@dataclass(frozen=True, slots=True)
class Issue:
    """One mistake. where: `file:line`, an environment variable or "command line"; key: dotted path, "" = the file."""

    where: str
    key: str
    message: str

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.where, self.key, self.message)))


class SettingsError(Exception):
    """The settings cannot be used. `issues` has all of them; the text has one line for each."""

    def __init__(self, issues: list[Issue]) -> None:
        super().__init__("\n".join(str(issue) for issue in issues))
        self.issues = issues


@dataclass(slots=True)
class _Tree:
    """Values as nested dicts, and where each path came from."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[Path_, str] = field(default_factory=dict)
    issues: list[Issue] = field(default_factory=list)

    def put(self, path: Path_, value: Any, origin: str) -> None:
        """Set one value, replacing whatever a weaker source said below or above it."""
        holder = self.values
        for part in path[:-1]:
            inner = holder.get(str(part))
            if not isinstance(inner, dict):
                inner = holder[str(part)] = {}
            holder = inner
        holder[str(path[-1])] = value
        for old in [known for known in self.origins if known[: len(path)] == path]:
            del self.origins[old]
        self.origins[path] = origin

    def where(self, path: Path_, fallback: str) -> str:
        """The origin of the longest known beginning of `path`."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.origins:
                return self.origins[path[:length]]
        return fallback


def load(
    model: type[Model],
    *,
    file: Path | None = None,
    dotenv: Path | None = None,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    names: Mapping[str, str] | None = None,
) -> Model:
    """The settings as `model`, whose fields are the sections. SettingsError with every mistake.

    file: headrace.yaml, must exist when given. dotenv: .env, may be absent. overrides: dotted key -> value from the
    command line, None = not given. names: a variable's name known elsewhere -> dotted key.
    """
    tree = _Tree()
    beside = _read_dotenv(dotenv, tree.issues) if dotenv else {}
    known = {**{name: value for name, (value, _) in beside.items()}, **(environ or {})}
    if file is not None:
        _read_yaml(file, known, tree)
    places = {name: f"{dotenv}:{line}: {name}" for name, (_, line) in beside.items()}
    _put_variables(model, tree, {name: value for name, (value, _) in beside.items()}, places, names or {})
    places = {name: f"environment variable {name}" for name in environ or {}}
    _put_variables(model, tree, environ or {}, places, names or {})
    for key, given in (overrides or {}).items():
        if given is not None:
            tree.put(tuple(key.split(".")), given, "command line")
    return _validate(model, tree, str(file) if file else "settings")


def _validate(model: type[Model], tree: _Tree, fallback: str) -> Model:
    try:
        settings = model.model_validate(tree.values)
    except ValidationError as error:
        broken = {issue.key for issue in tree.issues}
        for item in error.errors(include_url=False, include_context=False, include_input=False):
            issue = _issue(model, tree, fallback, item["loc"], item["type"], item["msg"])
            if issue.key not in broken:
                tree.issues.append(issue)
    if tree.issues:
        raise SettingsError(tree.issues)
    return settings


def _issue(model: type[BaseModel], tree: _Tree, fallback: str, loc: Path_, kind: str, text: str) -> Issue:
    if kind == "extra_forbidden":
        parent = _type_at(model, loc[:-1])
        names = list(parent.model_fields) if isinstance(parent, type) and issubclass(parent, BaseModel) else []
        close = difflib.get_close_matches(str(loc[-1]), names, n=1)
        text = f"unknown key{f'; did you mean {close[0]!r}?' if close else f'; known here: {chr(44).join(names)}'}"
    if kind == "missing":
        text = "is required and not set"
    return Issue(tree.where(loc, fallback), ".".join(map(str, loc)), text.removeprefix("Value error, "))


def shown(settings: BaseModel) -> dict[str, Any]:
    """The settings as plain values for printing; secrets appear as asterisks."""
    return settings.model_dump(mode="json")


# --- environment and .env ---------------------------------------------------------------------------------------


def variables(dotenv: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """What .env and the environment say, the environment above. A line of .env that cannot be read is left out."""
    return {**{name: value for name, (value, _) in _read_dotenv(dotenv, []).items()}, **environ}


def _put_variables(
    model: type[BaseModel],
    tree: _Tree,
    given: Mapping[str, str],
    places: Mapping[str, str],
    names: Mapping[str, str],
) -> None:
    """One source of variables into the tree: names known elsewhere first, ours above them."""
    for name, key in names.items():
        if given.get(name):
            tree.put(tuple(key.split(".")), given[name], places[name])
    for name, value in sorted(given.items()):
        _put_variable(model, tree, name, value, places[name])


def _put_variable(model: type[BaseModel], tree: _Tree, name: str, value: str, origin: str) -> None:
    """HEADRACE__SECTION__KEY into the tree; lists and mappings are written as YAML (or JSON) in the variable."""
    if not name.startswith(PREFIX):
        return
    path: Path_ = tuple(part.lower() for part in name.removeprefix(PREFIX).split("__"))
    given: Any = value
    if value[:1] in ("[", "{") and _type_at(model, path) not in (str, SecretStr):
        try:
            given = yaml.safe_load(value)
        except yaml.YAMLError:
            tree.issues.append(Issue(origin, ".".join(map(str, path)), "is neither YAML nor JSON"))
            return
    tree.put(path, given, origin)


def _read_dotenv(path: Path, issues: list[Issue]) -> dict[str, tuple[str, int]]:
    """Name -> (value, line). Quotes around a value are removed, nothing inside it is interpreted."""
    found: dict[str, tuple[str, int]] = {}
    if not path.is_file():
        return found
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        issues.append(Issue(str(path), "", f"cannot be read: {getattr(error, 'strerror', 'not UTF-8 text')}"))
        return found
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _ASSIGNMENT.fullmatch(line)
        if match is None:
            issues.append(Issue(f"{path}:{number}", "", "is not NAME=value"))
            continue
        name, value = match.groups()
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        found[name] = (value, number)
    return found


def _type_at(model: Any, path: Path_) -> Any:
    """The annotation that `path` leads to, None when it leads nowhere; optional wrappers and lists are looked into."""
    for part in path:
        inner = [kind for kind in typing.get_args(model) if isinstance(kind, type)]
        candidates = [model, *inner]
        holder = next((k for k in candidates if isinstance(k, type) and issubclass(k, BaseModel)), None)
        if isinstance(part, int) and holder is not None:
            model = holder
            continue
        if holder is None or part not in holder.model_fields:
            return None
        model = holder.model_fields[str(part)].annotation
    return model


# --- YAML with lines --------------------------------------------------------------------------------------------


def _read_yaml(file: Path, known: Mapping[str, str], tree: _Tree) -> None:
    try:
        text = file.read_text()
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except OSError as error:
        tree.issues.append(Issue(str(file), "", f"cannot be read: {error.strerror}"))
        return
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file}:{mark.line + 1}" if mark else str(file)
        tree.issues.append(Issue(where, "", f"is not YAML: {getattr(error, 'problem', None) or 'not UTF-8 text'}"))
        return
    if node is None:
        return
    if not isinstance(node, yaml.MappingNode):
        tree.issues.append(Issue(f"{file}:1", "", "must be a mapping of sections"))
        return
    reader = _YamlReader(file, known, tree)
    tree.values.update(reader.mapping(node, ()))


class _YamlReader:
    """Turns composed nodes into values, noting the line of each path."""

    def __init__(self, file: Path, known: Mapping[str, str], tree: _Tree) -> None:
        self._file, self._known, self._tree = file, known, tree
        self._scalars = yaml.SafeLoader("")

    def mapping(self, node: yaml.MappingNode, path: Path_) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(getattr(key_node, "value", ""))
            here = (*path, key)
            if key in found:
                self._complain(key_node, here, "is written twice")
            self._tree.origins[here] = f"{self._file}:{key_node.start_mark.line + 1}"
            found[key] = self._value(value_node, here)
        return found

    def _value(self, node: yaml.Node, path: Path_) -> Any:
        if len(path) > _DEPTH:
            self._complain(node, path[:3], "is nested too deeply")
            return None
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._item(item, (*path, index)) for index, item in enumerate(node.value)]
        try:
            value = self._scalars.construct_object(node)
        except (yaml.YAMLError, ValueError):  # such as the date 2024-99-99, or a tag of somebody's own
            self._complain(node, path, "is not a value that YAML knows")
            return None
        return self._resolve(node, path, value) if isinstance(value, str) else value

    def _item(self, node: yaml.Node, path: Path_) -> Any:
        self._tree.origins[path] = f"{self._file}:{node.start_mark.line + 1}"
        return self._value(node, path)

    def _resolve(self, node: yaml.Node, path: Path_, text: str) -> str:
        """A text with its references replaced."""

        def variable(match: re.Match[str]) -> str:
            value = self._known.get(match[1])
            if value is None:
                self._complain(node, path, f"environment variable {match[1]} is not set")
            return value or ""

        text = _REFERENCE.sub(variable, text)
        if not text.startswith("file:"):
            return text
        try:
            return (self._file.parent / text.removeprefix("file:")).read_text().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            self._complain(node, path, f"{text} cannot be read: {getattr(error, 'strerror', 'not UTF-8')}")
            return ""

    def _complain(self, node: yaml.Node, path: Path_, message: str) -> None:
        where = f"{self._file}:{node.start_mark.line + 1}"
        self._tree.issues.append(Issue(where, ".".join(map(str, path)), message))
