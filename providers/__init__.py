"""How an engine is spoken to: one pooled transport, and pure dialects named `<in>_<out>` that translate.

    ports          what a transport and a dialect promise; the four timeouts
    errors         every way a call of an engine can fail
    addresses      which addresses and URLs may be called at all
    httptools_transport   the transport, with places, pool, connection and http_answer under it
    rounds         fast answers are read together, as often as their frames leave
    sse            a byte stream into whole server-sent events
    openai_openai  an OpenAI chat request to an OpenAI-compatible engine
    openai_continue  the same for the rest of an answer that broke off
    openai_errors  what an engine's error answer means
    dialects       which dialect a run needs
    responses_openai  a Responses request to an engine that speaks chat only
    responses_items   its items as messages
    responses_chunks  a chat's chunks as the events of a response
    responses_responses  the same to an engine that speaks Responses itself
    responses_object  the response at its beginning; its usage
    responses_events  how a response is told     responses_sent  what went out of it
    fake           a scripted transport for tests, examples and simulations

A dialect does no I/O and a transport knows no dialect. A new dialect is one file here and a row in the suite
tests/contract/test_dialects.py.
"""
