"""The words for how things stand (schemas/records.py says what each means), and for what follows an engine's end."""

from __future__ import annotations

# of a deployment
PENDING, STARTING, READY, PAUSED, FAILED = "pending", "starting", "ready", "paused", "failed"
STOPPING, STOPPED = "stopping", "stopped"
GOING = (STOPPING, STOPPED)

# of a replica, beside starting, ready and failed
DRAINING, ENDED, CRASHED = "draining", "ended", "crashed"
RESTING = (ENDED, CRASHED)  # ended by itself, and stays so until the next command

LOCAL, EXTERNAL = "local", "external"
ALWAYS, ON_FAILURE, NEVER = "always", "on-failure", "never"
