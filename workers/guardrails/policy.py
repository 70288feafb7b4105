"""Which policy holds for a request: defaults, then the model's differences, then the key's. Pure.

The effective policy is a value with a version, a short digest of everything in it: two verdicts with the same
version were made under the same rules, whatever file or level they came from.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import msgspec

from workers.guardrails.scanners.finding import KINDS, RULE_KINDS, Kind
from workers.guardrails.settings import Action, Actions, Fail, Families, GuardrailSettings, Override, TokenIds

RULES, PERSONS = "rules", "persons"
FAMILY_KINDS: dict[str, tuple[Kind, ...]] = {RULES: RULE_KINDS, PERSONS: ("persons",)}

DEFAULT_ACTIONS: dict[Kind, Action] = {
    "secrets": "redact",
    "card": "redact",
    "iban": "redact",
    "us_ssn": "redact",
    "email": "flag",
    "phone": "flag",
    "ip": "flag",
    "injection": "flag",
    "banned_words": "block",
    "persons": "off",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyPolicy:
    """kinds: what to look for, empty when the family has nothing to do. keeps: whether any of it is kept from an engine
    (blocked or redacted). timeout: seconds."""

    kinds: frozenset[Kind]
    keeps: bool
    timeout: float
    fail: Fail


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What holds for one request."""

    actions: dict[Kind, Action]
    banned_words: tuple[str, ...]
    families: dict[str, FamilyPolicy]
    token_ids: TokenIds
    version: str


class Policies:
    """The effective policy by model and key; each made once, so there are as many as the settings can tell apart."""

    def __init__(self, settings: GuardrailSettings) -> None:
        self._settings = settings
        self._made: dict[tuple[str, str], Policy] = {}

    def find(self, model: str = "", key_id: str = "") -> Policy:
        """The policy for a request of `key_id` to `model`; unknown names get the default."""
        place = (
            model if model in self._settings.models else "",
            key_id if key_id in self._settings.keys else "",
        )
        found = self._made.get(place)
        if found is None:
            found = self._made[place] = effective(self._settings, *place)
        return found

    def uses(self, family: str) -> bool:
        """Whether any request could give `family` something to do."""
        models, keys = ("", *self._settings.models), ("", *self._settings.keys)
        return any(self.find(model, key).families[family].kinds for model in models for key in keys)


def effective(settings: GuardrailSettings, model: str = "", key_id: str = "") -> Policy:
    """The policy of one model and key, by precedence."""
    levels: list[Override] = [settings]
    levels += [table[name] for table, name in ((settings.models, model), (settings.keys, key_id)) if name in table]
    actions = _actions([level.actions for level in levels])
    banned = tuple(sorted({word for level in levels for word in level.banned_words}))
    families = {
        name: _family(name, [level.families for level in levels], actions, bool(banned)) for name in FAMILY_KINDS
    }
    token_ids: TokenIds = next((level.token_ids for level in reversed(levels) if level.token_ids), "refuse")
    return Policy(
        actions=actions,
        banned_words=banned,
        families=families,
        token_ids=token_ids,
        version=_version(actions, banned, families, token_ids),
    )


def _actions(levels: list[Actions]) -> dict[Kind, Action]:
    merged = dict(DEFAULT_ACTIONS)
    for level in levels:
        merged |= {kind: action for kind in KINDS if (action := getattr(level, kind)) is not None}
    return merged


def _family(name: str, levels: list[Families], actions: dict[Kind, Action], banned: bool) -> FamilyPolicy:
    enabled, timeout, fail = True, 2.0 if name == RULES else 5.0, "closed"
    for level in levels:
        family = getattr(level, name)
        enabled = enabled if family.enabled is None else family.enabled
        timeout = timeout if family.timeout is None else family.timeout
        fail = fail if family.fail is None else family.fail
    wanted = [kind for kind in FAMILY_KINDS[name] if actions[kind] != "off" and (banned or kind != "banned_words")]
    kinds: frozenset[Kind] = frozenset(wanted if enabled else ())
    keeps = any(actions[kind] in ("block", "redact") for kind in kinds)
    return FamilyPolicy(kinds=kinds, keeps=keeps, timeout=timeout, fail="open" if fail == "open" else "closed")


def _version(
    actions: dict[Kind, Action], banned: tuple[str, ...], families: dict[str, FamilyPolicy], token_ids: TokenIds
) -> str:
    """12 hexadecimal digits over the effective content; the scanners' own code is not in it."""
    content = [
        sorted(actions.items()),
        banned,
        [(name, sorted(item.kinds), item.timeout, item.fail) for name, item in sorted(families.items())],
        token_ids,
    ]
    return hashlib.sha256(msgspec.json.encode(content)).hexdigest()[:12]
