"""The section `provisioner:` of headrace.yaml."""

from __future__ import annotations

from pydantic import Field

from base.settings import Section


class ProvisionerSettings(Section):
    """How often engines are looked at, and how long they may take."""

    interval_s: float = Field(5.0, gt=0, le=300, description="Seconds between two looks at deployments that are ready.")
    starting_interval_s: float = Field(
        0.25, gt=0, le=60, description="Seconds between two looks while a deployment is starting or stopping."
    )
    probe_timeout_s: float = Field(5.0, gt=0, le=60, description="Seconds an engine may take to answer GET /models.")
    start_timeout_s: float = Field(
        600.0, gt=0, le=86_400, description="Seconds an engine may take until its first answer."
    )
    bad_probes: int = Field(3, ge=1, le=100, description="Failed looks in a row until a ready endpoint counts as down.")
    drain_s: float = Field(
        300.0,
        ge=0,
        le=86_400,
        description="Seconds that running requests may take to finish on an engine that is to go; it is ended as soon "
        "as none is left.",
    )
    stop_grace_s: float = Field(10.0, ge=0, le=600, description="Seconds an engine may take to end after SIGTERM.")
    restart_most_s: float = Field(60.0, ge=1, le=3600, description="Longest pause between two starts of an engine.")
