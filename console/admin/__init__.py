"""The operator's API, /admin/v1, on a port of its own. Every route asks for a key with the scope `admin`.

    keys            create (token shown once), list, show, rotate, revoke
    models          what should be served: list, add, remove
    deployments     how it stands: list, show, scale, drain, stop, logs
    requests        ended requests from the record: list, show; one run's timeline, live or ended; cancel
    routing         why a run went where it went, where the next one would go
    dlq             dead letters: list, show, replay, purge
    groups          every group's backlog, every consumer
    processes       the whole system at one look; draining one process
    guardrails      what would be found in a text

Errors look like OpenAI's. gate.py authenticates before anything is read; app.py is the wiring.
"""
