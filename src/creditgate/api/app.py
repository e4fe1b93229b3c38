"""The Starlette application: every verb on its path, the checkout page, health, numbers, the docs."""

from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from creditgate.api.calls import Answer, Call, LegacyRoute, Verb
from creditgate.api.checkout import CHECKOUT_PATH, CheckoutPages
from creditgate.api.docs import docs_routes
from creditgate.api.door import Callers, HostCheck, check_version, read_body, read_version
from creditgate.api.fastdoor import FastDoor, HotCall
from creditgate.api.openapi import document
from creditgate.api.problems import TurnedAway, answer_to, problem
from creditgate.api.public import PUBLIC, bound
from creditgate.api.routes.balances import BalanceRoutes
from creditgate.api.routes.batches import BatchRoutes
from creditgate.api.routes.billing import BillingRoutes
from creditgate.api.routes.call_batches import CallBatchRoutes
from creditgate.api.routes.catalog import CatalogRoutes
from creditgate.api.routes.customers import CustomerRoutes
from creditgate.api.routes.entities import EntityRoutes
from creditgate.api.routes.events import EventRoutes
from creditgate.api.routes.holds import HoldRoutes
from creditgate.api.routes.keys import RepeatedKeys
from creditgate.api.routes.legacy import LegacyRoutes
from creditgate.api.routes.meter import MeterRoutes
from creditgate.api.routes.statement import StatementRoutes
from creditgate.api.routes.tokens import TokenRoutes
from creditgate.api.routes.webhooks import WebhookRoutes
from creditgate.api.scopes import scopes_of
from creditgate.api.settings import ApiSettings
from creditgate.api.versions import Version
from creditgate.engine.access import Access
from creditgate.engine.aggregates import Aggregates
from creditgate.engine.batches import Batches
from creditgate.engine.billing import Billing
from creditgate.engine.catalogs import Catalogs
from creditgate.engine.customer_list import CustomerList
from creditgate.engine.customer_tokens import CustomerTokens
from creditgate.engine.customers import Customers
from creditgate.engine.endpoints import Endpoints
from creditgate.engine.entities import Entities
from creditgate.engine.history import History
from creditgate.engine.holds import Holds
from creditgate.engine.meter import Meter
from creditgate.engine.outage import Outage
from creditgate.engine.spans import Spans
from creditgate.engine.statement import Statements

__all__ = ["Api", "ApiSettings", "create_app"]

Endpoint = Callable[[Request], Awaitable[Response]]
Ready = Callable[[], Awaitable[dict[str, str]]]
Numbers = Callable[[str], Awaitable[tuple[bytes, str]]]

# The current SDKs want the base URL without /v1, older ones with it: both work.
PREFIXES = ("/v1", "/v1/v1")
HOT = ("balances.check", "balances.track", "balances.batch")
LEGACY_HOT = ("check", "track")


class Api(Starlette):
    """The application, and the door through which the fast lane answers some of its calls."""

    fast_door: FastDoor


