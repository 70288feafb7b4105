"""Names that other houses use, own servers named by halves, secrets judged: before anything is started or asked."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from base.settings import SettingsError
from console import config, own, secrets
from storage.setup import RecordFacts
from tests.own_servers import RING, TOKEN, environment_of, headrace

GOOD = environment_of("redis://:long-and-own@127.0.0.1:1/0", "postgresql://gate:long-and-own@127.0.0.1:1/gate")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"REDIS_URL": ""}, "DATABASE_URL (postgres.dsn) is set and REDIS_URL (redis.url) is not"),
        ({"DATABASE_URL": ""}, "REDIS_URL (redis.url) is set and DATABASE_URL (postgres.dsn) is not"),
        ({"SECRET_ENCRYPTION_KEY": ""}, "SECRET_ENCRYPTION_KEY (secrets.keyring) is not set, and"),
        ({"SECRET_ENCRYPTION_KEY": "YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE="}, "is not random"),
        ({"PG_ADMIN_PASSWORD": ""}, "PG_ADMIN_USER and PG_ADMIN_PASSWORD"),
        ({"INTERNAL_API_KEY": "swordfish"}, "is not a key minted under this key ring"),
        ({"REDIS_URL": "redis://:changeme@127.0.0.1:1/0"}, "redis.url has a password that anybody would try first"),
        ({"DATABASE_URL": "mysql://a:b@127.0.0.1/c"}, "must read postgresql://"),
        ({"REDIS_URL": "redis://:long-and-own@redis.example:6379/0"}, "redis.url: prompts and passwords would cross"),
        ({"REDIS_URL": "redis://:long-and-own@10.0.0.7:6379/0"}, "write rediss:// (TLS), or set redis.allow_plaintext"),
        ({"DATABASE_URL": "postgresql://gate:long-and-own@pg.example/gate"}, "add ?sslmode=verify-full (TLS)"),
        ({"DATABASE_URL": "postgresql://gate:long-and-own@[2001:db8::1]/gate?sslmode=prefer"}, "in the clear"),
    ],
)
@pytest.mark.parametrize("command", ["up", "init"])
def test_halves_and_weak_secrets_are_refused_with_what_to_do(
    command: str, changes: dict[str, str], said: str, tmp_path: Path
) -> None:
    refused = headrace(command, environment=GOOD | changes, folder=tmp_path)
    assert refused.code == 2 and said in refused.err, refused
    assert "swordfish" not in refused.err and "YWFh" not in refused.err


@pytest.mark.parametrize("part", ["hunter2/x@h", "hunter2#x@h", "hunter2?x@h", "p@[::1", "p@h:99999", "p@h:port"])
@pytest.mark.parametrize("command", [("migrate", "status"), ("migrate", "up"), ("init", "--check"), ("start", "rules")])
def test_an_address_that_cannot_be_read_is_one_line_and_never_shows_its_password(
    command: tuple[str, ...], part: str, tmp_path: Path
) -> None:
    address = part.replace("@h", "@127.0.0.1")
    wrong = {"REDIS_URL": f"redis://u:{address}/0", "DATABASE_URL": f"postgresql://u:{address}/gate"}
    refused = headrace(*command, environment=GOOD | wrong, folder=tmp_path)
    assert refused.code == 2 and "must" in refused.err and "Traceback" not in refused.err, refused
    assert "hunter2" not in refused.out + refused.err and len(refused.err.splitlines()) == 1, refused


def test_a_server_elsewhere_is_one_to_speak_to_by_tls_or_by_leave(tmp_path: Path) -> None:
    far = {
        "REDIS_URL": "rediss://:long-and-own@redis.example:6379/0",
        "DATABASE_URL": "postgresql://gate:long-and-own@pg.example/gate?sslmode=verify-full",
    }
    plain = {name: url.replace("rediss:", "redis:").partition("?")[0] for name, url in far.items()}
    leave = {"HEADRACE__REDIS__ALLOW_PLAINTEXT": "true", "HEADRACE__POSTGRES__ALLOW_PLAINTEXT": "true"}
    for environment in (far, plain | leave):
        assert own.are_named(config.load(folder=tmp_path, environ=GOOD | environment))
    with pytest.raises(own.OwnServerError) as caught:
        own.are_named(config.load(folder=tmp_path, environ=GOOD | plain))
    assert len(str(caught.value).splitlines()) == 2


def test_each_name_outranks_what_is_below_it(tmp_path: Path) -> None:
    (tmp_path / "headrace.yaml").write_text("redis: {url: redis://yaml/0}\n")
    (tmp_path / ".env").write_text("REDIS_URL=redis://dotenv-known/0\n")

    def found(**environ: str) -> str:
        return config.load(folder=tmp_path, environ=environ).redis.url

    assert found() == "redis://dotenv-known/0"
    (tmp_path / ".env").write_text("REDIS_URL=redis://dotenv-known/0\nHEADRACE__REDIS__URL=redis://dotenv-ours/0\n")
    assert found() == "redis://dotenv-ours/0"
    assert found(REDIS_URL="redis://known/0") == "redis://known/0"
    assert found(REDIS_URL="redis://known/0", HEADRACE__REDIS__URL="redis://ours/0") == "redis://ours/0"
    assert found(REDIS_URL="") == "redis://dotenv-ours/0"
    given = config.load(
        folder=tmp_path, environ={"REDIS_URL": "redis://known/0"}, overrides={"redis.url": "redis://cli/0"}
    )
    assert given.redis.url == "redis://cli/0"


def test_own_servers_are_those_that_somebody_named(tmp_path: Path) -> None:
    assert not own.are_named(config.load(folder=tmp_path, environ={}))
    assert own.are_named(config.load(folder=tmp_path, environ=GOOD))
    default = GOOD | {"REDIS_URL": "redis://127.0.0.1:6379/0"}
    assert own.are_named(config.load(folder=tmp_path, environ=default))


def test_one_value_is_the_key_k1_and_a_list_names_its_keys() -> None:
    alone = RING.partition(":")[2]
    assert secrets.ring_text(alone) == f"k1:{alone}"
    newer = base64.b64encode(bytes(range(7, 39))).decode()
    assert secrets.ring_text(f" k2:{newer} , k1:{alone},") == f"k2:{newer},k1:{alone}"
    assert secrets.ring_text("") == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{RING},{RING.partition(':')[2]}", "each key of a list needs its name"),
        (f"{RING},{RING}", "two keys of the ring have one name"),
        ("k1:c2hvcnQ=", "32 random bytes in base64"),
        ("not base64 at all", "32 random bytes in base64"),
        ("0" * 64, "32 random bytes in base64"),
        (base64.b64encode(b"an easy sentence of 32 letters!!").decode(), "is not random"),
        (base64.b64encode(bytes(32)).decode(), "is not random"),
    ],
    ids=["a key without a name", "one name twice", "a short key", "no key", "not base64", "letters", "zeros"],
)
def test_a_ring_that_cannot_be_is_refused_without_showing_it(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        config.load(folder=tmp_path, environ={"SECRET_ENCRYPTION_KEY": text})
    shown = str(caught.value)
    assert shown.startswith("environment variable SECRET_ENCRYPTION_KEY: secrets.keyring: ") and said in shown
    assert text not in shown


def test_variables_without_a_use_yet_are_accepted_and_said_to_be_unused(tmp_path: Path) -> None:
    told = headrace("init", environment={"JWT_SECRET_KEY": "x", "SUPERADMIN_EMAIL": "a@example.org"}, folder=tmp_path)
    assert "JWT_SECRET_KEY is not used" in told.err and "SUPERADMIN_EMAIL is not used" in told.err
    assert "SUPERADMIN_PASSWORD" not in told.err
    assert told.code == 2 and "REDIS_URL and DATABASE_URL are not set" in told.err


def test_made_secrets_are_good_ones_and_differ(tmp_path: Path) -> None:
    first, second = (headrace("secrets", "new", environment={}, folder=tmp_path).out for _ in range(2))
    assert first != second
    (tmp_path / ".env").write_text(first)
    loaded = config.load(folder=tmp_path, environ={})
    assert f"INTERNAL_API_KEY={loaded.secrets.internal_api_key.get_secret_value()}" in first


def test_another_internal_key_is_minted_when_the_present_one_is_useless(tmp_path: Path) -> None:
    made = headrace("secrets", "key", environment=GOOD | {"INTERNAL_API_KEY": "swordfish"}, folder=tmp_path)
    assert made.code == 0, made.err
    token = made.out.strip().removeprefix("INTERNAL_API_KEY=")
    assert config.load(folder=tmp_path, environ=GOOD | {"INTERNAL_API_KEY": token})


def test_a_rotated_ring_still_knows_the_former_key_and_its_tokens(tmp_path: Path) -> None:
    made = headrace("secrets", "rotate", environment=GOOD, folder=tmp_path)
    ring = made.out.strip().removeprefix("SECRET_ENCRYPTION_KEY=")
    assert ring.startswith("k2:") and ring.endswith(f",{RING}")
    assert config.load(folder=tmp_path, environ=GOOD | {"SECRET_ENCRYPTION_KEY": ring, "INTERNAL_API_KEY": TOKEN})


def test_the_sample_of_variables_names_each_and_changes_nothing(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / ".env.sample").read_text()
    (tmp_path / ".env").write_text(text)
    assert config.load(folder=tmp_path, environ={}) == config.load(folder=tmp_path / "nowhere", environ={})
    assert set(re.findall("^([A-Z_]+)=$", text, re.MULTILINE)) == {*config.WELL_KNOWN, *config.UNUSED}


FIT = RecordFacts(
    version=150_000,
    login="gate",
    mighty=False,
    makes_roles=False,
    has_role=True,
    role_mighty=False,
    member=True,
    makes_tables=True,
)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ""),
        ({"version": 140_010}, "older than PostgreSQL 15; upgrade it"),
        ({"has_role": False, "member": False}, "CREATE ROLE headrace_app NOLOGIN; GRANT headrace_app TO gate"),
        ({"role_mighty": True}, "ALTER ROLE headrace_app NOSUPERUSER NOBYPASSRLS"),
        ({"member": False}, "GRANT headrace_app TO gate"),
        ({"standby": True}, "name the primary"),
    ],
)
def test_a_server_or_login_that_does_not_fit_is_said_with_its_remedy(changes: dict[str, Any], said: str) -> None:
    found = own.unfit(replace(FIT, **changes), "headrace_app")
    assert len(found) == (1 if said else 0) and said in "".join(found)
