"""A running sidecar, called through the official Python client as it was published, in a process of its own."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal

from tests.conformance.drivers.protocol import Answer, Call
from tests.sdk.clients import CHECKOUT, PythonClient
from tests.sidecar_process import STOP_SECONDS_MAX, SidecarProcess

CLIENT = PythonClient("1.2.0")


class OverHttp:
    """A driver of one sidecar. `made_by` counts the calls that the client made, and those that it cannot make."""

    def __init__(self, sidecar: SidecarProcess) -> None:
        CLIENT.install()
        self.made_by: Counter[str] = Counter()
        self._agent = subprocess.Popen(
            # -S: without the packages of the environment that runs the tests.
            [sys.executable, "-S", "-m", "tests.sdk.python.agent"],
            cwd=CHECKOUT,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(CLIENT.folder),
                "CREDITGATE_URL": sidecar.url,
                "CREDITGATE_SECRET_KEY": sidecar.key,
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    async def together(self, calls: Sequence[Call]) -> list[Answer]:
        assert self._agent.stdin is not None
        assert self._agent.stdout is not None
        self._agent.stdin.write(json.dumps([call._asdict() for call in calls]) + "\n")
        self._agent.stdin.flush()
        answers = json.loads(self._agent.stdout.readline(), parse_float=Decimal)
        self.made_by.update(answer["by"] for answer in answers)
        return [Answer(answer["status"], answer["body"]) for answer in answers]

    def close(self) -> None:
        """End the client."""
        assert self._agent.stdin is not None
        assert self._agent.stdout is not None
        self._agent.stdin.close()
        assert self._agent.wait(STOP_SECONDS_MAX) == 0
        self._agent.stdout.close()
