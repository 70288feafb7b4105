"""The keys a house begins with: one for applications, one for its operator. Made by `up` and by `init`.

With INTERNAL_API_KEY the operator's is that token, so that other services know it; else it is a random one.
"""

from __future__ import annotations

from console.desks import KeyWish, make_key_desk
from policy.api_keys import present
from runtime.app import Context
from schemas.errors import HeadraceError
from schemas.records import ADMIN, INFERENCE
from state.shared import Shared
from storage.access import OPERATOR
from storage.ports import Store

APPLICATION, OPERATOR_KEY, INTERNAL = "first application key", "first admin key", "internal key"


class RevokedKey(HeadraceError):
    """INTERNAL_API_KEY names a key that was ended, which is for ever."""


async def missing(store: Store, context: Context, internal: str) -> list[str]:
    """Which of the two there is no key in use for. internal: INTERNAL_API_KEY, "" for none. RevokedKey."""
    known = {record.name for record in await store.keys.list(OPERATOR) if not record.revoked_ms}
    found = [APPLICATION] if APPLICATION not in known else []
    if not internal:
        return found if OPERATOR_KEY in known else [*found, OPERATOR_KEY]
    shown = present(internal, context.ring)
    assert shown is not None, "settings refuse a token that is not of this ring"
    record = await store.keys.find(shown.key_id)
    if record is not None and record.revoked_ms:
        raise RevokedKey("INTERNAL_API_KEY was revoked: make another with `headrace secrets key`")
    return found if record is not None else [*found, INTERNAL]


async def make(store: Store, context: Context, internal: str) -> dict[str, str]:
    """Make what is missing: name -> token, which exists only here. RevokedKey."""
    shared = Shared.over(context.redis, store.keys.find, context.clock, context.ring)
    desk = make_key_desk(context, store, shared.keys)
    made = {}
    for name in await missing(store, context, internal):
        wish = KeyWish(name=name, scopes=(INFERENCE if name == APPLICATION else ADMIN,))
        made[name] = (await desk.create(wish, internal if name == INTERNAL else "")).token
    return made
