"""The words spoken between rooms: events, commands, verdicts, frames, errors, ports. No I/O, no drivers.

Reading order: errors -> envelope -> events -> verdicts -> frames -> outcomes -> ports.
"""
