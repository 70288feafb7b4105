"""Where engines can run, one file per place, each a ports.Target: local, external, and fake for tests."""
