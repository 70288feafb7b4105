"""What the README, the quickstart and the how-to about engines tell a newcomer to type works: their blocks are run as
they stand, in a folder of their own."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from base.ports import free_port
from console.config import Settings
from console.embedded import engine
from tests.conftest import short_folder
from tests.e2e.house import ROOT, Engine, until

README = (ROOT / "README.md").read_text()
QUICKSTART = (ROOT / "docs" / "quickstart.md").read_text()
ENGINE = (ROOT / "docs" / "how-to" / "add-an-engine.md").read_text()
CONTRACTS = (ROOT / "docs" / "how-to" / "read-the-contracts.md").read_text()


def block(word: str, page: str = README, kind: str = "sh") -> str:
    """The only block of a page that has `word` in it."""
    (found,) = [text for text in re.findall(rf"```{kind}\n(.*?)```", page, re.DOTALL) if word in text]
    return str(found)


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE")}
    return {**kept, "PATH": f"{ROOT / '.venv/bin'}:{os.environ['PATH']}", **more}


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A folder in which `.headrace` is that of a running `scripts/up`, the README's first command."""
    if not engine.is_installed():
        pytest.skip("the embedded model is not installed: scripts/install")
    with short_folder() as folder, open(folder / "up.log", "wb") as log:
        words = [*block("scripts/up").split(), "--data", str(folder / ".headrace"), "--port", str(free_port())]
        process = subprocess.Popen(words, cwd=ROOT, stdout=log, stderr=log, env=environment())
        try:
            ready = folder / ".headrace" / "connection.json"
            until(lambda: ready.exists() or process.poll() is not None, 180)
            assert ready.exists(), (folder / "up.log").read_text()
            yield folder
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def typed(text: str, home: Path, **more: str) -> str:
    """A block typed into a shell; what it printed."""
    done = subprocess.run(
        ["bash", "-euc", text], cwd=home, env=environment(**more), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def without_curl(text: str, home: Path) -> str:
    """The same request by Python, for machines that have no curl."""
    found = json.loads((home / ".headrace" / "connection.json").read_text())
    (body,) = re.findall(r"-d '(.*)'", text)
    call = urllib.request.Request(f"{found['base_url']}/v1/chat/completions", data=body.encode())
    call.add_header("authorization", f"Bearer {found['api_key']}")
    call.add_header("content-type", "application/json")
    with urllib.request.urlopen(call, timeout=120) as reply:
        return str(reply.read().decode())


@pytest.mark.model
@pytest.mark.slow
def test_the_curl_streams_an_answer_when_pasted(home: Path) -> None:
    text = block("curl")
    said = typed(text, home) if shutil.which("curl") else without_curl(text, home)
    events = [line.removeprefix("data: ") for line in said.splitlines() if line]
    assert events[-1] == "[DONE]"
    assert json.loads(events[0])["object"] == "chat.completion.chunk"
    assert len(events) > 2


@pytest.mark.model
@pytest.mark.slow
def test_a_model_with_a_key_is_added_and_served(home: Path, mock: Engine) -> None:
    words = block("headrace models add").replace("NAME", "hosted").replace("https://HOST/v1", mock.url)
    assert "hosted is ready" in typed(words.replace("VAR", "PROVIDER_KEY"), home, PROVIDER_KEY="sk-not-a-real-one")
    served = json.loads(typed("headrace models list --json", home))["data"]
    assert [row["ready"] for row in served if row["name"] == "hosted"] == [1]


@pytest.mark.model
@pytest.mark.slow
def test_the_quickstart_works_from_the_question_to_reading_the_answer_again(home: Path) -> None:
    (home / "ask.py").write_text(block("openai", QUICKSTART, "python"))
    *hello, length, judged = typed("python ask.py", home).splitlines()
    assert hello and (length, judged) == ("384", "True True")
    looking = block("headrace requests list", QUICKSTART)
    rows = json.loads(typed("headrace requests list --json", home))["data"]
    assert {row["outcome"] for row in rows[:3]} == {"completed"}
    newest = next(row for row in rows if row["model"] == "smollm2")
    said = typed(looking.replace("RUN", newest["run"]), home)
    assert newest["run"] in said and "claimed" in said and "least_inflight" in said and "healthy" in said
    again = block("/v1/streams/RUN", QUICKSTART).replace("RUN", newest["run"])
    if shutil.which("curl"):
        events = typed(block("KEY=", README).partition("curl")[0] + again, home)
        assert events.startswith("id: 4\n") and events.rstrip().endswith("data: [DONE]")


@pytest.mark.model
@pytest.mark.slow
def test_the_quickstart_chats_and_scales_by_the_command_line(home: Path) -> None:
    assert typed('headrace chat "Say hello" --max-tokens 4', home).strip()  # not with the model for embeddings
    said = typed(block("headrace scale router 2", QUICKSTART), home)
    assert "router: 2 ready" in said and "rules: 3 ready" in said and "router: 1 ready" in said


@pytest.mark.model
@pytest.mark.slow
def test_the_engine_of_the_how_to_is_started_asked_and_removed(home: Path) -> None:
    (home / "engine.py").write_text(block("ThreadingHTTPServer", ENGINE, "python"))
    assert "Hello from my engine." in typed(block("parrot", ENGINE), home)
    after = block("deployments logs", ENGINE).replace("my-model", "parrot")
    assert "parrot" in typed(after, home)


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="this machine has no curl")
def test_the_documents_are_where_the_how_to_says(home: Path) -> None:
    said = typed(block("KEY=", README).partition("curl")[0] + block("asyncapi.json", CONTRACTS), home)
    assert '"openapi":"3.1' in said and '"asyncapi": "3.0.0"' in said and "# no_engine" in said


@pytest.mark.slow
def test_the_kill_demo_ends_every_request_as_promised() -> None:
    (command,) = block("scripts/kill-demo").split()
    words = [str(ROOT / command), "--only", "guard", "--only", "ingress"]
    done = subprocess.run(words, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("kill -9") == 2
    assert done.stdout.count("the whole answer") == 2


def test_the_second_command_is_there() -> None:
    (command,) = block("scripts/test").split()
    assert os.access(ROOT / command, os.X_OK)


def test_the_guardrails_of_the_readme_are_settings() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    found = Settings.model_validate(yaml.safe_load(text))
    assert found.guardrails.actions.card == "block"
