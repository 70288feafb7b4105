"""Who may do what, and how much: pure functions over schemas, no I/O, no clock, no chance of their own.

api_keys   the token: mint, check its check part, MAC of its secret      decision   Allowed or Refused, for every door
roles      scopes a key can hold                                         quotas     what of a key is limited
patterns   names with `*`                                                prices     tokens to money, in integers
durability which runs are accepted only once they are on disk
breaker    when an endpoint that fails is left alone, and comes back
disconnect what becomes of a run when its last client leaves
overload   how long a new request would wait, and when a refused one is to come again
"""
