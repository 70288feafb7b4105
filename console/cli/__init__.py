"""The command line: one file per family of commands. They speak to the admin API, or (up, start, scale, init, migrate,
secrets, config, doctor, topology, version) to this machine and to the servers themselves."""
