"""`limits`: a fixed window for each customer, through its asyncio storage on redis-py, behind Starlette."""

from limits import RateLimitItemPerHour
from limits.aio.storage import RedisStorage
from limits.aio.strategies import FixedWindowRateLimiter
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from bench.peers.baseline import CONNECTIONS_MAX

LIMIT = RateLimitItemPerHour(10**9)


def make(redis_url: str, _: bytes) -> Starlette:
    """Return the app."""
    storage = RedisStorage(
        redis_url.replace("unix://", "async+redis+unix://"),
        implementation="redispy",
        max_connections=CONNECTIONS_MAX,
    )
    limiter = FixedWindowRateLimiter(storage)

    async def track(request: Request) -> JSONResponse:
        call = await request.json()
        allowed = await limiter.hit(LIMIT, call["customer_id"])
        return JSONResponse({"allowed": allowed, "customer_id": call["customer_id"]})

    return Starlette(routes=[Route("/v1/balances.track", track, methods=["POST"])])
