"""Room 2, guardrails: is there anything in this request that the policy does not let through?

    Reads    {p}:requests        RequestAccepted
    Group    rules, persons      two families, each scaled alone, in parallel with room 1
    Writes   verdicts            pass | refuse | edits | skip, signed by the family, through the verdict script
             facts               RequestRefused; RequestFailed for a run whose entry was given up
    Refuses  content_policy_violation   a kind whose action is block was found
             invalid_request            token ids, which nobody can look into, while something is kept from engines
             guardrail_unavailable      the family could not judge and fails closed
    Owns     nothing that lasts; one child process with a language model, for persons

The tour: text.py (which texts a body has), scanners/ (what is found in a text), policy.py (what holds for this model
and key), rules.py (findings + policy -> decision), look.py (one family looks at one body), handlers.py (one function
per event), app.py (the wiring).
"""
