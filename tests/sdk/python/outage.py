"""What an application is told while Redis does not answer, through autumn-sdk, which fails open unless told not to."""

from typing import Any

from tests.sdk.python.script import Answers, autumn

BASIC: dict[str, Any] = {"customer_id": "ann", "feature_id": "basic_messages"}

answers = Answers()

with autumn() as client:
    answers.keep("check", client.check(**BASIC))
    answers.keep("check_that_takes", client.check(**BASIC, send_event=True))
    answers.keep("track", client.track(**BASIC, value=1))

answers.tell()
