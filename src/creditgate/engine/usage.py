"""One use of a feature, as the engine is asked for it."""

from typing import NamedTuple

import msgspec

from creditgate.core.decisions import Mode
from creditgate.engine.keys import CallerKey
from creditgate.errors import Undecided


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    """One use of a feature by its id, or of all that count an event by its name.

    `verb` is `track`, `check` for a check that sends an event, or `hold`; `properties` is a JSON object as text;
    `occurred_at` is the caller's time in Unix ms, for queries only; without an `entity_id` it is for the customer. The
    journal keeps those of a batch, so a new field needs a default.
    """

    verb: str
    customer_id: str
    feature_id: str | None
    event_name: str | None
    value_nanos: int
    mode: Mode
    properties: str = "{}"
    occurred_at: int | None = None
    key: CallerKey | None = None
    entity_id: str | None = None


class Sent(NamedTuple):
    """A use that was sent, or was to be, and the first and last `not_after` that it was sent with; 0: never.

    `is_taken`: its key says that it happened before, under another op id; only what it took could not be read.
    """

    op_id: str
    usage: Usage
    first_not_after: int
    last_not_after: int
    is_taken: bool = False


class UsageUndecided(Undecided):
    """It is not known whether this use took effect; if it did not, it will not after its last `not_after`."""

    def __init__(self, message: str, sent: Sent) -> None:
        super().__init__(message)
        self.sent = sent
