"""May this caller do this? One function for every door: authorization uses it for runs, the ingress and the console for
routes that start no work.

The order is part of the promise. Until the key is proven nothing but one fixed 401 is said, whatever is wrong with it;
a model that the key may not use reads exactly like one that does not exist.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass

from policy.api_keys import Credential
from policy.patterns import any_matches
from policy.roles import holds
from schemas.errors import Code, Failure
from schemas.records import KeyRecord, ModelRecord

_NAME_SHOWN = 128  # characters of a client's model name that an error repeats

INVALID_KEY = Failure(
    code=Code.invalid_api_key.value,
    message=(
        "The API key is missing, malformed, unknown, expired or revoked. Send a valid one in the header "
        "`Authorization: Bearer hr_...`; an administrator makes one with `headrace keys create`."
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What the caller wants to do. model: the name asked for; None for routes that are not about one model."""

    scope: str
    model: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """Yes: whose key it is, and the model where one was asked for."""

    key: KeyRecord
    model: ModelRecord | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """No, and what to say. key: set once the caller has proven it, for the record only."""

    failure: Failure
    key: KeyRecord | None = None


def authenticate(record: KeyRecord | None, shown: Credential, now_ms: int) -> bool:
    """Whether `shown` proves the key `record` and the key is alive. Compares as much for an unknown key as for a known
    one, in constant time. now_ms: wall clock, milliseconds since the epoch."""
    known = record or _NOBODY
    current = _same(known.secret_mac, known.mac_kid, shown)
    overlapping = now_ms < known.previous_until_ms
    previous = _same(known.previous_mac, known.previous_mac_kid, shown) and overlapping
    alive = not known.revoked_ms and (not known.expires_ms or now_ms < known.expires_ms)
    return record is not None and record.key_id == shown.key_id and alive and (current or previous)


def decide(
    record: KeyRecord | None, shown: Credential, need: Need, model: ModelRecord | None, now_ms: int
) -> Allowed | Refused:
    """The decision, in order: 401 the key, 403 the scope, 404 the model. `model` is the catalog's record of need.model
    or None when there is none."""
    if not authenticate(record, shown, now_ms) or record is None:  # in this order: an unknown key takes as long
        return Refused(failure=INVALID_KEY)
    if not holds(record, need.scope):
        return Refused(failure=_lacks(need.scope), key=record)
    if need.model is None:
        return Allowed(key=record)
    if model is None or not may_use(record, need.model):
        return Refused(failure=_no_model(need.model), key=record)
    return Allowed(key=record, model=model)


def may_use(record: KeyRecord, model: str) -> bool:
    """Whether the key's list of models covers this name."""
    return any_matches(record.models, model)


def visible(record: KeyRecord, models: Iterable[ModelRecord]) -> list[ModelRecord]:
    """The models that exist for this key, in the order given."""
    return [model for model in models if may_use(record, model.name)]


_NOBODY = KeyRecord(key_id="", tenant="", name="", secret_mac="0" * 64, mac_kid="", revoked_ms=1)


def _same(mac: str, kid: str, shown: Credential) -> bool:
    """Whether a stored MAC is the one shown, made by the same ring key. "" is nobody's MAC."""
    equal = hmac.compare_digest(mac.encode(), shown.secret_mac.encode())
    return equal and bool(mac) and kid == shown.mac_kid


def _lacks(scope: str) -> Failure:
    return Failure(
        code=Code.permission_denied.value,
        message=(
            f"This API key lacks the scope `{scope}`. Use a key that has it; an administrator makes one with "
            f"`headrace keys create --scope {scope}`."
        ),
    )


def _no_model(name: str) -> Failure:
    return Failure(
        code=Code.model_not_found.value,
        message=(
            f"The model `{name[:_NAME_SHOWN]}` does not exist or this API key may not use it. "
            "GET /v1/models lists the models it may use."
        ),
        param="model",
    )
