"""One file per URL family. Hot routes are raw ASGI handlers; the others are FastAPI's."""
