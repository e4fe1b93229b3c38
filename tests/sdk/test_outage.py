"""The official clients fail open: to them, an error of the server means "allowed". Ours must not look like one."""

import sys

import pytest

from tests.sdk.clients import Answers

pytestmark = [
    pytest.mark.timeout(300),  # the first run installs the clients
    pytest.mark.skipif(sys.platform != "linux", reason="the embedded server is found through /proc"),
]


@pytest.mark.parametrize("call", ["check", "check_that_takes"])
def test_a_check_that_cannot_be_decided_is_not_allowed(outage: Answers, call: str) -> None:
    """While Redis does not answer, nobody gets for free what credits pay for."""
    assert not outage[call]["allowed"]
    assert outage[call]["customer_id"] == "ann"  # the sidecar's answer, not one that the client made up
    assert outage[call]["balance"] is None


def test_a_track_that_cannot_be_decided_is_kept(outage: Answers) -> None:
    """The clients read the answer to a use that is posted later: what was tracked, and no balance."""
    assert outage["track"]["value"] == 1
    assert outage["track"]["customer_id"] == "ann"
    assert outage["track"]["balance"] is None
