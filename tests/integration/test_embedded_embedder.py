"""The embedding model in its own process: vectors that mean something, and a clear no to what it can't do."""

from __future__ import annotations

import resource
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from openai import BadRequestError, OpenAI

from base.ports import free_port
from console.embedded import minilm, processes
from tests.integration.test_embedded_engine import is_healthy

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(not minilm.is_installed(), reason="the embedding model is not installed (scripts/install)"),
]


@pytest.fixture(scope="module")
def client() -> Iterator[OpenAI]:
    """The official client of an engine that was started as the provisioner's target `local` starts it."""
    port = free_port()
    words = [part.format(port=port, name="near") for part in minilm.command()]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, preexec_fn=processes.die_with_parent)
    url = f"http://127.0.0.1:{port}"
    try:
        assert processes.wait_until(lambda: is_healthy(url), 60), "the engine did not become healthy"
        with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as made:
            yield made
    finally:
        process.terminate()
        assert process.wait(20) is not None


def nearness(one: list[float], other: list[float]) -> float:
    """The dot product: 1 for the same direction."""
    return sum(a * b for a, b in zip(one, other, strict=True))


def test_it_is_listed_under_the_name_it_was_given(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["near"]


def test_a_paraphrase_is_nearer_than_anything_else(client: OpenAI) -> None:
    texts = ["The cat sleeps on the sofa.", "A kitten is napping on the couch.", "Interest rates rose again."]
    answer = client.embeddings.create(model="near", input=texts)
    own, paraphrase, unrelated = (row.embedding for row in answer.data)
    assert nearness(own, own) == pytest.approx(1, abs=1e-5)
    assert nearness(own, paraphrase) > 0.5 > nearness(own, unrelated) + 0.2
    assert [row.index for row in answer.data] == [0, 1, 2] and len(own) == minilm.DIMENSIONS


def test_floats_and_base64_say_the_same_and_a_batch_the_same_as_one_by_one(client: OpenAI) -> None:
    texts = ["water", "the mill race turns the wheel"]
    packed = client.embeddings.create(model="near", input=texts)
    plain = [client.embeddings.create(model="near", input=text, encoding_format="float") for text in texts]
    for row, alone in zip(packed.data, plain, strict=True):
        assert row.embedding == pytest.approx(alone.data[0].embedding, abs=1e-6)
    assert packed.usage.prompt_tokens == sum(alone.usage.prompt_tokens for alone in plain) == packed.usage.total_tokens
    assert plain[0].usage.prompt_tokens == 3  # the word between its two marks


@pytest.mark.parametrize(
    ("changes", "param", "code"),
    [
        ({"input": ["fine", "word " * 300]}, "input", "context_length_exceeded"),
        ({"input": [1, 2, 3]}, "input", "invalid_value"),
        ({"input": []}, "input", "invalid_value"),
        ({"dimensions": 64}, "dimensions", "invalid_value"),
        ({"extra_body": {"truncate_prompt_tokens": 7}}, "truncate_prompt_tokens", "invalid_value"),
    ],
)
def test_what_it_cannot_do_is_said(client: OpenAI, changes: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        client.embeddings.create(**{"model": "near", "input": "water", **changes})
    assert (caught.value.param, caught.value.code) == (param, code)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"input": {}}', b'{"input": "x", "encoding_format": "bits"}'])
def test_a_body_that_is_no_request_is_refused(client: OpenAI, body: bytes) -> None:
    answer = httpx.post(f"{client.base_url}embeddings", content=body)
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")


def test_a_long_text_is_cut_when_that_is_asked(client: OpenAI) -> None:
    long = client.embeddings.create(model="near", input="word " * 300, extra_body={"truncate_prompt_tokens": -1})
    assert long.usage.prompt_tokens == minilm.MAX_TOKENS


@pytest.mark.parametrize("cut", [None, -1])
def test_a_text_without_end_costs_no_memory(cut: int | None) -> None:
    """20 MB of words would be 10 million pieces of the tokenizer, 5 GB; here they are never counted."""
    model = minilm.MiniLM(threads=1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kB
    if cut is None:
        with pytest.raises(minilm.TooLong, match=r"input\[0\] has 20000000 characters"):
            model.embed(["a " * 10_000_000], False, lambda: False)
    else:
        assert model.embed(["a " * 10_000_000], True, lambda: False).tokens == minilm.MAX_TOKENS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def test_a_client_that_leaves_ends_its_batch(client: OpenAI) -> None:
    """A batch of minutes occupies one of two threads; two of them would keep everybody else waiting."""
    with ExitStack() as callers:
        for _ in range(4):
            leaving = callers.enter_context(httpx.Client(timeout=1))
            with pytest.raises(httpx.ReadTimeout):
                leaving.post(f"{client.base_url}embeddings", json={"input": ["word " * 200] * 2048})
    assert client.with_options(timeout=20).embeddings.create(model="near", input="water").data
