"""Delivery: the only place that knows ack, claim, retry, heartbeat and dead letters.

names      every Redis key          topology   streams.yaml, checked and applied
client     one server, pipelined    consume    the engine under every group (group_spec: its values)
scripts    Lua, loaded once         lease      a claimed run           door   accept and watch
publish    events onto streams      sweeper    deadlines, lost watchers, trimming
memory     the twin of all that     broker     FastStream's declarations     app   wiring of a process
"""
