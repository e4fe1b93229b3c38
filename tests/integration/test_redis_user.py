"""The Redis user that `creditgate doctor` prints: enough for all that a sidecar does, and no more than it uses."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from creditgate.engine.permissions import COMMANDS, IN_A_CLUSTER
from tests.balances.valkey_process import ValkeyProcess
from tests.sidecar_process import SidecarProcess, run, wait_until

# Asked by libraries at their own discretion, or only where something else went wrong first: a server that lost its
# scripts, a key that two processes put back at the same time, a URL that names another database.
SELDOM = {"eval", "unwatch", "select", "client|setinfo", "hello"}


@pytest.fixture
def valkey() -> Iterator[ValkeyProcess]:
    """A server that is shared with others."""
    server = ValkeyProcess()
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def admin(valkey: ValkeyProcess) -> Iterator["redis.Redis"]:
    with valkey.client() as client:
        yield client


def denied(admin: "redis.Redis") -> Any:
    """Return what the server refused to anybody for lack of rights."""
    return [(entry["username"], entry["object"]) for entry in admin.acl_log()]


def use(sidecar: SidecarProcess) -> None:
    """Make calls of every kind that reaches Redis in a way of its own."""
    customer = {"customer_id": "user_123"}
    usage = customer | {"feature_id": "basic_messages"}
    sidecar.ask("customers.get_or_create", customer)
    sidecar.ask("balances.check", usage)
    sidecar.ask("balances.track", usage | {"value": 2})
    assert sidecar.call("balances.track", usage, headers={"Idempotency-Key": "once"}).status_code == 200
    sidecar.ask("balances.track", usage | {"lock": {"lock_id": "l1"}})
    sidecar.ask("balances.progress", {"lock_id": "l1", "used": 0.5})
    sidecar.ask("balances.finalize", {"lock_id": "l1", "action": "confirm"})
    sidecar.ask("balances.create", usage | {"included_grant": 5})
    assert sidecar.call("balances.batch_track", [usage | {"value": 1}]).status_code < 300
    sidecar.ask("events.list", customer)
    sidecar.ask("customers.list", {})
    sidecar.ask("customers.get_or_create", {"customer_id": "gone"})
    sidecar.ask("customers.delete", {"customer_id": "gone"})


def test_the_user_that_the_doctor_prints_is_enough_and_no_more(
    valkey: ValkeyProcess, admin: "redis.Redis", tmp_path: Path
) -> None:
    """A thief of a shared server's password for credits reaches nothing else; and creditgate lacks nothing."""
    data = ["--database", f"sqlite:///{tmp_path / 'ledger.db'}", "--data-dir", str(tmp_path)]
    assert run("init", "--redis", valkey.url, *data).returncode == 0
    said = run("doctor", "--redis", valkey.url, *data).stdout
    line = said[said.index("ACL SETUSER") :].splitlines()[0].replace(">PASSWORD", ">kept-secret")
    admin.flushall()
    admin.config_resetstat()
    admin.set("others", "x")
    admin.execute_command(*line.split())  # type: ignore[no-untyped-call]
    servers = ["--redis", f"unix://creditgate:kept-secret@{valkey.socket}", *data]

    sidecar = SidecarProcess(directory=tmp_path, arguments=[*servers[:4], "--demo"])
    try:
        sidecar.start()
        use(sidecar)
        assert run("key", "create", "--name", "x", "--scope", "read", *servers).returncode == 0
        wait_until(lambda: "cmdstat_hexists" in admin.info("commandstats"), what="the batch is worked off")
        assert sidecar.stop() == 0
        stats = admin.info("commandstats")
        admin.flushdb()
        for command in (["rebuild"], ["verify"], ["rebuild", "--partitions", "3"], ["verify"], ["doctor"]):
            ended = run(*command, *servers)
            assert ended.returncode == 0, ended.stdout + ended.stderr
            assert "kept-secret" not in ended.stdout + ended.stderr
        sidecar.start()
        sidecar.ask("customers.get", {"customer_id": "user_123"})
        sidecar.kill()
    finally:
        sidecar.close()
    assert denied(admin) == []
    assert "kept-secret" not in (tmp_path / "log").read_text()

    called = {
        command.lower()
        for script in Path("lua").rglob("*.lua")
        for command in re.findall(r"redis\.call\('([A-Z]+)'", script.read_text())
    }
    assert called <= {name.partition("|")[0] for name in COMMANDS}
    used = {name.removeprefix("cmdstat_") for name in stats | admin.info("commandstats")}
    assert {name for name in COMMANDS if name not in SELDOM and name not in IN_A_CLUSTER} <= used
    with redis.Redis.from_url(servers[1]) as thief:
        for stolen in (
            ("GET", "others"),
            ("KEYS", "*"),
            ("FLUSHALL",),
            ("CONFIG", "SET", "save", ""),
            ("MONITOR",),
        ):
            with pytest.raises(redis.exceptions.NoPermissionError):
                thief.execute_command(*stolen)
        with pytest.raises(redis.exceptions.ResponseError, match="permission"):
            thief.eval("return redis.call('GET', 'others')", 0)
    assert ("creditgate", "flushall") in denied(admin)  # so this log is where a right that is missing is seen
