"""The words spoken between rooms: events, commands, verdicts, frames, errors, ports. No I/O, no drivers.

Reading order: errors -> envelope (upcast: old versions) -> events, commands -> verdicts, edits -> frames -> outcomes ->
routes, responses, response_events -> records -> ports.
"""
