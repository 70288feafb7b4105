"""The operator: command line, admin API, embedded servers and the supervisor of one machine."""
