"""`slowapi`, which is `limits` as a decorator, with its synchronous Redis inside; it limits by address."""

from slowapi import Limiter
from slowapi.util import get_remote_address
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


def make(redis_url: str, _: bytes) -> Starlette:
    """Return the app."""
    limiter = Limiter(key_func=get_remote_address, storage_uri=redis_url.replace("unix://", "redis+unix://"))

    async def track(request: Request) -> JSONResponse:
        call = await request.json()
        return JSONResponse({"allowed": True, "customer_id": call["customer_id"]})

    limited = limiter.limit("1000000000/hour")(track)
    app = Starlette(routes=[Route("/v1/balances.track", limited, methods=["POST"])])
    app.state.limiter = limiter
    return app
