"""One running Headrace for all client tests of a session, with the engines behind its models.

model           engine
mock            bench/mock_engine.py: faults and names in the prompt, a ledger of what was sent
lab/scripted    tests/e2e/scripted.py: says exactly what a test wrote
guarded         the same engine behind guardrails that block cards and redact e-mail addresses
unread          the same engine, and token ids may pass its guardrails
pair            two scripted engines that take turns at one list of replies
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from openai import OpenAI

from tests.conftest import short_folder
from tests.e2e.house import Engine, House, headrace, scripted_engine
from tests.e2e.scripted import Reply, ScriptedEngine, scripted
from tests.package_support import build, fresh_environment

SETTINGS = """
server: {body_limit: 2097152}
router: {idle_timeout_s: 2, retry_floor: 1000}
guardrails:
  banned_words: [project nightfall]
  models:
    guarded: {actions: {card: block, email: redact}}
    unread: {token_ids: pass}
audit:
  prices:
    - {model: mock, prompt: 1000000, completion: 2000000}
"""


@pytest.fixture(scope="session")
def mock() -> Iterator[Engine]:
    """The engine of the model `mock`, in a process of its own."""
    with scripted_engine() as engine:
        yield engine


@pytest.fixture(scope="session")
def lab_engine() -> Iterator[ScriptedEngine]:
    """The engine of `lab/scripted` and `guarded`; tests take `lab`."""
    with scripted() as engine:
        yield engine


@pytest.fixture
def lab(lab_engine: ScriptedEngine) -> ScriptedEngine:
    """The scripted engine without plans and memories of earlier tests."""
    lab_engine.forget()
    return lab_engine


@pytest.fixture(scope="session")
def pair_engines() -> Iterator[tuple[ScriptedEngine, ScriptedEngine]]:
    """The two engines of `pair`; tests take `pair`."""
    plans: deque[Reply] = deque()
    with scripted(plans) as one, scripted(plans) as other:
        yield one, other


@pytest.fixture
def pair(pair_engines: tuple[ScriptedEngine, ScriptedEngine]) -> tuple[ScriptedEngine, ScriptedEngine]:
    """The two engines without plans and memories of earlier tests."""
    for engine in pair_engines:
        engine.forget()
    return pair_engines


@pytest.fixture(scope="session")
def house(
    mock: Engine, lab_engine: ScriptedEngine, pair_engines: tuple[ScriptedEngine, ScriptedEngine]
) -> Iterator[House]:
    """The Headrace of the session."""
    engines = [
        ("mock", mock.url),
        ("lab/scripted", lab_engine.url),
        ("guarded", lab_engine.url),
        ("unread", lab_engine.url),
    ]
    engines += [("pair", engine.url) for engine in pair_engines]
    with ExitStack() as stack:
        folder = stack.enter_context(short_folder())
        yield stack.enter_context(headrace(folder / "data", settings=SETTINGS, engines=engines))


@pytest.fixture(scope="session")
def client(house: House) -> Iterator[OpenAI]:
    """The official client with the house's own key; it never repeats a request by itself."""
    with client_of(house, house.key) as made:
        yield made


def client_of(house: House, key: str) -> OpenAI:
    """The official client with another key."""
    return OpenAI(base_url=house.base_url + "/v1", api_key=key, max_retries=0)


@pytest.fixture(scope="session")
def programs() -> Iterator[Path]:
    """The programs of an environment with the wheel of this checkout and without the embedded servers."""
    with short_folder() as folder:
        wheel, _ = build(folder / "dist")
        yield fresh_environment(folder, wheel)
