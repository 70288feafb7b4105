"""The small model in its own process answers like any OpenAI engine and is found again by its marks."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from console.embedded import engine, processes


@pytest.fixture
def engine_url(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[str]:
    """The engine, started as the provisioner's target `local` starts it."""
    port = free_port()
    marks = {"OWNER": str(tmp_path), "DEPLOYMENT": "small", "DIGEST": "d", "PORT": str(port)}
    process = subprocess.Popen(
        [part.format(port=port, name="small") for part in engine.command()],
        env={**os.environ, **{f"HEADRACE_ENGINE_{name}": value for name, value in marks.items()}},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        assert processes.wait_until(lambda: is_healthy(url), 90), "the engine did not become healthy"
        yield url
        engine.stop_all(tmp_path)
        assert process.wait(30) is not None
    finally:
        process.kill()
        process.wait()


def is_healthy(url: str) -> bool:
    """Whether /health says ok."""
    try:
        return httpx.get(f"{url}/health", timeout=2).status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.model
def test_engine_streams_an_answer_under_the_name_it_was_given(engine_url: str) -> None:
    assert [row["id"] for row in httpx.get(f"{engine_url}/v1/models").json()["data"]] == ["small"]
    question = {"model": "small", "stream": True, "max_tokens": 4, "messages": [{"role": "user", "content": "Hello"}]}
    with httpx.stream("POST", f"{engine_url}/v1/chat/completions", json=question, timeout=60) as answer:
        events = [line for line in answer.iter_lines() if line.startswith("data: ")]
    assert answer.status_code == 200
    assert len(events) >= 2
    assert events[-1] == "data: [DONE]"


def test_the_weights_are_found_without_importing_their_package() -> None:
    assert engine.is_installed()
    assert engine.weights().suffix == ".gguf"
