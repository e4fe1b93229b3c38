"""The list of customers on the wire."""

from enum import StrEnum

import msgspec

from creditgate.api.wire.customers import CustomerAnswer
from creditgate.api.wire.fields import NotYet, Request
from creditgate.api.wire.numbers import WHOLE_MAX, whole
from creditgate.api.wire.requests import LIMIT_MAX
from creditgate.core.ids import check_caller_id
from creditgate.core.listing import CustomerFilter, PlanFilter, Status
from creditgate.errors import InvalidInputs

PLANS_MAX = 100  # named in one call, and versions of each


class SortOrder(StrEnum):
    """By when customers were made."""

    ASC = "asc"
    DESC = "desc"


class PlanQuery(Request, frozen=True):
    """Whoever has this plan; of these versions, if any are named."""

    id: str
    versions: tuple[float, ...] = ()

    def filter(self, place: int) -> PlanFilter:
        field = f"plans[{place}].versions"
        if len(self.versions) > PLANS_MAX:
            raise InvalidInputs(f"{field}: must have at most {PLANS_MAX} elements")
        versions = (whole(version, field=field, least=1, most=WHOLE_MAX) for version in self.versions)
        return PlanFilter(check_caller_id(self.id, field=f"plans[{place}].id"), tuple(versions))


class CreatedAtRange(Request, frozen=True):
    """start <= time <= end, in Unix ms."""

    start: float | None = None
    end: float | None = None

    def bounds(self) -> tuple[int | None, int | None]:
        return _bound(self.start, "start"), _bound(self.end, "end")


class ListCustomersRequest(Request, frozen=True):
    """`customers.list`, the newest first unless it is said otherwise."""

    start_cursor: str = ""
    limit: float = 50
    search: str | None = None
    plans: tuple[PlanQuery, ...] = ()
    subscription_status: Status | None = None
    sort_order: SortOrder = SortOrder.DESC
    created_at_range: CreatedAtRange = CreatedAtRange()
    processors: NotYet | None = None

    def rows(self) -> int:
        return whole(self.limit, field="limit", least=1, most=LIMIT_MAX)

    def filter(self) -> CustomerFilter:
        """Return which customers are asked for."""
        if len(self.plans) > PLANS_MAX:
            raise InvalidInputs(f"plans: must have at most {PLANS_MAX} elements")
        since, until = self.created_at_range.bounds()
        return CustomerFilter(
            text=check_caller_id(self.search, field="search") if self.search else "",
            plans=tuple(plan.filter(place) for place, plan in enumerate(self.plans)),
            status=self.subscription_status,
            since=since,
            until=until,
        )


class CustomersAnswer(msgspec.Struct, frozen=True):
    """`customers.list`."""

    list: tuple[CustomerAnswer, ...]
    next_cursor: str | None


def _bound(value: float | None, name: str) -> int | None:
    if value is None:
        return None
    return whole(value, field=f"created_at_range.{name}", least=-WHOLE_MAX, most=WHOLE_MAX)
