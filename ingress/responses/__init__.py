"""The Responses API at the door: what is asked (asked), what is shown (resource), earlier turns (conversation).

The engine's side of it, the translation, is the router's; here a response is a run like any other, whose answer happens
to be an object with a name. Routes: ingress/routes/responses.py.
"""
