"""Room 1: who is calling, may they use this model, and is there room within their limits?

Reads   {p}:requests, RequestAccepted
Group   authorization, in batches, beside the guards (they read the same entry at the same time)
Writes  its verdict (pass with a Grant, or refuse) through the verdict script; to facts RequestRefused when it says no,
        RequestFailed for a run whose entry was given up
Refuses 401 invalid_api_key, 403 permission_denied, 404 model_not_found, 429 rate_limit_exceeded
Owns    the reservations of an organization until the ledger settles them
"""
