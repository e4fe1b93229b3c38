"""What a sidecar writes to its log and its output, whatever goes wrong, has none of the secrets that it was given."""

from pathlib import Path
from urllib.parse import quote

import httpx

from tests.balances.valkey_process import ValkeyProcess
from tests.sidecar_process import SidecarProcess, run, wait_until

PASSWORD = "the-password-of-redis"
CUSTOMER = {"customer_id": "user_123"}
USAGE = CUSTOMER | {"feature_id": "basic_messages"}


def failing_calls(sidecar: SidecarProcess, secrets: list[str]) -> None:
    """Send keys where they are right, wrong and misplaced, and make calls that fail."""
    for secret in (*secrets, "cg_sk_test_nobody-has-this-one"):
        header = {"Authorization": f"Bearer {secret}"}
        for headers in (header, {"Authorization": secret}, {"Idempotency-Key": secret} | sidecar.headers):
            for call, body in (("balances.track", USAGE), ("nothing", {}), ("webhooks.get", {"id": secret})):
                for path in (f"{sidecar.url}/v1/{call}", f"{sidecar.url}/v1/{call}?key={quote(secret)}"):
                    assert httpx.post(path, json=body, headers=headers).status_code < 500
        assert httpx.post(f"{sidecar.url}/v1/balances.check", content=b"{", headers=header).status_code >= 400


def test_no_secret_is_in_any_log(tmp_path: Path) -> None:
    """Logs are read by more people than may take credits; a failure writes the most, so there is one of each kind."""
    valkey = ValkeyProcess()
    redis_url = f"unix://gate:{PASSWORD}@{valkey.socket}"
    servers = ["--redis", redis_url, "--database", f"sqlite:///{tmp_path / 'ledger.db'}"]
    data = [*servers, "--data-dir", str(tmp_path)]
    sidecar = SidecarProcess(directory=tmp_path, arguments=[*servers, "--demo", "--allow-private-webhooks"])
    try:
        valkey.start()
        with valkey.client() as admin:
            admin.acl_setuser(
                "gate", enabled=True, passwords=[f"+{PASSWORD}"], categories=["+@all"], keys=["*"]
            )
        sidecar.start()
        sidecar.ask("customers.get_or_create", CUSTOMER)
        hook = sidecar.ask("webhooks.create", {"id": "dead", "url": "http://127.0.0.1:9/hooks"})["secret"]
        made = run("key", "create", "--name", "x", "--scope", "read", *data)
        assert made.returncode == 0, made.stderr
        secrets = [sidecar.key, made.stdout.splitlines()[1]]
        failing_calls(sidecar, secrets)
        outputs = [run("key", "list", *data), run("doctor", *data)]
        valkey.kill()
        assert sidecar.call("balances.track", USAGE).status_code in (202, 429)
        log = tmp_path / "log"
        wait_until(lambda: "Redis" in log.read_text(), what="the outage is in the log")
        outputs += [run(command, *data) for command in ("doctor", "verify")]
        for bad in (
            f"redis://u:{PASSWORD}@[::1",
            f"redis://u:{PASSWORD}@127.0.0.1:9",
            f"nonsense:{PASSWORD}",
        ):
            outputs.append(run("verify", "--redis", bad, *data[2:]))
        for bad in (f"postgresql://u:{PASSWORD}@127.0.0.1:9/x", f"mysql://u:{PASSWORD}@h/x"):
            outputs.append(run("init", "--data-dir", str(tmp_path / "other"), "--database", bad))
        assert all(ended.returncode for ended in outputs[2:])
        sidecar.kill()
    finally:
        sidecar.close()
        valkey.close()
    written = "".join(ended.stdout + ended.stderr for ended in outputs) + (tmp_path / "log").read_text()
    assert "127.0.0.1:9" in written  # so this is where it would be
    for secret in (*secrets, hook, hook.removeprefix("whsec_"), PASSWORD, "nobody-has-this-one"):
        assert secret not in written
