"""Room 3: calls an engine for a cleared run and relays its answer until the run has ended.

Reads   {p}:cleared:<pool>:<lane>, RequestCleared: a bare pointer, no authority
Group   router, one task for each run; it is claimed before its handler sees it, or while that begins, and before
        anything of it is written
Writes  {p}:reply:<run> frames; to facts RequestCompleted, RequestFailed or RequestCancelled with the last
Refuses whatever its verdicts do not clear: every verdict is verified before an engine is called
Owns    the claimed run, and the slots of the endpoints as this process uses them

Decide, then act: rules (what a fault means, when to flush), choice (which endpoint, and why), clearance (the verdicts),
continuation (what broke off and may go on) and strategies are pure; handlers act, with relay (engine -> frames), resume
(an answer taken up again), pools (slots and figures) and health (breakers and latencies, shared with the other routers)
as their hands.
"""
