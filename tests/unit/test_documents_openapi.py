"""What both OpenAPI documents promise about themselves: every operation is explained, every example fits its schema."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema_rs import Draft202012Validator, Registry

from console.admin.app import DOCUMENT as ADMIN
from ingress.app import DOCUMENT as DOOR
from ingress.documents.failures import EXAMPLES
from ingress.documents.openapi import EVENTS
from ingress.documents.pages import error_page
from ingress.errors import error_body
from policy.disconnect import HEADER
from schemas.errors import Code
from schemas.routes import CHAT, COMPLETIONS, EMBEDDINGS, MODERATIONS, RESPONSES
from tests.checks_support import load_script

load_script("reference")  # puts scripts/ on the path
reference_routes = load_script("reference_routes")
ROOT = Path(__file__).resolve().parents[2]
Operation = tuple[str, dict[str, Any], dict[str, Any]]


def documents() -> dict[str, dict[str, Any]]:
    """Both, as JSON readers get them."""
    found = {"door": reference_routes.door_document(), "admin": reference_routes.admin_document()}
    return {name: json.loads(json.dumps(document)) for name, document in found.items()}


DOCUMENTS = documents()


def operations() -> Iterator[Operation]:
    """("admin GET /path", operation, document)"""
    for name, document in DOCUMENTS.items():
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                yield f"{name} {method.upper()} {path}", operation, document


EVERY = [pytest.param(operation, document, id=name) for name, operation, document in operations()]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_it_is_openapi_31_with_both_ways_to_show_a_key(name: str) -> None:
    document = DOCUMENTS[name]
    assert document["openapi"].startswith("3.1.")
    assert set(document["components"]["securitySchemes"]) == {"bearer", "api_key"}
    assert not {"HTTPValidationError", "ValidationError"} & set(document["components"]["schemas"])


@pytest.mark.parametrize(("operation", "document"), EVERY)
def test_every_operation_is_explained(operation: dict[str, Any], document: dict[str, Any]) -> None:
    assert len(operation["summary"]) > 5 and operation["description"]
    assert operation["tags"][0] in {tag["name"] for tag in document["tags"]}
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "path":
            assert parameter["description"], parameter["name"]


@pytest.mark.parametrize(("operation", "document"), EVERY)
def test_every_answer_has_a_schema_and_an_example_that_fits(
    operation: dict[str, Any], document: dict[str, Any]
) -> None:
    assert "HTTPValidationError" not in str(operation["responses"])
    bodies = [operation["requestBody"]] if "requestBody" in operation else []
    for body in (*bodies, *operation["responses"].values()):
        for media, content in body["content"].items():
            assert content["schema"], media
            for example in examples(content):
                problems = list(
                    validator(document, content["schema"]).iter_errors(example if media != EVENTS else {"data": ""})
                )
                assert problems == []


def examples(content: dict[str, Any]) -> list[Any]:
    found = [shown["value"] for shown in content.get("examples", {}).values()]
    return found or [content["example"]]


def validator(document: dict[str, Any], schema: dict[str, Any]) -> Draft202012Validator:
    text = json.loads(json.dumps(schema).replace('"#/', '"json-schema:///doc#/'))
    return Draft202012Validator(text, registry=Registry([("json-schema:///doc", document)]))


@pytest.mark.parametrize(("operation", "document"), EVERY)
def test_every_operation_that_asks_for_a_key_says_how_it_refuses(
    operation: dict[str, Any], document: dict[str, Any]
) -> None:
    if operation["security"]:
        assert {"401", "403", "500", "503"} <= set(operation["responses"])
    if "requestBody" in operation:
        assert {"400", "413"} <= set(operation["responses"])


def test_the_public_paths_are_those_without_a_key() -> None:
    for shared, document in ((DOOR, DOCUMENTS["door"]), (ADMIN, DOCUMENTS["admin"])):
        for path, methods in document["paths"].items():
            for operation in methods.values():
                assert (not operation["security"]) == (path in shared.public), path


@pytest.mark.parametrize("code", Code)
def test_every_code_has_an_example_and_a_page_that_its_body_names(code: Code) -> None:
    error = json.loads(error_body(EXAMPLES[code]))["error"]
    assert error["doc_url"] == f"/docs/errors/{code}"
    assert error_page(code).startswith(f"# {code}\n".encode())


def test_every_header_that_a_request_is_read_for_is_told() -> None:
    read = re.compile(r'headers\.get\(b"([a-z-]+)"')
    known = set(read.findall((ROOT / "ingress/headers.py").read_text())) | {HEADER, "idempotency-key"}
    paths = DOCUMENTS["door"]["paths"]
    for route in (CHAT, COMPLETIONS, EMBEDDINGS, MODERATIONS, RESPONSES):
        parameters = paths[route]["post"]["parameters"]
        assert {one["name"] for one in parameters} == known and len(known) == 7
        for one in parameters:
            assert one["description"] and validator(DOCUMENTS["door"], one["schema"]).is_valid(one["example"])
