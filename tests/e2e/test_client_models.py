"""A model comes and goes while the house runs: asked for at the admin API, served by the pipeline, then gone."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from openai import OpenAI

from base.ports import free_port
from tests.e2e.conftest import client_of
from tests.e2e.house import House, until
from tests.e2e.scripted import scripted

USER: Any = [{"role": "user", "content": "hello"}]
PROVIDER_KEY = "provider-key-5512"


def names(client: OpenAI) -> list[str]:
    return [model.id for model in client.models.list()]


def succeeds(client: OpenAI, model: str) -> bool:
    try:
        return bool(client.chat.completions.create(model=model, messages=USER))
    except openai.APIStatusError:
        return False


def test_model_added_at_the_admin_api_is_served_with_its_own_key_and_gone_when_removed(
    house: House, client: OpenAI
) -> None:
    with scripted() as engine:
        wish = {"name": "late/model", "url": engine.url, "api_key": PROVIDER_KEY, "upstream_model": "their-name"}
        status, said = house.request("/admin/v1/models", wish)
        assert (status, said["model"]) == (202, "late/model")
        until(lambda: "late/model" in names(client))
        until(lambda: succeeds(client, "late/model"))
        assert engine.last.headers["authorization"] == f"Bearer {PROVIDER_KEY}"
        assert engine.last.json["model"] == "their-name"
        _, shown = house.request(f"/admin/v1/deployments/{said['deployment']}")
        assert (shown["state"], shown["credential"]) == ("ready", True) and PROVIDER_KEY not in str(shown)
        assert house.request("/admin/v1/models/late/model", method="DELETE")[0] == 202
        until(lambda: "late/model" not in names(client))
        with pytest.raises(openai.NotFoundError) as caught:
            client.chat.completions.create(model="late/model", messages=USER)
        assert caught.value.code == "model_not_found"
    assert PROVIDER_KEY not in house.logs()


def test_same_wish_twice_is_one_deployment(house: House, client: OpenAI) -> None:
    with scripted() as engine:
        for _ in range(2):
            assert house.request("/admin/v1/models", {"name": "twice", "url": engine.url})[0] == 202
        until(lambda: "twice" in names(client))
        _, found = house.request("/admin/v1/deployments")
        assert len([one for one in found["data"] if one["name"] == "twice"]) == 1
        house.request("/admin/v1/models/twice", method="DELETE")
        until(lambda: "twice" not in names(client))


def test_engine_that_nobody_can_reach_says_why_and_is_no_model_yet(house: House, client: OpenAI) -> None:
    url = f"http://127.0.0.1:{free_port()}/v1"
    assert house.request("/admin/v1/models", {"name": "nowhere", "url": url})[0] == 202
    shown = until(lambda: reason(house, "nowhere"))
    assert shown["state"] != "ready" and "nowhere" not in names(client)
    house.request("/admin/v1/models/nowhere", method="DELETE")


def reason(house: House, deployment: str) -> Any:
    """The deployment once it says something."""
    status, shown = house.request(f"/admin/v1/deployments/{deployment}")
    return shown if status == 200 and shown["reason"] else None


def test_admin_api_is_closed_to_application_keys_and_strangers(house: House) -> None:
    for key, expected in ((house.key, 403), ("nobody", 401), (house.connection["admin_key"][:-1], 401)):
        for path in ("/admin/v1/keys", "/admin/v1/requests", "/admin/v1/no-such-path"):
            assert house.request(path, key=key)[0] == expected
    with client_of(house, house.connection["admin_key"]) as admin, pytest.raises(openai.PermissionDeniedError):
        admin.chat.completions.create(model="mock", messages=USER)
