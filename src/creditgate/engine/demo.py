"""The tutorial's catalog: a chat product that sells messages by credits."""

from creditgate.core.amounts import NANOS
from creditgate.core.catalog import (
    CreditCost,
    Feature,
    FeatureType,
    Interval,
    ItemPrice,
    Plan,
    PlanItem,
    PlanPrice,
    Recurrence,
)
from creditgate.engine.catalogs import Catalogs

_MONTHLY = Recurrence(Interval.MONTH)
_ONCE = Recurrence(Interval.ONE_OFF)

FEATURES = (
    Feature("basic_messages", "Basic messages", FeatureType.METERED, consumable=True),
    Feature("premium_messages", "Premium messages", FeatureType.METERED, consumable=True),
    Feature(
        "usd_credits",
        "USD credits",
        FeatureType.CREDIT_SYSTEM,
        consumable=True,
        credit_schema=(
            CreditCost("basic_messages", NANOS // 100),
            CreditCost("premium_messages", NANOS // 10),
        ),
    ),
)


def plans(now_ms: int) -> tuple[Plan, ...]:
    """Return free (5 credits each month), pro ($10 a month, 10 credits each month) and top_up ($1 a credit, once)."""
    return (
        Plan(
            "free",
            "Free",
            now_ms,
            auto_enable=True,
            items=(PlanItem("usd_credits", 5 * NANOS, reset=_MONTHLY),),
        ),
        Plan(
            "pro",
            "Pro",
            now_ms,
            price=PlanPrice(10 * NANOS, _MONTHLY),
            items=(PlanItem("usd_credits", 10 * NANOS, reset=_MONTHLY),),
        ),
        Plan(
            "top_up",
            "Top up",
            now_ms,
            add_on=True,
            items=(PlanItem("usd_credits", price=ItemPrice(NANOS, _ONCE)),),
        ),
    )


async def load(catalogs: Catalogs, now_ms: int) -> None:
    """Add what is not there yet of the tutorial's features and plans."""
    current = await catalogs.refresh()
    for feature in FEATURES:
        if feature.id not in current.features:
            await catalogs.create_feature(feature)
    for plan in plans(now_ms):
        if plan.id not in current.plans:
            await catalogs.create_plan(plan)
