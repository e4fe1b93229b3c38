"""creditgate is a metering sidecar: it answers whether a customer can afford a call, and takes the credits.

Applications use it through `Client` and `AsyncClient`, or in their own process through `Meter` and `SyncMeter`. Each is
loaded when it is first asked for, so importing this package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from creditgate.errors import CreditgateError, InsufficientBalance, Undecided

if TYPE_CHECKING:
    from creditgate.client import AsyncClient, CheckCall, Client, Gate, TrackCall
    from creditgate.library import Meter, SyncMeter

__version__ = "0.1.0"

__all__ = [
    "AsyncClient",
    "CheckCall",
    "Client",
    "CreditgateError",
    "Gate",
    "InsufficientBalance",
    "Meter",
    "SyncMeter",
    "TrackCall",
    "Undecided",
]

_HOMES = dict.fromkeys(("AsyncClient", "CheckCall", "Client", "Gate", "TrackCall"), "creditgate.client")
_HOMES |= dict.fromkeys(("Meter", "SyncMeter"), "creditgate.library")


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
