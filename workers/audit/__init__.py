"""Room 4, audit: how every run ended, written down for good, and its reservations given back.

    Reads    {p}:facts        RequestCompleted, RequestFailed, RequestRefused, RequestCancelled, each with the run's
                              acceptance, verdicts and times beside it
    Group    audit            batches; one transaction each; committed, then acknowledged
             ledger           batches; settles reservations, once or often
             archive          batches; kept answers, committed, let go in Redis, acknowledged
    Writes   PostgreSQL       facts, once per (run, kind, attempt); requests, one row per run, no text of anybody;
                              archives, the sealed frames of answers that are kept, and sealed inputs of responses
    Refuses  nothing          a fact whose signature does not hold is a dead letter; PostgreSQL away: the facts wait
    Owns     the tables facts, requests and archives; the price list

The tour: opening.py (a delivery -> what in it can be believed), rules.py (that + prices -> rows, settlement),
handlers.py and archive.py (one class per group), batches.py (one transaction for all that arrives within a moment),
measures.py (metrics of ended runs), app.py (the wiring).
"""
