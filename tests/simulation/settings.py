"""What every simulated house is made of: keys, catalog, guards, limits. Read once; the values never change.

Idle limits and deadlines are shorter than the shipped ones, their order is the same: that saves the loop turns.
"""

from __future__ import annotations

from functools import lru_cache

import yaml

from base.crypto import KeyRing, RingKey
from ingress.settings import ServerSettings
from policy.api_keys import Minted, mint
from runtime.topology import Topology, load, packaged
from schemas.records import CONTINUE_FINAL_MESSAGE, EndpointRecord, KeyRecord, ModelRecord
from workers.audit.settings import AuditSettings
from workers.authorization.settings import AuthorizationSettings
from workers.guardrails.policy import Policies
from workers.guardrails.settings import Actions, Families, Family, GuardrailSettings
from workers.router.settings import RouterSettings

RING = KeyRing([RingKey("s1", bytes(range(32)))])
DEADLINE_S, CHECKS_S = 12.0, 6.0
RETRY_GRACE_S = 2.0  # of runs with an Idempotency-Key where the policy is cancel
SLOTS = 2  # of each endpoint
BANNED, PERSON, EMAIL = "nightfall", "Ada Lovelace", "ada@example.com"

FREE: Minted = mint(b"f" * 32, RING)
TIGHT: Minted = mint(b"t" * 32, RING)
STRANGER: Minted = mint(b"x" * 32, RING)
#: The keys that requests come with; nobody knows the last one.
TOKENS = (FREE.token, TIGHT.token, STRANGER.token)

MODELS = [ModelRecord(name="m", pool="pool")]


def endpoints(continues: str) -> list[EndpointRecord]:
    """The engines. continues: the names of those that can go on with an answer that broke off."""
    return [_endpoint(name, continues.split()) for name in ("e1", "e2", "e3")]


def _endpoint(name: str, able: list[str]) -> EndpointRecord:
    return EndpointRecord(
        endpoint=name,
        deployment=name,
        pool="pool",
        model="m",
        url=f"http://127.0.0.1:9/{name}",
        slots=SLOTS,
        private=True,
        continues=CONTINUE_FINAL_MESSAGE if name in able else "",
    )


ROUTER = RouterSettings(first_byte_timeout_s=3.0, idle_timeout_s=3.0, total_timeout_s=30.0)
AUDIT, AUTHORIZATION = AuditSettings(), AuthorizationSettings()
GUARDS = GuardrailSettings(
    actions=Actions(email="redact", banned_words="block", persons="redact"),
    banned_words=(BANNED,),
    families=Families(rules=Family(fail="closed"), persons=Family(fail="open")),
)
POLICIES = Policies(GUARDS)
_IDLE = {
    "authorization": 2500,
    "rules": 2500,
    "persons": 2500,
    "router": 4000,
    "audit": 4000,
    "ledger": 4000,
    "archive": 4000,
}


def keys() -> list[KeyRecord]:
    """The keys that exist."""
    return [_key(FREE, "acme", 0), _key(TIGHT, "birch", 2)]


def _key(minted: Minted, tenant: str, concurrency: int) -> KeyRecord:
    who = minted.credential
    return KeyRecord(
        key_id=who.key_id,
        tenant=tenant,
        name=tenant,
        secret_mac=who.secret_mac,
        mac_kid=who.mac_kid,
        concurrency=concurrency,
    )


@lru_cache
def topology() -> Topology:
    """streams.yaml with shorter idle limits."""
    said = yaml.safe_load(packaged())
    for stream in said["streams"].values():
        for name, group in stream.get("groups", {}).items():
            group["idle_limit"] = _IDLE.get(name, group["idle_limit"])
    return load(yaml.safe_dump(said))


@lru_cache
def server_settings(on_disconnect: str) -> ServerSettings:
    """The door's."""
    return ServerSettings(
        deadline=DEADLINE_S,
        on_disconnect=on_disconnect,
        retry_grace=RETRY_GRACE_S,
        keep_alive=2.0,
        commit_after=4.0,
    )
