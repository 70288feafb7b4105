"""Hours in minutes: a load with ordered faults, and what of it stays behind: `scripts/soak [--minutes 30]`.

plan      who comes, what each must come to, what the figures mean; pure
visits    the clients           watch     what the processes and the server hold
play      the whole; the command line
"""
