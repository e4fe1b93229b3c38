"""What every script has: a client of the sidecar that the environment names, and a way to tell what it was answered."""

import json
import os
from collections.abc import Callable
from typing import Any

from autumn_sdk import Autumn  # type: ignore[import-not-found]
from autumn_sdk.errors import AutumnDefaultError  # type: ignore[import-not-found]

URL = os.environ["CREDITGATE_URL"]
SECRET_KEY = os.environ["CREDITGATE_SECRET_KEY"]


def autumn(secret_key: str = SECRET_KEY, **options: Any) -> Any:
    """Return the official client; all that is ours is the base URL."""
    return Autumn(secret_key, server_url=URL, **options)


class Answers:
    """What calls were answered, by name."""

    def __init__(self) -> None:
        self._answers: dict[str, Any] = {}

    def keep(self, name: str, answer: Any) -> Any:
        """Remember the answer to a call, and return it to be used."""
        self.note(name, answer.model_dump(mode="json", by_alias=True))
        return answer

    def refused(self, name: str, call: Callable[..., Any], /, **params: Any) -> None:
        """Make a call that must raise, and remember what an application learns of the reason."""
        try:
            call(**params)
        except AutumnDefaultError as error:
            self.note(name, {"status": error.status_code, "body": error.body})
        else:
            raise AssertionError(f"{name}: the client raised nothing")

    def note(self, name: str, value: Any) -> None:
        """Remember anything else."""
        self._answers[name] = value

    def tell(self) -> None:
        """Print it all as one line."""
        print(json.dumps(self._answers))
