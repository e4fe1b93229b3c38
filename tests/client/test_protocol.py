"""The faces of the gate are alike, and its values have every field that is answered."""

import inspect
from collections.abc import Mapping

import msgspec
import pytest

from creditgate.api.wire import answers as wire
from creditgate.api.wire import customers as customers_on_wire
from creditgate.api.wire import holds as holds_on_wire
from creditgate.client import AsyncClient, Client, Gate, answers, calls
from creditgate.client.gate import AsyncFace, SyncFace

METHODS = ("batch", "check", "finalize", "get_or_create", "lock", "progress", "track")
# What a client never sees (`feature`, for which it does not ask), raises (`code`), or leaves to the HTTP API.
LEFT_OUT: Mapping[str, set[str]] = {
    "Balance": {"feature"},
    "Flag": {"feature"},
    "Checked": {"code"},
    "Customer": {"billing_controls", "config", "entities", "licenses", "processors"},
}


def test_a_client_is_a_gate() -> None:
    """An application that is written against Gate can swap what answers; mypy holds the types."""
    gates: list[type[Gate]] = [AsyncClient]
    assert all(callable(getattr(gate, method)) for gate in gates for method in METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_every_face_takes_what_the_protocol_says(method: str) -> None:
    """One signature, one text of help, with and without async."""
    said = inspect.signature(getattr(Gate, method))
    built = inspect.signature(getattr(calls, method))
    assert list(said.parameters.values())[1:] == list(built.parameters.values())
    for face in (AsyncClient, Client, AsyncFace, SyncFace):
        function = getattr(face, method)
        assert function.__doc__ == getattr(Gate, method).__doc__
        assert inspect.signature(function).parameters == built.parameters
        assert inspect.iscoroutinefunction(function) == issubclass(face, AsyncFace)


def test_the_protocol_names_every_method() -> None:
    """A method that is added to one face is added to the protocol."""
    for face in (Gate, AsyncFace, SyncFace):
        assert {name for name in vars(face) if not name.startswith("_")} == set(METHODS)


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        (answers.Balance, wire.BalanceAnswer),
        (answers.Checked, wire.CheckAnswer),
        (answers.Customer, customers_on_wire.CustomerAnswer),
        (answers.Deduction, wire.DeductionAnswer),
        (answers.Flag, wire.FlagAnswer),
        (answers.Lock, holds_on_wire.LockAnswer),
        (answers.Progress, holds_on_wire.ProgressAnswer),
        (answers.Purchase, customers_on_wire.PurchaseAnswer),
        (answers.Reset, wire.ResetAnswer),
        (answers.Rollover, wire.RolloverAnswer),
        (answers.Row, wire.RowAnswer),
        (answers.RowPrice, wire.RowPriceAnswer),
        (answers.Subscription, customers_on_wire.SubscriptionAnswer),
        (answers.Tracked, wire.TrackAnswer),
    ],
    ids=lambda part: part.__name__,
)
def test_values_have_every_field(value: type[msgspec.Struct], answer: type[msgspec.Struct]) -> None:
    """A field that the sidecar learns to answer reaches applications, or is left out on purpose."""
    ours = set(value.__struct_fields__) - {"is_replay"}
    assert ours == set(answer.__struct_fields__) - LEFT_OUT.get(value.__name__, set())
