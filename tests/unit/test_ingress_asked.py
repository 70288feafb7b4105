"""What a completion, an embedding and a moderation must look like to become a run. (Chats: test_ingress_body.py.)"""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingress.asked import Parse, parse_chat, parse_completion, parse_embedding, parse_moderation
from ingress.routes.table import DOCUMENTED, ROUTES
from schemas.errors import Code, Failure, Refusal
from schemas.routes import OPERATIONS


def body(**fields: Any) -> bytes:
    return json.dumps({name: value for name, value in fields.items() if value is not ...}).encode()


def refused(parse: Parse, **fields: Any) -> Failure:
    with pytest.raises(Refusal) as caught:
        parse(body(**fields))
    return caught.value.failure


TEXTS = ["a text", ["one", "two"], [1, 2, 3], [[1, 2], [3]], ""]
NO_TEXTS: list[Any] = [
    [],
    [[]],
    {},
    7,
    True,
    ["one", 2],
    [1, [2]],
    [[1], ["x"]],
    [True],
    [-1],
    [None],
    [{}],
    [1] * 100_001,
    [[1] * 50_001] * 2,
]


@pytest.mark.parametrize("value", TEXTS, ids=repr)
def test_texts_and_token_ids_may_become_completions_and_embeddings(value: Any) -> None:
    asked = parse_completion(body(model="m", prompt=value, x=1))
    assert orjson.loads(asked.body) == {"model": "m", "prompt": value, "x": 1}
    assert (asked.model, asked.stream, asked.max_tokens) == ("m", False, None)
    assert orjson.loads(parse_embedding(body(model="m", input=value)).body)["input"] == value


@pytest.mark.parametrize("value", NO_TEXTS, ids=repr)
def test_anything_else_is_neither(value: Any) -> None:
    assert (refused(parse_completion, model="m", prompt=value).param) == "prompt"
    assert (refused(parse_embedding, model="m", input=value).param) == "input"


@pytest.mark.parametrize(
    ("parse", "param"), [(parse_completion, "prompt"), (parse_embedding, "input"), (parse_moderation, "input")]
)
@pytest.mark.parametrize("value", [None, ...])
def test_what_must_be_there_is_named(parse: Parse, param: str, value: Any) -> None:
    failure = refused(parse, **{"model": "m", param: value})
    assert (failure.code, failure.param) == (Code.missing_required_parameter, param)


@pytest.mark.parametrize("parse", [parse_completion, parse_embedding])
def test_a_model_must_be_named_but_for_moderations(parse: Parse) -> None:
    assert refused(parse, prompt="x", input="x").param == "model"
    assert parse_moderation(body(input="x")).model == "moderations"


def test_a_completion_streams_and_bounds_its_tokens() -> None:
    asked = parse_completion(
        body(model="m", prompt="x", stream=True, max_tokens=0, stream_options={"include_usage": True})
    )
    assert (asked.stream, asked.max_tokens) == (True, 0)
    assert refused(parse_completion, model="m", prompt="x", stream_options={}).param == "stream_options"


@pytest.mark.parametrize(
    ("parse", "fields"),
    [
        (parse_completion, {"n": 0}),
        (parse_completion, {"echo": "yes"}),
        (parse_completion, {"logprobs": True}),
        (parse_completion, {"max_tokens": -1}),
        (parse_completion, {"suffix": 1}),
        (parse_embedding, {"encoding_format": "bits"}),
        (parse_embedding, {"encoding_format": []}),
        (parse_embedding, {"dimensions": 0}),
        (parse_embedding, {"user": 7}),
        (parse_embedding, {"stream": True}),
        (parse_moderation, {"stream": True}),
        (parse_moderation, {"model": 7}),
    ],
)
def test_a_wrong_type_is_named(parse: Parse, fields: dict[str, Any]) -> None:
    failure = refused(parse, **{"model": "m", "prompt": "x", "input": "x", **fields})
    assert (failure.code, failure.public_code, failure.param) == ("invalid_request", "invalid_value", *fields)


PART = {"type": "text", "text": "one"}


@pytest.mark.parametrize("value", ["", "one", ["one", "two"], [PART, PART]], ids=repr)
def test_texts_and_parts_may_be_moderated_under_the_gateways_own_name(value: Any) -> None:
    asked = parse_moderation(body(model="omni-moderation-latest", input=value))
    assert (asked.model, asked.stream) == ("moderations", False)
    assert orjson.loads(asked.body) == {"model": "omni-moderation-latest", "input": value}


@pytest.mark.parametrize(
    ("value", "param"),
    [
        ([], "input"),
        ({}, "input"),
        ([1, 2], "input[0]"),
        (["one", PART], "input[1]"),
        ([PART, "one"], "input[1]"),
        ([PART, {"type": "image_url", "image_url": {"url": "x"}}], "input[1]"),
        ([{"type": "text", "text": None}], "input[0]"),
        (["x"] * 1025, "input"),
    ],
)
def test_what_cannot_be_judged_is_refused(value: Any, param: str) -> None:
    assert refused(parse_moderation, input=value).param == param


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**40) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
)
FIELDS = st.sampled_from(["model", "prompt", "input", "stream", "n", "max_tokens", "dimensions", "x"])


@pytest.mark.parametrize("parse", [parse_completion, parse_embedding, parse_moderation])
@given(value=st.dictionaries(FIELDS, JSON))
def test_any_object_is_a_request_or_a_refusal(parse: Parse, value: dict[str, Any]) -> None:
    try:
        parse(json.dumps(value).encode())
    except Refusal as refusal:
        assert refusal.failure.code in (Code.invalid_request, Code.missing_required_parameter)


def test_every_route_that_starts_work_is_one_row_whose_example_is_a_request() -> None:
    assert {row.path for row in ROUTES} == set(OPERATIONS)
    for row in ROUTES:
        content = DOCUMENTED[row.path]["requestBody"]["content"]["application/json"]
        example, schema = content["example"], content["schema"]
        assert row.parse(json.dumps(example).encode()).body
        assert set(schema["required"]) <= set(example) <= set(schema["properties"])
    assert ROUTES[0].parse is parse_chat