def create_app(
    *,
    meter: Meter,
    holds: Holds,
    batches: Batches,
    customers: Customers,
    entities: Entities,
    outage: Outage,
    customer_list: CustomerList,
    catalogs: Catalogs,
    billing: Billing,
    access: Access,
    tokens: CustomerTokens,
    history: History,
    spans: Spans,
    aggregates: Aggregates,
    statements: Statements,
    endpoints: Endpoints,
    ready: Ready,
    numbers: Numbers,
    settings: ApiSettings,
) -> Api:
    """Return the application. `ready` names each part with `ok`, or with a sentence that says what it lacks.

    `numbers` is given an Accept header, and returns the page of /metrics and its content type.
    """
    verbs, legacy = tables(
        meter=meter,
        holds=holds,
        batches=batches,
        customers=customers,
        entities=entities,
        outage=outage,
        customer_list=customer_list,
        catalogs=catalogs,
        billing=billing,
        tokens=tokens,
        history=history,
        spans=spans,
        aggregates=aggregates,
        statements=statements,
        endpoints=endpoints,
        settings=settings,
    )
    pages = CheckoutPages(billing, catalogs, is_test=settings.env == "test")
    env = settings.env_on_wire
    callers = Callers(access, tokens, settings.allowed_origins)
    answering = {name: _endpoint(name, verb, callers, env) for name, verb in verbs.items()}
    older = [
        (route, _endpoint(route.name, route.verb, callers, env, speaks=read_version)) for route in legacy
    ]
    cross = {verb: _cors(verb, settings.allowed_origins) for verb in verbs}
    app = Api(
        routes=[
            *(
                Route(f"{prefix}/{verb}", endpoint, methods=["POST"], name=verb, middleware=cross[verb])
                for prefix in PREFIXES
                for verb, endpoint in answering.items()
            ),
            *(
                Route(f"{prefix}/{verb}", _not_asked, methods=["OPTIONS"], name=verb, middleware=cross[verb])
                for prefix in PREFIXES
                for verb in PUBLIC
                if cross[verb]
            ),
            *(
                Route(f"{prefix}/{route.path}", endpoint, methods=[route.method], name=route.name)
                for prefix in PREFIXES
                for route, endpoint in older
            ),
            Route(CHECKOUT_PATH, pages.show, methods=["GET"]),
            Route(CHECKOUT_PATH, pages.pay, methods=["POST"]),
            Route("/healthz", _alive, methods=["GET"]),
            Route("/readyz", _readiness(ready), methods=["GET"]),
            Route("/metrics", _metrics(numbers), methods=["GET"]),
            *docs_routes(lambda: document(verbs, legacy)),
        ],
        middleware=[Middleware(HostCheck, allowed_hosts=settings.allowed_hosts, env=env)],
        exception_handlers={HTTPException: _no_such_route(env)},
    )
    app.router.redirect_slashes = False
    app.fast_door = FastDoor(
        _hot_calls(verbs, legacy),
        access,
        names_us=HostCheck(app, allowed_hosts=settings.allowed_hosts, env=env).names_us,
        env=env,
    )
    return app


def tables(
    *,
    meter: Meter,
    holds: Holds,
    batches: Batches,
    customers: Customers,
    entities: Entities,
    outage: Outage,
    customer_list: CustomerList,
    catalogs: Catalogs,
    billing: Billing,
    tokens: CustomerTokens,
    history: History,
    spans: Spans,
    aggregates: Aggregates,
    statements: Statements,
    endpoints: Endpoints,
    settings: ApiSettings,
) -> tuple[dict[str, Verb], tuple[LegacyRoute, ...]]:
    """Return the table of every verb, and that of the routes from before them."""
    keys = RepeatedKeys(refuses=settings.refuses_repeated_keys)
    meter_routes = MeterRoutes(meter, holds, entities, outage, keys, settings)
    customer_routes = CustomerRoutes(customers, entities, customer_list, catalogs, keys, settings)
    balance_routes = BalanceRoutes(customers, keys)
    billing_routes = BillingRoutes(billing, keys, settings)
    verbs = {
        **meter_routes.by_verb,
        **HoldRoutes(holds, keys).by_verb,
        **BatchRoutes(batches, keys, settings).by_verb,
        **CallBatchRoutes(meter_routes, settings).by_verb,
        **EventRoutes(history, spans, aggregates).by_verb,
        **customer_routes.by_verb,
        **EntityRoutes(entities, customers, catalogs, keys, settings).by_verb,
        **balance_routes.by_verb,
        **billing_routes.by_verb,
        **StatementRoutes(statements).by_verb,
        **TokenRoutes(tokens).by_verb,
        **WebhookRoutes(endpoints, keys).by_verb,
        **CatalogRoutes(catalogs, customers, keys, settings).by_verb,
    }
    legacy = LegacyRoutes(meter_routes, customer_routes, balance_routes, billing_routes, customers, catalogs)
    return verbs, legacy.table


