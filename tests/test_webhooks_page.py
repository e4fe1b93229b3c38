"""What docs/webhooks.md shows is what the code does."""

import re
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import WebhookVerificationError

from creditgate.core.webhooks import EventType, limit_reached, secret_of
from creditgate.engine.courier import ATTEMPT_TIMEOUT_S, _headers
from creditgate.engine.endpoints import WEBHOOKS_MAX
from creditgate.engine.webhooks import RETRIES_S

PAGE = (Path(__file__).parent.parent / "docs" / "webhooks.md").read_text()


def test_the_verification_that_is_shown_works() -> None:
    """Whoever pastes the snippet accepts what we send, and refuses it if a byte of it was changed."""
    found = re.search(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert found
    names: dict[str, Any] = {}
    exec(found[1], names)
    secret, body = secret_of(b"\x00\xff" * 16), limit_reached("é", "usd_credits", None, "included").encode()
    headers = _headers(secret, "msg_p00-1-0-1", body)
    told = names["receive"](secret, headers, body)
    assert told["data"] == {"customer_id": "é", "feature_id": "usd_credits", "limit_type": "included"}
    for wrong in (
        (secret_of(b"\x00" * 32), headers, body),
        (secret, headers, body + b" "),
        (secret, headers | {"webhook-id": "msg_p00-1-0-2"}, body),
        (secret, headers | {"webhook-timestamp": "1"}, body),
    ):
        with pytest.raises(WebhookVerificationError):
            names["receive"](*wrong)


def test_the_numbers_that_are_shown_are_those_of_the_code() -> None:
    """Somebody who plans by the page is not misled."""
    assert all(f"`{event}`" in PAGE for event in EventType)
    assert f"there can be {WEBHOOKS_MAX} webhooks" in PAGE
    assert f"within {ATTEMPT_TIMEOUT_S:.0f} seconds" in PAGE
    units = {"s": 1, "min": 60, "h": 3600}
    line = re.search(r"tried again after (.*?), also", PAGE)
    assert line
    shown = [int(n) * units[unit] for n, unit in re.findall(r"(\d+) (s|min|h)\b", line[1])]
    assert shown == list(RETRIES_S)
