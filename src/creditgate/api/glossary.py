"""What the words of the wire mean, for the OpenAPI document: one word means one thing wherever it stands.

The limits are those of parameters, from the constants that the code checks them with.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from creditgate.api.wire.events import FILTERS_MAX, PATH
from creditgate.api.wire.numbers import INSTANT_MAX, WHOLE_MAX
from creditgate.api.wire.requests import LIMIT_MAX
from creditgate.core.amounts import INPUT_INTEGER_DIGITS_MAX
from creditgate.core.catalog import INTERVAL_COUNT_MAX
from creditgate.core.ids import CUSTOMER_ID_BYTES_MAX
from creditgate.core.multi_attach import PLANS_MAX
from creditgate.engine.aggregates import GROUPS_MAX

Schema = dict[str, Any]

_ANY: Schema = {}
_BEYOND = 10**INPUT_INTEGER_DIGITS_MAX
_ID: Schema = {"minLength": 1, "maxLength": CUSTOMER_ID_BYTES_MAX}
_SIGNED: Schema = {"exclusiveMinimum": -_BEYOND, "exclusiveMaximum": _BEYOND}
_AMOUNT: Schema = {"minimum": 0, "exclusiveMaximum": _BEYOND}
_INSTANT: Schema = {"minimum": 0, "maximum": INSTANT_MAX}
_FILTERS: Schema = {"maxProperties": FILTERS_MAX, "propertyNames": {"pattern": f"^{PATH}$"}}
_BOUND: Schema = {"minimum": -WHOLE_MAX, "maximum": WHOLE_MAX}


class Word(NamedTuple):
    """What a field means, and what a parameter of that name may be."""

    meaning: str
    limits: Schema = _ANY


OWN_OBJECTS = frozenset({"properties", "metadata"})
"""Objects that are the caller's own affair: kept and given back as they were sent."""

REQUIRED: Mapping[str, tuple[str, ...]] = {
    "CheckRequest": ("feature_id",),
    "ProgressRequest": ("used",),
}
"""Parameters that a struct lets be absent, to refuse that in Autumn's words."""

