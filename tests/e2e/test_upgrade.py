"""`headrace up` on the data of an earlier version: nothing is lost, and what was open is brought to its end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import pytest

from storage.migrate import read_migrations
from tests.conftest import short_folder
from tests.e2e.house import House, headrace, until
from tests.e2e.scripted import ScriptedEngine, scripted, whole_stream
from tests.e2e.test_client_resume import read
from tests.old_data import ENGINE, MODEL, PROVIDER_KEY, SETTINGS, Story, restore

VERSIONS = ("0.1.0",)


@dataclass(frozen=True, slots=True)
class Upgraded:
    """The present version, running on the data that `story` left."""

    house: House
    story: Story
    engine: ScriptedEngine


@pytest.fixture(scope="module", params=VERSIONS)
def upgraded(request: pytest.FixtureRequest) -> Iterator[Upgraded]:
    with short_folder() as folder, scripted(address=ENGINE) as engine:
        story = restore(request.param, folder / "data")
        with headrace(folder / "data", "--no-model", settings=SETTINGS) as house:
            yield Upgraded(house, story, engine)


def test_every_migration_was_applied(upgraded: Upgraded) -> None:
    said = (upgraded.house.folder / "up.log").read_text()
    newer = [item.name for item in read_migrations() if item.number > 1]
    assert [name for name in newer if name not in said] == []


def test_an_old_key_streams_from_the_old_deployment(upgraded: Upgraded) -> None:
    house, engine = upgraded.house, upgraded.engine
    until(lambda: house.request("/v1/models")[1]["data"])
    engine.play(whole_stream("new", " words"))
    body = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "say it"}]}
    with closing(house.post(body, key=upgraded.story.limited_key)) as connection:
        answer = connection.getresponse()
        said = answer.read()
    assert (answer.status, b" words" in said, b"[DONE]" in said) == (200, True, True)
    assert engine.last.headers["authorization"] == f"Bearer {PROVIDER_KEY}"


def test_the_first_keys_are_still_the_first_keys(upgraded: Upgraded) -> None:
    connection = upgraded.house.connection
    kept = (connection["api_key"], connection["admin_key"])
    assert kept == (upgraded.story.api_key, upgraded.story.admin_key)
    assert upgraded.house.request("/v1/models")[0] == 200


def test_a_revoked_key_stays_revoked(upgraded: Upgraded) -> None:
    assert upgraded.house.request("/v1/models", key=upgraded.story.revoked_key)[0] == 401


def test_old_requests_are_listed_as_they_ended(upgraded: Upgraded) -> None:
    rows = upgraded.house.request("/admin/v1/requests?limit=100")[1]["data"]
    ended = {row["run"]: row["outcome"] for row in rows}
    assert {name: ended.get(run) for name, run in upgraded.story.runs.items() if name != "open"} == {
        name: name for name in ("completed", "failed", "refused")
    }


def test_an_old_run_is_read_again(upgraded: Upgraded) -> None:
    status, said = read(upgraded.house, upgraded.story.runs["completed"], 0, upgraded.story.limited_key)
    assert (status, b'"old"' in said, b"[DONE]" in said) == (200, True, True)


def test_a_run_that_was_open_is_ended_and_recorded(upgraded: Upgraded) -> None:
    found = upgraded.house.record(upgraded.story.runs["open"])
    assert found["outcome"] == "failed"
    assert found["code"] in ("deadline_exceeded", "upstream_interrupted"), "by the sweeper, or by whoever took it over"


def test_old_dead_letters_can_be_read(upgraded: Upgraded) -> None:
    rows = upgraded.house.request("/admin/v1/dlq?count=100")[1]["data"]
    groups = {row["group"] for row in rows}
    assert {"authorization", "rules", "persons", "audit"} <= groups
    letter = upgraded.house.request(f"/admin/v1/dlq/{rows[0]['id']}")[1]
    assert letter["fields"] == {"e": "no message of any version"}
