"""Room 0, the door: an HTTP call becomes an event, then the door only watches the run's reply stream.

    Reads    POST /v1/chat/completions, /v1/completions, /v1/embeddings, /v1/moderations, /v1/responses; GET
             /v1/responses/{id}[/input_items], DELETE it, POST /v1/responses/{id}/cancel; GET /v1/models[/{id}],
             /v1/streams/{run}, /livez, /readyz, /metrics, /openapi.json, /asyncapi.json, /docs/errors/{code}
    Group    none: it consumes no stream; it watches {p}:reply:{run} and the push channel of this process
    Writes   requests (RequestAccepted) and the sealed body, by the accept script; watchers; cancels of runs, which are
             facts (RequestCancelled)
    Refuses  broken or oversized bodies (400, 413, 408), keys we never minted (401), an
             Idempotency-Key that stood for another request (422), work while draining (503)
    Owns     sockets, statuses, headers and bytes shown to clients; nothing that must survive this process

Reading order: app -> routes/table -> routes/work -> body, asked, shapes, credentials, once -> sse -> exchange ->
errors -> reading -> responses -> serve.
"""
