"""docs/reference/routes.md, from the OpenAPI documents of both ports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from reference_words import prose, table


class _Anything:
    """Stands for parts that no route touches while it is only described."""

    def __getattr__(self, name: str) -> Any:
        return _Anything()

    def __call__(self, *_: Any, **__: Any) -> Any:
        return _Anything()


def door_document() -> dict[str, Any]:
    """/openapi.json of the public port."""
    from ingress.app import Ingress

    parts: Any = _Anything()
    return Ingress(parts).framework.openapi()


def admin_document() -> dict[str, Any]:
    """/admin/v1/openapi.json of the admin port."""
    from console.admin.app import build

    parts: Any = _Anything()
    return build(parts).openapi()


def routes() -> str:
    """Both ports, from their documents, and the health port."""
    text = (
        "# Routes\n\nBoth ports describe themselves as OpenAPI 3.1, with schemas and examples: `GET /openapi.json` on "
        "the public port, `GET /admin/v1/openapi.json` with an admin key on the admin port. An unknown path is 404, "
        "another method 405, a head that is too large 431.\n\n"
        "## The public port\n\nA key with scope `inference` in `Authorization: Bearer` or `x-api-key`, where one is "
        "asked for. Every answer has `x-request-id`; an accepted request has `x-headrace-run`, the name it is found by "
        "later.\n\n"
    )
    text += "".join(_operations(door_document()))
    text += "## The admin port\n\nA key with scope `admin`. `headrace` speaks to these.\n\n"
    text += "".join(_operations(admin_document()))
    text += "## The health port of each process\n\nOn `metrics.host`, without a key.\n\n"
    return text + table(("method", "path"), [["GET", f"`/{name}`"] for name in ("livez", "readyz", "metrics")])


def _operations(document: Mapping[str, Any]) -> Iterator[str]:
    """A section for each operation, after a table of all."""
    found = [
        (method.upper(), path, said) for path, methods in document["paths"].items() for method, said in methods.items()
    ]
    rows = [
        [method, f"`{path}`", said["summary"], "key" if said["security"] else "public"] for method, path, said in found
    ]
    yield table(("method", "path", "what", ""), rows)
    for method, path, said in found:
        yield f"### `{method} {path}`\n\n{prose(said['summary'] + '. ' + said['description'])}"
        if said.get("parameters"):
            yield table(("parameter", "in", "meaning"), [_asked(parameter) for parameter in said["parameters"]])
        yield table(("status", "what", "codes"), [_answered(status, one) for status, one in said["responses"].items()])


def _asked(parameter: Mapping[str, Any]) -> list[str]:
    return [f"`{parameter['name']}`", parameter["in"], parameter.get("description", "")]


def _answered(status: str, said: Mapping[str, Any]) -> list[str]:
    codes = [name for content in said.get("content", {}).values() for name in content.get("examples", ())]
    return [status, said["description"], ", ".join(f"[`{name}`](../errors/{name}.md)" for name in codes)]
