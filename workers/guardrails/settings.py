"""The section `guardrails:` of headrace.yaml.

    guardrails:
      actions: {card: block, email: redact}
      banned_words: [project nightfall]
      families:
        persons: {enabled: true, timeout: 5, fail: open}
      models:
        support-bot: {actions: {persons: redact}}
      keys:
        k3f9: {actions: {email: "off"}}

`models` and `keys` change only what they name; a key's word goes before a model's, a model's before the default.
Quote "off": YAML reads the bare word as false (accepted here, with the same meaning).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Action = Annotated[
    Literal["block", "redact", "flag", "off"], BeforeValidator(lambda value: "off" if value is False else value)
]
Fail = Literal["open", "closed"]
TokenIds = Literal["refuse", "pass"]
BannedWord = Annotated[str, Field(min_length=1, max_length=200)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Actions(_Section):
    """What happens to each kind of finding: block (400), redact (replaced before the engine sees it), flag (counted
    in the verdict), off (not looked for). Unset: as the level below says."""

    secrets: Action | None = Field(
        default=None, description="API keys, private keys, tokens, passwords given to a name."
    )
    card: Action | None = Field(default=None, description="Payment card numbers that pass the Luhn check.")
    iban: Action | None = Field(default=None, description="International bank account numbers with a right checksum.")
    us_ssn: Action | None = Field(default=None, description="US social security numbers.")
    email: Action | None = Field(default=None, description="E-mail addresses.")
    phone: Action | None = Field(default=None, description="Telephone numbers.")
    ip: Action | None = Field(default=None, description="IPv4 and IPv6 addresses, loopback excepted.")
    injection: Action | None = Field(
        default=None, description="Phrases that try to replace or reveal a model's instructions."
    )
    banned_words: Action | None = Field(default=None, description="Words and phrases of the list banned_words.")
    persons: Action | None = Field(default=None, description="Names of people, by a language model (family persons).")


class Family(_Section):
    """How one family of scanners runs. Unset: as the level below says."""

    enabled: bool | None = Field(default=None, description="false: the family answers skip at once.")
    timeout: float | None = Field(default=None, gt=0, le=120, description="Seconds until the family counts as failed.")
    fail: Fail | None = Field(
        default=None, description="When it fails: open lets the run pass, closed refuses it with 503."
    )


class Families(_Section):
    """The two families of this room."""

    rules: Family = Field(default=Family(), description="Patterns and rules; cheap, in process.")
    persons: Family = Field(default=Family(), description="Names of people; a model in a child process.")


class Override(_Section):
    """What one model or one key has differently."""

    actions: Actions = Field(default=Actions(), description="Actions by kind.")
    banned_words: tuple[BannedWord, ...] = Field(default=(), description="Banned here in addition.")
    families: Families = Field(default=Families(), description="Settings by family.")
    token_ids: TokenIds | None = Field(
        default=None,
        description="Prompts and inputs of token ids, which no guard can read: refuse (400) while anything is blocked "
        "or redacted, or pass. Unset: as the level below says; at last refuse.",
    )


class PersonsChild(_Section):
    """The child process that runs the language model."""

    batch: int = Field(default=32, ge=1, le=256, description="Texts per call of the model at most.")
    wait_ms: float = Field(default=5.0, ge=0, le=1000, description="Milliseconds to wait for a fuller batch.")
    call_timeout: float = Field(
        default=10.0, gt=0, le=120, description="Seconds after which a silent child is restarted."
    )
    start_timeout: float = Field(
        default=60.0, gt=0, le=600, description="Seconds the child may take to load its model."
    )
    max_characters: int = Field(
        default=200_000, ge=1000, description="Longer requests count as a failure of the family."
    )


class GuardrailSettings(Override):
    """What is looked for in requests, and what happens when it is found."""

    models: dict[str, Override] = Field(default_factory=dict, description="Differences by model name.")
    keys: dict[str, Override] = Field(default_factory=dict, description="Differences by key id.")
    persons_child: PersonsChild = Field(default=PersonsChild(), description="The process behind the family persons.")
