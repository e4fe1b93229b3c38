"""`creditgate serve --unix-socket`: who may connect, and what a start does with what is at the path."""

import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.sidecar_process import SidecarProcess, run


@pytest.fixture
def directory() -> Iterator[Path]:
    """A short path: that of a unix socket has a hundred bytes."""
    with tempfile.TemporaryDirectory(prefix="cgu") as path:
        yield Path(path)


@pytest.fixture
def sidecar(directory: Path) -> Iterator[SidecarProcess]:
    """A sidecar that is to listen on `gate.sock`, not started yet."""
    process = SidecarProcess(arguments=["--unix-socket", str(directory / "gate.sock")])
    try:
        yield process
    finally:
        process.close()


def test_it_answers_its_owner_alone_and_tidies_up(sidecar: SidecarProcess, directory: Path) -> None:
    """No other user of the machine may take credits, whatever the umask; what is stopped leaves nothing behind."""
    path = directory / "gate.sock"
    before = os.umask(0)
    try:
        sidecar.start()
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for url, transport in ((sidecar.url, None), ("http://localhost", httpx.HTTPTransport(uds=str(path)))):
        with httpx.Client(base_url=url, transport=transport, headers=sidecar.headers) as client:
            assert client.post("/v1/features.list", json={}).status_code == 200
            assert client.get("/readyz").status_code == 200
            assert client.post("/v1/features.list", headers={"Authorization": "no"}).status_code == 401
    assert sidecar.stop() == 0
    assert not path.exists()


def test_what_a_killed_sidecar_left_behind_is_replaced(sidecar: SidecarProcess, directory: Path) -> None:
    """A sidecar that comes back after a crash needs nobody to remove a file first."""
    sidecar.start()
    sidecar.kill()
    path = directory / "gate.sock"
    assert path.is_socket()
    sidecar.start()
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
        assert client.get("http://localhost/healthz").status_code == 200


def test_what_is_in_use_is_left_alone(directory: Path) -> None:
    """Another program's socket or file is neither replaced nor removed; one sentence says so."""
    taken, file = directory / "taken.sock", directory / "file"
    file.write_text("keep me")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(taken))
        other.listen()
        for path in (taken, file, directory / "no" / "such" / "folder", directory / ("long" * 40)):
            data = directory / "data"
            ended = run("serve", "--port", "0", "--data-dir", str(data), "--unix-socket", str(path))
            assert ended.returncode == 1
            assert ended.stderr.startswith(f"creditgate: Cannot listen on {path}: "), ended.stderr
            assert ended.stderr.count("\n") == 1
            assert not data.exists()
    assert taken.is_socket()
    assert file.read_text() == "keep me"


def test_other_machines_are_let_in_only_where_that_was_said(directory: Path) -> None:
    """A typo in an address must not put the keys of all customers on a network in clear text."""
    for host in ("0.0.0.0", "::", "192.0.2.1", "gate.example"):
        ended = run("serve", "--host", host, "--port", "0", "--data-dir", str(directory / "data"))
        assert ended.returncode == 1
        assert ended.stderr.startswith(f"creditgate: --host {host}: other machines could connect"), (
            ended.stderr
        )
        assert not (directory / "data").exists()
    process = SidecarProcess(arguments=["--host", "0.0.0.0", "--open-to-network"])
    try:
        url = process.start().url.replace("0.0.0.0", "127.0.0.1")
        assert httpx.get(f"{url}/healthz").status_code == 200
    finally:
        process.close()
