"""Customers listed page by page, changed, cancelled and deleted through autumn-sdk; the features are there already."""

from typing import Any

from tests.sdk.python.browser import pay
from tests.sdk.python.catalog import create_plans
from tests.sdk.python.script import Answers, autumn

NAMES = [f"user_{number}" for number in range(5)]
ANN: dict[str, Any] = {"customer_id": "ann"}

answers = Answers()
keep, refused = answers.keep, answers.refused

with autumn() as client:
    create_plans(client)
    for name in NAMES:
        client.customers.get_or_create(customer_id=name, name=f"Number {name[-1]}")
    client.track(customer_id="user_3", feature_id="basic_messages", value=2)

    page = client.customers.list(limit=2)
    pages = [page.model_dump(mode="json", by_alias=True)]
    while page.next_cursor:
        page = client.customers.list(limit=2, start_cursor=page.next_cursor)
        pages.append(page.model_dump(mode="json", by_alias=True))
    answers.note("pages", pages)
    keep("searched", client.customers.list(search="number 4"))
    keep("oldest", client.customers.list(limit=1, sort_order="asc"))

    client.customers.get_or_create(**ANN, name="Ann", metadata={"team": "red", "size": 3})
    keep("updated", client.customers.update(**ANN, name="Anna", metadata={"team": "blue", "size": None}))
    keep("emptied", client.customers.update(**ANN, name=None))

    keep("preview", client.billing.preview_attach(**ANN, plan_id="pro"))
    pay(client.billing.attach(**ANN, plan_id="pro").payment_url)
    keep("on_pro", client.customers.list(plans=[{"id": "pro"}]))
    keep(
        "cancelling",
        client.billing.update(**ANN, plan_id="pro", cancel_action="cancel_end_of_cycle"),
    )
    keep("cancelled", client.customers.get(**ANN))
    client.billing.update(**ANN, plan_id="pro", cancel_action="uncancel")
    keep("uncancelled", client.customers.get(**ANN))
    client.billing.update(**ANN, plan_id="pro", cancel_action="cancel_immediately")
    keep("ended", client.customers.get(**ANN))
    refused(
        "cancel_what_is_gone", client.billing.update, **ANN, plan_id="pro", cancel_action="cancel_immediately"
    )

    top_up = {"plan_id": "top_up", "feature_quantities": [{"feature_id": "usd_credits", "quantity": 20}]}
    several = keep("several", client.billing.multi_attach(**ANN, plans=[{"plan_id": "pro"}, top_up]))
    pay(several.payment_url)
    keep("on_several", client.customers.get(**ANN))

    keep("deleted", client.customers.delete(**ANN))
    refused("get_deleted", client.customers.get, **ANN)
    refused("delete_twice", client.customers.delete, **ANN)
    keep("made_again", client.customers.get_or_create(**ANN))
    keep("in_the_end", client.customers.list())

answers.tell()