WORDS: Mapping[str, Word] = {
    # who and what
    "customer_id": Word("Your own id of the customer.", _ID),
    "entity_id": Word("Your own id of the entity, among those of the customer.", _ID),
    "entity_data": Word("What the entity is, in case that there is none yet of this id: then it is made."),
    "customer_data": Word("What is said of the customer, in case that there is none yet: then it is made."),
    "pooled": Word("Give it to the customer for all to draw on, also where one entity is on the plan."),
    "entity_feature_id": Word("Give it to each entity of this feature, not to the customer."),
    "entities": Word("What the customer's balances are shared out among, such as seats."),
    "scope": Word("Whose it is: the `customer`'s, or an `entity`'s."),
    "source": Word("Where it comes from: the `customer`, an `entity`, or a `plan`."),
    "feature_id": Word("The feature, as the catalog names it."),
    "plan_id": Word("The plan, as the catalog names it."),
    "balance_id": Word("The balance; an id of your own, if you gave it one.", _ID),
    "name": Word("What people call it."),
    "email": Word("Where the customer is written to."),
    "metadata": Word("Anything of yours, up to 16 KiB; kept and given back."),
    "fingerprint": Word("What you recognise the same person by."),
    "expand": Word(
        "`balances.feature` or `flags.feature`: put the whole feature beside each balance or flag. `entities`: list "
        "the customer's entities."
    ),
    # check and track
    "required_balance": Word(
        "How many units must be affordable, 1 unless said. Answered in the balance's unit.", _SIGNED
    ),
    "send_event": Word("Also take the units, all or nothing."),
    "value": Word("How many units, 1 unless said; negative gives back.", _SIGNED),
    "event_name": Word("Instead of feature_id: every feature that lists this name in its event_names."),
    "overage_behavior": Word(
        "What exceeds the balance is dropped (`cap`), refuses the call (`reject`), or is taken below zero (`overflow`)."
    ),
    "idempotency_key": Word("As the header Idempotency-Key; send one of the two.", _ID),
    "properties": Word("Anything of yours about this use, up to 4 KiB; found again in events.list."),
    "timestamp": Word("When it happened, Unix ms; for queries only.", _INSTANT),
    "allowed": Word("Whether the customer can afford it."),
    "deductions": Word("What each balance really gave, in its own unit."),
    "code": Word("A stable word for what happened."),
    "message": Word("The same for people."),
    "env": Word("`sandbox` or `live`."),
    # balances
    "balance": Word("The balance that answers; null if there is none."),
    "balances": Word("By feature; null where the customer has none."),
    "granted": Word("What was given for this period."),
    "remaining": Word("What is left; never below zero here.", _AMOUNT),
    "usage": Word("What was used; more than was granted after an overflow.", _SIGNED),
    "current_balance": Word("As `remaining`.", _AMOUNT),
    "add_to_balance": Word("So much more than is left, or less if negative.", _SIGNED),
    "statuses": Word("`active`, `expired`, or both."),
    "breakdown": Word("One entry for each plan item, purchase or grant that makes up this balance."),
    "included_grant": Word("What it starts with, each period if it resets.", _AMOUNT),
    "prepaid_grant": Word("What was bought on top."),
    "next_reset_at": Word("When it starts again, Unix ms.", _INSTANT),
    "expires_at": Word("When it ends, Unix ms; null: never.", _INSTANT),
    "reset": Word("How often it starts again; null: never."),
    "unlimited": Word("Always affordable; nothing is taken."),
    "rollover": Word("What is left at a reset and stays, beside what the new period gives."),
    "rollovers": Word("What is left of what earlier periods left over."),
    "max": Word("How much of it at most.", _AMOUNT),
    "max_percentage": Word("The same, in percent of what one period gives.", _AMOUNT),
    "interval_count": Word("Every so many intervals.", {"minimum": 1, "maximum": INTERVAL_COUNT_MAX}),
    # catalog
    "type": Word("What it is; it never changes."),
    "consumable": Word("Used up (messages), or taken and given back (seats)."),
    "credit_schema": Word("What one unit of each member costs in credits; for a credit system only."),
    "metered_feature_id": Word("The member."),
    "credit_cost": Word("Credits for one unit, with 9 decimals at most.", _AMOUNT),
    "on_unavailable": Word(
        "What a check of it says while Redis is away: `deny` unless said, `allow`, or `allow_up_to` so many units of "
        "each customer. An extension of ours."
    ),
    "allow_up_to": Word("Units that each customer is allowed in one outage, by each process.", _AMOUNT),
    "event_names": Word("Names of events that count as its use."),
    "archived": Word("Out of lists; what customers have of it stays."),
    "items": Word("What the plan gives."),
    "included": Word("Units of this feature each period.", _AMOUNT),
    "amount": Word("In the currency's major unit: 10 is ten dollars.", _AMOUNT),
    "billing_units": Word("How many units one price buys.", _AMOUNT | {"exclusiveMinimum": 0}),
    "billing_method": Word("Paid before it is used (`prepaid`), or after (`usage_based`)."),
    "max_purchase": Word("How much may be used beyond what is included; null: no limit.", _AMOUNT),
    "group": Word("A customer has one plan of a group at most; add-ons aside."),
    "add_on": Word("Stacks on other plans."),
    "auto_enable": Word("Every new customer starts with it."),
    "version": Word(
        "A change of items or price makes the next one; customers keep theirs.",
        {"minimum": 1, "maximum": WHOLE_MAX},
    ),
    # plans of customers
    "MultiAttachRequest.plans": Word("All of them, or none.", {"minItems": 1, "maxItems": PLANS_MAX}),
    "billing_cycle_anchor": Word("`now`: the plan's periods begin today, whatever it replaces."),
    "feature_quantities": Word("How much of what is sold by quantity."),
    "quantity": Word("How much, what is included counted in.", _AMOUNT),
    "success_url": Word("Where the customer goes after paying.", {"format": "uri", "maxLength": 2048}),
    "payment_url": Word("Where to pay; null: nothing is left to pay, and the plan is active."),
    "subscriptions": Word("The plans that the customer is on."),
    "purchases": Word("The one-off plans that the customer bought."),
    "flags": Word("The on/off features that the customer has."),
    "frozen_time": Word(
        "What time it is for this customer from now on, Unix ms; it only moves forward.", _INSTANT
    ),
    "time_zone": Word("Where the customer's days and months end, such as Europe/Berlin; UTC unless said."),
    # billing controls
    "billing_controls": Word("Limits beyond the balances."),
    "spend_limits": Word("How far below zero the balances of a feature may go together."),
    "overage_limit": Word("So far.", _AMOUNT),
    "usage_limits": Word("How much of a feature may be used in each window."),
    "UsageLimitRequest.limit": Word("So much.", _AMOUNT),
    "anchor": Word("Where windows begin: with the customer (`billing_cycle`), or with the calendar in UTC."),
    "filter": Word("Count only calls with these properties."),
    "overage_allowed": Word("Whether balances may go below zero."),
    "enabled": Word("Whether it holds."),
    "free_trial": Word("How long a plan is free at first."),
    "usage_alerts": Word("When to tell that a balance runs low."),
    # locks
    "lock": Word("Take the units before they are used, until they are finalized or the lock expires."),
    "lock_id": Word("Your own name for the lock; one is made if you give none.", _ID),
    "action": Word("`confirm`: the units were used. `release`: they were not."),
    "LockRequest.enabled": Word("False: no lock."),
    "LockRequest.expires_at": Word(
        "When it expires, Unix ms: an hour from now unless said, a day at most. What was not used then comes back.",
        _INSTANT,
    ),
    "ProgressAnswer.value": Word("How many units are locked."),
    "override_value": Word("How many were really used, if not as many as were locked.", _SIGNED),
    "used": Word("So many so far; if the lock expires, they are charged.", _AMOUNT),
    # changes of plans
    "cancel_action": Word("Cancel now, when the period is over, or not after all."),
    "plan_schedule": Word("When the plan begins: now, or when the current one's period is over."),
    "carry_over_balances": Word("Features of which what is left stays."),
    "carry_over_usages": Word("Features of which what was used stays used."),
    "total": Word("To be paid."),
    # lists
    "limit": Word("How many at most.", {"minimum": 1, "maximum": LIMIT_MAX}),
    "start_cursor": Word("`next_cursor` of the page before."),
    "next_cursor": Word("Where the next page starts; null: this was the last."),
    "custom_range": Word("From start up to, not including, end."),
    "start": Word("Unix ms.", _BOUND),
    "end": Word("Unix ms.", _BOUND),
    "search": Word("In the id, name or email."),
    "sort_order": Word("By when they were made; the newest first unless said."),
    "created_at_range": Word("From start to end, both included."),
    # batches
    "batch_id": Word(
        "The batch, as its answer's header X-Creditgate-Batch named it.",
        {"pattern": "^bat_[0-9A-Za-z]{1,64}$"},
    ),
    "failures": Word("The items that took nothing."),
    "index": Word("The place in the batch, from 0."),
    "done_at": Word("When every item was decided, Unix ms; null: not yet."),
    "verb": Word("Which call it is; its other fields are those of that call."),
    "replayed": Word("Whether a call with its key was made before, and this is that one's answer."),
    "body": Word("The body of its answer, or of its error."),
    # usage over time
    "range": Word("Up to now, or one of the customer's cycles."),
    "bin_size": Word("How long one element of the answer is; a day unless said, an hour for `24h`."),
    "timezone": Word("Whose days, weeks and months, such as Europe/Berlin; the customer's unless said."),
    "group_by": Word(
        "`properties.<name>`, `$customer_id` or `$entity_id`; of deductions also `$feature_id`."
    ),
    "filter_by": Word(
        "Only events whose properties have these texts.",
        _FILTERS,
    ),
    "max_groups": Word(
        "How many groups stand apart; the others are `Other`.", {"minimum": 1, "maximum": GROUPS_MAX}
    ),
    "measure": Word("Add up values (`sum`), or count events (`count`)."),
    "aggregate_on": Word("`deducted`: also what was taken from which balance."),
    "period": Word("When the bin begins, Unix ms."),
    "history_from": Word("Usage recorded before this was removed, Unix ms; not there: none ever was."),
    "values": Word("By feature."),
    "grouped_values": Word("By feature or balance, and then by group."),
    "AggregateAnswer.total": Word("All bins together, by feature."),
    "deducted": Word("What was really taken, in the balance's unit."),
    "since": Word("From when on, Unix ms.", _INSTANT),
    "change": Word("What came or went, signed."),
    "has_earlier": Word("Whether lines before these were left out."),
}
