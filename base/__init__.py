"""The ground under every room: clock, ids, crypto, settings, logs, metrics, health. Imports nothing of ours."""
