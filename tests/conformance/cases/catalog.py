"""The features that all cases share, and the plans that several of them use."""

from tests.conformance.cases.words import Body, item, plan


def _metered(feature: str, *, consumable: bool = True, **more: object) -> Body:
    return {"feature_id": feature, "name": feature, "type": "metered", "consumable": consumable, **more}


def _system(feature: str, **costs: float) -> Body:
    schema = [{"metered_feature_id": member, "credit_cost": cost} for member, cost in costs.items()]
    return {"feature_id": feature, "name": feature, "type": "credit_system", "credit_schema": schema}


FEATURES = (
    _metered("messages"),
    _metered("words"),
    _metered("storage"),
    _metered("users", consumable=False),
    _metered("workflows", consumable=False),
    {"feature_id": "dashboard", "name": "dashboard", "type": "boolean"},
    _metered("action1", event_names=["action-event", "action1-event"]),
    _metered("action2"),
    _metered("action3", event_names=["action-event"]),
    _system("credits", action1=0.2, action2=0.6),
    _system("credits2", action3=1.4),
    _system("credits3", action1=2),
    _metered("basic_messages"),
    _metered("premium_messages"),
    _system("usd_credits", basic_messages=0.01, premium_messages=0.1),
)

MESSAGES_100 = plan("messages-100", item("messages", 100, "month"))
CREDITS_100 = plan("credits-100", item("credits", 100, "month"))
USERS_5 = plan("users-5", item("users", 5))
