"""The servers of the embedded default, from wheels: Valkey, PostgreSQL, a small language model, an embedder.

Each server keeps everything under one folder, is stopped by a verified identity and never by name, and outlives a
supervisor that was killed: the next start adopts it. Nothing outside the data folder is changed on the machine.
"""
