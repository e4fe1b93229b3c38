"""Holds on the wire, where they are called locks: the `lock` of a check or track, `balances.finalize|progress`."""

from enum import StrEnum

import msgspec
from msgspec import Raw

from creditgate.api.wire.fields import ABSENT, Request, own_object
from creditgate.api.wire.numbers import amount, instant, number
from creditgate.core.decisions import Decision, Mode
from creditgate.core.holds import Held
from creditgate.core.ids import check_caller_id
from creditgate.errors import InvalidInputs

PROPERTIES_BYTES_MAX = 4096  # they travel through the journal with every event


class Overage(StrEnum):
    """What a lock does with what the customer cannot afford."""

    CAP = "cap"
    OVERFLOW = "overflow"


class Action(StrEnum):
    CONFIRM = "confirm"
    RELEASE = "release"


class LockRequest(Request, frozen=True):
    """Takes units before they are used, until `balances.finalize` or `expires_at` (an hour from now)."""

    enabled: bool = True
    lock_id: str | None = None
    expires_at: float | None = None
    overage_behavior: Overage | None = None

    def __post_init__(self) -> None:
        if self.lock_id is not None:
            check_caller_id(self.lock_id, field="lock.lock_id")

    def expires_ms(self) -> int | None:
        return instant(self.expires_at, field="lock.expires_at")

    def mode(self, otherwise: Mode) -> Mode:
        """Return how the lock treats what the customer cannot afford; `otherwise` unless it says so."""
        return Mode(self.overage_behavior) if self.overage_behavior is not None else otherwise


def wanted(lock: LockRequest | None) -> LockRequest | None:
    """Return the lock, None where it was sent as not enabled."""
    return lock if lock is not None and lock.enabled else None


class NamedLock(Request, frozen=True):
    """Whatever names a lock."""

    lock_id: str

    def __post_init__(self) -> None:
        check_caller_id(self.lock_id, field="lock_id")


class FinalizeRequest(NamedLock, frozen=True):
    """`balances.finalize`: `confirm` keeps what was locked, or makes it `override_value`; `release` gives it back."""

    action: Action
    override_value: Raw = ABSENT
    properties: Raw = ABSENT

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.action is Action.RELEASE and bytes(self.override_value):
            raise InvalidInputs("override_value: cannot be given with action release")

    def final_nanos(self) -> int | None:
        """Units that were used; None: as many as were locked."""
        if self.action is Action.RELEASE:
            return 0
        if not bytes(self.override_value):
            return None
        return amount(self.override_value, field="override_value", default=0)

    def properties_text(self) -> str | None:
        """What replaces the properties of the lock; None leaves them."""
        if not bytes(self.properties):
            return None
        return own_object(self.properties, field="properties", bytes_max=PROPERTIES_BYTES_MAX)


class ProgressRequest(NamedLock, frozen=True):
    """`balances.progress`: how much of a lock was used so far. The most that was ever said counts."""

    used: Raw = ABSENT

    def used_nanos(self) -> int:
        if not bytes(self.used):
            raise InvalidInputs("used: must be a number (received undefined)")
        used = amount(self.used, field="used", default=0)
        if used < 0:
            raise InvalidInputs("used: must be >= 0")
        return used


class LockAnswer(msgspec.Struct, frozen=True):
    """The lock that a check or track made."""

    lock_id: str
    expires_at: int


class ProgressAnswer(msgspec.Struct, frozen=True):
    """A lock as it is now. If it expires, `used` of it is charged."""

    lock_id: str
    feature_id: str
    value: Raw
    used: Raw
    expires_at: int


def lock_answer(decision: Decision) -> LockAnswer | msgspec.UnsetType:
    """Return the lock that a decision made, if any."""
    held = decision.held
    return LockAnswer(held.hold_id, held.hold.expires_at) if held is not None else msgspec.UNSET


def progress_answer(held: Held) -> ProgressAnswer:
    hold = held.hold
    return ProgressAnswer(
        lock_id=held.hold_id,
        feature_id=hold.feature_id,
        value=number(hold.value_nanos),
        used=number(hold.used_nanos),
        expires_at=hold.expires_at,
    )
