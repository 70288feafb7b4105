"""The crash matrix: what a Headrace promises, struck at under steady load and checked from outside (scripts/faults).

    stages.py       every consumer group of streams.yaml and the ingress, killed at each crash point, or frozen
    servers.py      Valkey killed, Valkey frozen under open streams, PostgreSQL frozen
    engines.py      an engine that breaks the protocol in every way we know (bad_engine.py says the bytes)
    routing.py      one of two engines fails: what it costs the clients (a table of its own, routing_play.py)

A case strikes while `load.py` sends named runs: streamed and unary, over plain sockets (wire.py) and by the official
client (official.py). `outside.py` then reads what is on the record, in the streams and in the engines' ledgers, and
`invariants.py` judges each run; `table.py` adds up. `field.py` is what a case works with, `play.py` plays cases.
"""
