"""/openapi.json for programs and /docs for people: Redoc, from our own package. Nothing is loaded from elsewhere."""

import base64
import hashlib
from collections.abc import Callable
from functools import cache
from importlib.resources import files

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from creditgate.api.glossary import Schema

# Redoc makes an empty style element and fills it through the DOM, so what is allowed inline is what is empty.
_EMPTY = base64.b64encode(hashlib.sha256(b"").digest()).decode()
_HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; script-src 'self'; style-src 'self' 'sha256-{_EMPTY}'; img-src data:;"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-cache",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def docs_routes(document: Callable[[], Schema]) -> list[Route]:
    """Return the routes of the document and of the page that shows it; like the health checks, they need no key."""
    return [
        _static("/openapi.json", lambda: msgspec.json.encode(document()), "application/json"),
        _static("/docs", lambda: _file("templates/docs.html"), "text/html"),
        _static("/docs/docs.css", lambda: _file("templates/docs.css"), "text/css"),
        _static("/docs/redoc.standalone.js", lambda: _file("vendor/redoc.standalone.js"), "text/javascript"),
    ]


def _static(path: str, make: Callable[[], bytes], media_type: str) -> Route:
    """Return the route of what is made when it is first asked for: most processes never are, and start sooner."""
    content = cache(make)

    def endpoint(
        _request: Request,
    ) -> Response:  # not async, so in a thread: making it holds up no other call
        return Response(content(), headers=_HEADERS, media_type=media_type)

    return Route(path, endpoint, methods=["GET"])


def _file(name: str) -> bytes:
    return files("creditgate.api").joinpath(name).read_bytes()
