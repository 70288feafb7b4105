"""Delivery: the only place that knows ack, claim, retry, heartbeat and dead letters.

what there is   names (every Redis key), topology (streams.yaml, checked and applied), asyncapi (the same, a document)
one server      address (its URL), sentinel (who is the master), wire (one connection), client (pipelined, reconnects),
                push (what it sends by itself), scripts (Lua, loaded once), groups (its groups), disk (what is on it)
a run           door (accept, watch), acceptance (what its script takes and says), repeats (the same request again),
                backlog (who waits here, and how long), keeping (frames for the archive), watch (frames in order),
                runs (read it), lease (own it), leases (all that are owned here), seals (sign and seal),
                leaving (end it from outside)
a group         consume (the engine), reading (its next read), item (an entry in hand), taking (what silent consumers
                hold), calm (when silence counts), heir (of whom it does not), group_spec (its values), acts (what
                handlers decided), places (announced slots), in_hand (entries and room for more), patience (with
                failures), rhythm (when all groups of a process look around)
several         together (groups of one process read one stream), pace (and rest under load), jointly (their verdicts
                in one step), handing (a run goes to this process's router in that step), promise (and is begun
                meanwhile), claims (what a claim brings), flushes (frames of all runs leave together)
beside them     publish (commands, control), control (what to read again), sweeper (deadlines, watchers, trimming)
operators       inspect (backlogs), dlq (dead letters), tidy (consumers that died)
a process       app (its wiring), broker (FastStream's declarations), lifecycle (the stop sequence), faults (to die at)
memory          the twin of all that
"""
