"""What replicas share in Redis, without streams. One file and one memory twin each (memory.py), Lua beside its file.

    key:<id>                   string  a key's record, as PostgreSQL had it a moment ago           keys
    catalog:models             hash    model -> ModelRecord, as the provisioner published it       catalog
    catalog:endpoints          hash    endpoint -> EndpointRecord, likewise                        catalog
    {o:<org>}:rpm:<scope>      zset    run -> when it was counted: a sliding minute                limits
    {o:<org>}:held:<scope>     zset    run -> until when it counts as running                      limits
    {o:<org>}:settled          zset    run -> until when it is known as ended                      limits
    breakers                   hash    endpoint that has failed -> its breaker                     breaker
    latencies                  hash    endpoint -> how quick it is                                 latency
    {endpoints}:inflight       hash    router -> the endpoints that it uses or may choose          inflight
    processes                  hash    process -> who it is and how it stands                      processes

These are all; the keys of delivery are in runtime/names.py. What a value looks like and how long it lives stands at the
head of the file named last. `{o:<org>}` is a hash tag: everything of one organization lies in one slot, so one script
sees it all.

Beside them: proofs (records are signed for their place), shared (all of them as one process holds them), memory (the
twins).
"""
