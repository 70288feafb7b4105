"""How `headrace up` talks: check marks on a terminal, plain lines elsewhere. No thread here: it forks later."""

from __future__ import annotations

import sys

from rich.console import Console

from console.stack import Say

_PLAIN = ("Ready:", "Key:", "Models:", "Try:", "  ", "Ctrl-C", "Stop", "Wait")


def make_say() -> Say:
    """One line at a time to standard output, at once."""
    console = Console(highlight=False, soft_wrap=True)

    def say(text: str) -> None:
        if not console.is_terminal:
            print(text, flush=True)
        elif not text or text.startswith(_PLAIN):
            console.print(text, markup=False)
        else:
            console.print("[green]✓[/green] ", end="")
            console.print(text, markup=False)
        sys.stdout.flush()

    return say
