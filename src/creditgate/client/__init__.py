"""The application developer's comfort: one protocol, `Gate`, and the clients that speak it over HTTP and unix sockets.

`gate.py` says what can be asked, `calls.py` writes it down, `replies.py` reads what is answered into `answers.py`,
`http.py` carries both. Knows nothing of Redis, SQL or the sidecar's inside.
"""

from creditgate.client.answers import (
    Balance,
    Checked,
    Customer,
    Deduction,
    Flag,
    Lock,
    Progress,
    Purchase,
    Reset,
    Rollover,
    Row,
    RowPrice,
    Subscription,
    Tracked,
)
from creditgate.client.calls import Amount, CheckCall, TrackCall
from creditgate.client.gate import Gate
from creditgate.client.http import AsyncClient, Client

__all__ = [
    "Amount",
    "AsyncClient",
    "Balance",
    "CheckCall",
    "Checked",
    "Client",
    "Customer",
    "Deduction",
    "Flag",
    "Gate",
    "Lock",
    "Progress",
    "Purchase",
    "Reset",
    "Rollover",
    "Row",
    "RowPrice",
    "Subscription",
    "TrackCall",
    "Tracked",
]
