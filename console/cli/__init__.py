"""The command line: one file per family of commands; everything but up, doctor and topology speaks to the admin API."""
