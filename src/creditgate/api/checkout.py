"""The page behind a payment_url: what is bought, for how much, Pay, Cancel.

The link is the permission: whoever has it may pay. A plain form posts back to the page it came from; no script runs,
nothing is loaded, no other page may frame it, and a form on another page cannot pay.
"""

import base64
import hashlib
from collections.abc import Iterator
from importlib.resources import files
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from creditgate.api.door import check_origin
from creditgate.api.problems import RETRY_AFTER, status_of
from creditgate.core.amounts import format_amount
from creditgate.core.catalog import Interval, Plan, Recurrence
from creditgate.core.plans import Line, quote
from creditgate.engine.billing import Billing, Offer
from creditgate.engine.catalogs import Catalogs
from creditgate.errors import CreditgateError
from creditgate.telemetry import logger

CHECKOUT_PATH = "/checkout/{token}"

log = logger(__name__)


class PageLine(NamedTuple):
    """One line of the table."""

    what: str
    amount: str


class CheckoutPages:
    """Shows and completes checkouts."""

    def __init__(self, billing: Billing, catalogs: Catalogs, *, is_test: bool) -> None:
        self._billing = billing
        self._catalogs = catalogs
        self._is_test = is_test
        self._template = Environment(
            autoescape=True, loader=PackageLoader("creditgate.api"), trim_blocks=True
        ).get_template("checkout.html")
        style = files("creditgate.api").joinpath("templates/checkout.css").read_text("utf-8")
        self._style = Markup(style)  # noqa: S704 - our own file
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        self._policy = (
            f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; frame-ancestors 'none'"
        )

    async def show(self, request: Request) -> Response:
        """GET: the offer, or that it is paid."""
        try:
            return self._offer(await self._billing.offer(request.path_params["token"]))
        except Exception as error:
            return self._failure(error)

    async def pay(self, request: Request) -> Response:
        """POST: pay once, however often it is sent, and go on to where the application wants its customer."""
        try:
            check_origin(request.headers)
            paid = await self._billing.pay(request.path_params["token"])
        except Exception as error:
            return self._failure(error)
        return RedirectResponse(paid.checkout.success_url or request.url.path, status_code=303)

    def _offer(self, offer: Offer) -> Response:
        checkout = offer.checkout
        if checkout.paid_at is not None:
            return self._page(
                title="Paid", text="Thank you. This is paid and active.", back=checkout.success_url
            )
        note = "This is a test: no money moves." if self._is_test else ""
        return self._page(
            title=", ".join(one.plan.name for one in offer.wanted),
            text=note if checkout.success_url else f"{note} To cancel, close this page.".strip(),
            lines=list(self._lines(offer)),
            total=_money(checkout.total_nanos),
            can_pay=True,
            back=checkout.success_url,
        )

    def _lines(self, offer: Offer) -> Iterator[PageLine]:
        for one, offered in zip(offer.wanted, offer.checkout.plans, strict=True):
            if offered.total_nanos:  # what is paid later is no part of the sum
                for line in quote(one.plan, one.quantities):
                    if line.total_nanos:
                        yield self._line(one.plan, line)

    def _line(self, plan: Plan, line: Line) -> PageLine:
        if line.feature_id is None:
            assert plan.price is not None
            return PageLine(f"{plan.name}, {_every(plan.price.recurrence)}", _money(line.total_nanos))
        feature = self._catalogs.current.features.get(line.feature_id)
        name = feature.name if feature else line.feature_id
        return PageLine(f"{format_amount(line.quantity_nanos)} {name}", _money(line.total_nanos))

    def _failure(self, error: Exception) -> Response:
        status = status_of(error) if isinstance(error, CreditgateError) else 500
        if isinstance(error, CreditgateError) and status < 500:
            return self._page(title="This cannot be paid", text=error.message, status=status)
        log.error("checkout_failed", exc_info=error)
        text = "We cannot tell whether this was paid. Please try again: it is never paid twice."
        return self._page(title="Something went wrong", text=text, status=status)

    def _page(self, *, status: int = 200, back: str | None = None, **context: Any) -> Response:
        headers = {
            "Content-Security-Policy": f"{self._policy}; form-action 'self'{_origin(back)}",
            "Referrer-Policy": "same-origin",  # not no-referrer, for which browsers post with `Origin: null`
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
        }
        if status == 503:
            headers |= RETRY_AFTER
        html = self._template.render(style=self._style, back=back, **context)
        return Response(html, status, headers, media_type="text/html")


def _origin(url: str | None) -> str:
    """Return what to allow beside 'self': Chromium applies form-action to the redirect after the form too."""
    parts = urlsplit(url or "")
    return f" {parts.scheme}://{parts.netloc}" if parts.netloc else ""


def _money(nanos: int) -> str:
    """Prices are in dollars until there are currencies; cents always show two digits."""
    whole, _, fraction = format_amount(nanos).partition(".")
    return f"${whole}.{fraction.ljust(2, '0')}" if fraction else f"${whole}"


def _every(recurrence: Recurrence) -> str:
    if recurrence.interval is Interval.ONE_OFF:
        return "once"
    name = recurrence.interval.replace("_", "-")
    return f"each {name}" if recurrence.count == 1 else f"each {recurrence.count} {name}s"
