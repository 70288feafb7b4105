"""Which methods a path has, for `allow` of a 405: the framework itself names only those of the first route it meets."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.routing import compile_path


def methods_of(app: FastAPI, path: str) -> str:
    """The methods of the first route that has this path and of its namesakes, as `allow` lists them."""
    routes = [route for route in iter_route_contexts(app.routes) if route.path]
    template = next((route.path for route in routes if compile_path(str(route.path))[0].match(path)), None)
    return ", ".join(sorted({method for route in routes if route.path == template for method in route.methods or ()}))