def _hot_calls(verbs: Mapping[str, Verb], legacy: Sequence[LegacyRoute]) -> dict[str, HotCall]:
    """Return what the fast lane may answer, by path."""
    calls = {name: HotCall(name, verbs[name], check_version, scopes_of(name)) for name in HOT}
    calls |= {
        route.path: HotCall(route.name, route.verb, read_version, scopes_of(route.name))
        for route in legacy
        if route.name in LEGACY_HOT
    }
    return {f"{prefix}/{path}": call for prefix in PREFIXES for path, call in calls.items()}


def _endpoint(
    name: str,
    verb: Verb,
    callers: Callers,
    env: str,
    *,
    speaks: Callable[[Headers], Version] = check_version,
) -> Endpoint:
    """Return the endpoint of one call: let it in, hand it over, and answer whatever comes of it.

    `speaks` returns the version that a call is in, or turns it away.
    """

    async def endpoint(request: Request) -> Response:
        body = b""
        try:
            caller = await callers.let_in(request.headers, name)
            version = speaks(request.headers)
            body = await read_body(request, bytes_max=verb.body_bytes_max)
            if caller.customer_id is not None:
                body = bound(name, body, caller.customer_id)
            call = Call(
                body=body,
                idempotency_keys=tuple(request.headers.getlist("idempotency-key")),
                base_url=f"{request.scope['scheme']}://{request.headers.get('host', '')}",
                version=version,
                customer_id=request.path_params.get("customer_id", ""),
                expand=_listed(request.query_params.getlist("expand")),
                key=caller.key,
            )
            answer = await verb.handler(call)
        except Exception as error:
            answer = answer_to(error, verb=name, body=body, env=env)
        return _json(answer)

    return endpoint


def _cors(verb: str, origins: Sequence[str]) -> list[Middleware]:
    """Return what lets browsers show pages of these origins the answers to a public verb; nothing for any other."""
    if verb not in PUBLIC or not origins:
        return []
    headers = ["authorization", "content-type", "x-api-version"]
    return [Middleware(CORSMiddleware, allow_origins=origins, allow_methods=["POST"], allow_headers=headers)]


async def _not_asked(_request: Request) -> Response:
    """Stand behind the middleware, which answers what a browser asks before a call."""
    raise HTTPException(405, headers={"Allow": "POST"})


def _listed(values: list[str]) -> tuple[str, ...]:
    """Return the parts of a list in a query, which is spelled `?a=x,y` or `?a=x&a=y`."""
    return tuple(part for value in values for part in value.split(",") if part)


async def _alive(_request: Request) -> Response:
    return _json(Answer(b'{"status":"ok"}'))


def _readiness(ready: Ready) -> Endpoint:
    async def endpoint(_request: Request) -> Response:
        parts = await ready()
        is_ready = all(state == "ok" for state in parts.values())
        body = {"status": "ok" if is_ready else "unavailable", "parts": parts}
        return _json(Answer(msgspec.json.encode(body), 200 if is_ready else 503))

    return endpoint


def _metrics(numbers: Numbers) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        page, content_type = await numbers(request.headers.get("accept", ""))
        return Response(page, headers={"Content-Type": content_type})

    return endpoint


def _no_such_route(env: str) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def handler(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        path = request.url.path
        if error.status_code == 405:
            message = f"{path} does not take {request.method}"
            turned_away = TurnedAway(405, "method_not_allowed", message, dict(error.headers or {}))
        else:
            turned_away = TurnedAway(404, "not_found", f"There is no {path}")
        return _json(problem(turned_away, status=turned_away.status, env=env))

    return handler


def _json(answer: Answer) -> Response:
    return Response(answer.body, answer.status, answer.headers, media_type="application/json")
