"""What replicas share in Redis, without streams. One file and one memory twin each (memory.py), Lua beside its file.

    keys      key records: process cache over projection over PostgreSQL   key:<id>
    catalog   models and endpoints as the provisioner published them       catalog:models, catalog:endpoints
    limits    reservations of an organization, reserve.lua, settle.lua     {o:<org>}:rpm|held:<scope>, {o:<org>}:settled
    breaker   which endpoints routers leave alone, breaker.lua             breakers
    latency   how quick endpoints are, latency.lua                         latencies
    processes which processes are there                                    processes
    shared    all of them together, as one process holds them
    proofs    key records and catalog are signed for their place
    memory    the twins

`{o:<org>}` is a hash tag: everything of one organization lies in one slot, so one script sees it all.
"""
