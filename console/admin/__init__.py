"""The operator's API, /admin/v1, on a port of its own. Every route asks for a key with the scope `admin`.

    keys            create (token shown once), list, show, rotate, revoke
    models          what should be served: list, add, remove        deployments   how it stands: list, show, stop, logs
    requests        ended requests from the record: list, show      trace         one run's timeline, live or ended
    dlq             dead letters: list, show, replay, purge         lag           every group's backlog
    guardrails      what the rules find in a text

Errors look like OpenAI's. gate.py authenticates before anything is read; app.py is the wiring.
"""
