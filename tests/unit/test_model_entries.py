"""What may be asked for as a model: refused when it is asked, not when the provisioner has tried for a minute."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pydantic import ValidationError

from base.crypto import Sealer
from base.ids import SystemRandom
from console.entries import ModelEntry, deploy
from tests.authorization_support import RING
from workers.provisioner.wishes import desired, model_of


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://169.254.169.254/v1", "is a metadata service"),
        ("http://[::ffff:169.254.169.254]/v1", "is a metadata service"),
        ("http://[64:ff9b::a9fe:a9fe]/v1", "is a metadata service"),
        ("http://0.0.0.0:8000/v1", "is not the address of one machine"),
        ("http://224.0.0.1/v1", "is not the address of one machine"),
        ("http://0x7f.1/v1", "over https only"),
    ],
)
def test_an_address_that_is_never_an_engine_is_refused_when_it_is_asked_for(url: str, said: str) -> None:
    with pytest.raises(ValidationError, match=said) as refused:
        ModelEntry.model_validate(
            {"name": "m", "url": url, "api_key": "sk-not-to-be-shown", "private": "0x" not in url}
        )
    assert "sk-not" not in str(refused.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000/v1", "http://[::1]:8000/v1", "https://engine.example/v1"])
def test_an_address_of_ones_own_and_a_name_are_taken(url: str) -> None:
    assert ModelEntry.model_validate({"name": "m", "url": url}).url == url


@pytest.mark.parametrize("policy", ["", "cancel", "finish", "grace:30"])
def test_an_entry_says_what_its_runs_do_when_their_clients_leave(policy: str) -> None:
    entry = ModelEntry(name="m", url="http://127.0.0.1:8000/v1", on_disconnect=policy)
    command = deploy(entry, None, RING, Sealer(RING, SystemRandom()))
    assert command is not None
    record = replace(desired(command, None, 1), state="ready")
    assert model_of(record).on_disconnect == policy
    assert deploy(entry, record, RING, Sealer(RING, SystemRandom())) is None
    other = entry.model_copy(update={"on_disconnect": "grace:1"})
    changed = deploy(other, record, RING, Sealer(RING, SystemRandom()))
    assert changed is not None and desired(changed, record, 2).state == "ready"  # no other engine for it


def test_an_entry_with_a_policy_that_is_none_is_refused() -> None:
    with pytest.raises(ValidationError, match="on_disconnect"):
        ModelEntry.model_validate({"name": "m", "url": "http://127.0.0.1:8000/v1", "on_disconnect": "later"})
