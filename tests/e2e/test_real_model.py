"""`headrace up` as a newcomer types it: real small models answer. Nothing is said of its speed or its wording."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from openai import APIStatusError, OpenAI

from console.embedded import engine, minilm
from schemas.responses import run_of
from tests.conftest import short_folder
from tests.e2e.conftest import client_of
from tests.e2e.house import House, headrace, until

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(
        not (engine.is_installed() and minilm.is_installed()),
        reason="the embedded models are not installed (scripts/install)",
    ),
]


@pytest.fixture(scope="module")
def real() -> Iterator[House]:
    with short_folder() as folder, headrace(folder / "data") as house:
        yield house


@pytest.fixture(scope="module")
def real_client(real: House) -> Iterator[OpenAI]:
    with client_of(real, real.key) as made:
        yield made


def test_models_are_listed_and_their_processes_are_known(real: House, real_client: OpenAI) -> None:
    names = [engine.MODEL, minilm.MODEL]
    assert sorted(model.id for model in real_client.models.list()) == sorted(names)
    assert real.connection["models"] == names
    assert real.pid(f"model:{engine.MODEL}") > 1 and real.pid(f"model:{minilm.MODEL}") > 1


def test_real_model_streams_tokens_and_the_record_has_its_count(real: House, real_client: OpenAI) -> None:
    stream = real_client.chat.completions.create(
        model=engine.MODEL,
        messages=[{"role": "user", "content": "Say hello to the river."}],
        stream=True,
        stream_options={"include_usage": True},
        max_tokens=24,
    )
    chunks = list(stream)
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert len(pieces) > 1 and {chunk.model for chunk in chunks} == {engine.MODEL}
    usage = chunks[-1].usage
    assert usage is not None and usage.prompt_tokens > 0 and 0 < usage.completion_tokens <= 24
    row = real.record(stream.response.headers["x-request-id"])
    counted = (row["prompt_tokens"], row["completion_tokens"], row["estimated"])
    assert counted == (usage.prompt_tokens, usage.completion_tokens, False)
    assert (row["outcome"], row["model"], row["status"]) == ("completed", engine.MODEL, 200)
    assert 0 < row["ttft_ms"] <= row["duration_ms"]


def test_real_model_answers_whole(real: House, real_client: OpenAI) -> None:
    raw = real_client.chat.completions.with_raw_response.create(
        model=engine.MODEL, messages=[{"role": "user", "content": "Name a colour."}], max_tokens=8
    )
    answer = raw.parse()
    assert answer.choices[0].message.content and answer.model == engine.MODEL
    assert answer.usage is not None and answer.usage.completion_tokens > 0
    assert real.record(raw.headers["x-request-id"])["completion_tokens"] == answer.usage.completion_tokens


def test_real_model_responds_in_turns_to_a_shape_and_in_the_background(real: House, real_client: OpenAI) -> None:
    with real_client.responses.stream(model=engine.MODEL, input="Name a river.", max_output_tokens=16) as stream:
        numbers = [seen.sequence_number for seen in stream]
    assert numbers == list(range(len(numbers)))
    schema: dict[str, object] = {"type": "object", "properties": {"river": {"type": "string"}}, "required": ["river"]}
    shaped = real_client.responses.create(
        model=engine.MODEL,
        input="Name a river as JSON.",
        max_output_tokens=60,
        text={"format": {"type": "json_schema", "name": "river", "schema": schema}},
    )
    assert shaped.output_text.lstrip().startswith("{") and shaped.usage is not None
    assert real.record(run_of(shaped.id))["completion_tokens"] == shaped.usage.output_tokens > 0
    queued = real_client.responses.create(
        model=engine.MODEL,
        input="And another one.",
        previous_response_id=shaped.id,
        max_output_tokens=8,
        background=True,
    )
    until(lambda: real_client.responses.retrieve(queued.id).status not in ("queued", "in_progress"))
    ended = real_client.responses.retrieve(queued.id)
    assert ended.status in ("completed", "incomplete") and ended.output_text
    assert ended.usage is not None and ended.usage.input_tokens > shaped.usage.input_tokens


def test_client_that_leaves_stops_the_real_model(real: House, real_client: OpenAI) -> None:
    stream = real_client.chat.completions.create(
        model=engine.MODEL, messages=[{"role": "user", "content": "Count to a thousand."}], stream=True, max_tokens=2000
    )
    next(iter(stream))
    run = stream.response.headers["x-request-id"]
    stream.close()
    row = real.record(run)
    assert row["outcome"] in ("cancelled", "completed") and row["completion_tokens"] < 2000


def test_real_model_continues_a_text(real: House, real_client: OpenAI) -> None:
    raw = real_client.completions.with_raw_response.create(
        model=engine.MODEL, prompt="The water flows down the", max_tokens=8
    )
    answer = raw.parse()
    assert answer.choices[0].text and answer.usage is not None and answer.usage.completion_tokens > 0
    assert real.record(raw.headers["x-request-id"])["completion_tokens"] == answer.usage.completion_tokens


def test_embedding_of_a_paraphrase_is_nearer_than_that_of_another_subject(real: House, real_client: OpenAI) -> None:
    texts = ["The river drives the mill.", "The mill is powered by the stream.", "She forgot her password again."]
    raw = real_client.embeddings.with_raw_response.create(model=minilm.MODEL, input=texts)
    answer = raw.parse()
    own, paraphrase, unrelated = (row.embedding for row in answer.data)
    near, far = (sum(a * b for a, b in zip(own, other, strict=True)) for other in (paraphrase, unrelated))
    assert near > far + 0.2 and len(own) == minilm.DIMENSIONS
    row = real.record(raw.headers["x-request-id"])
    counted = (row["prompt_tokens"], row["completion_tokens"], row["estimated"])
    assert counted == (answer.usage.prompt_tokens, 0, False) and row["prompt_tokens"] > 15


def test_embeddings_of_the_chat_model_are_its_own_refusal(real_client: OpenAI) -> None:
    with pytest.raises(APIStatusError) as caught:
        real_client.embeddings.create(model=engine.MODEL, input="water")
    assert caught.value.status_code == 501 and "embeddings" in caught.value.message
