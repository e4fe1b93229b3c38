"""What one writes first: Starlette, redis-py, one script that checks, deducts and appends to a stream.

One balance, whole numbers, no retries, no keys, no history in SQL.
"""

from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

DEDUCT = """
local left = tonumber(redis.call('GET', KEYS[1]) or ARGV[1])
local need = tonumber(ARGV[2])
if left < need then return {0, left} end
if need > 0 then
  left = left - need
  redis.call('SET', KEYS[1], string.format('%.0f', left))
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', 100000, '*', 'customer', ARGV[3], 'feature', ARGV[4], 'value', ARGV[2])
end
return {1, left}
"""
GRANTED = 10**12
CONNECTIONS_MAX = 1_024  # redis-py's own bound of 100 answers 500 to the rest of 256 callers


def make(redis_url: str, _: bytes) -> Starlette:
    """Return the app."""
    redis = Redis.from_url(redis_url, max_connections=CONNECTIONS_MAX)
    deduct = redis.register_script(DEDUCT)

    async def decide(request: Request, need: int) -> JSONResponse:
        call = await request.json()
        customer, feature = call["customer_id"], call["feature_id"]
        allowed, left = await deduct([f"base:{customer}", "base:events"], [GRANTED, need, customer, feature])
        balance = {"feature_id": feature, "granted": GRANTED, "remaining": left, "usage": GRANTED - left}
        return JSONResponse({"allowed": bool(allowed), "customer_id": customer, "balance": balance})

    async def check(request: Request) -> JSONResponse:
        return await decide(request, 0)

    async def track(request: Request) -> JSONResponse:
        return await decide(request, 1)

    routes = [Route(f"/v1/balances.{verb.__name__}", verb, methods=["POST"]) for verb in (check, track)]
    return Starlette(routes=routes)
