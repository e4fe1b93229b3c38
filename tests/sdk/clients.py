"""The official clients, each installed from its pins into a folder of its own, and how their scripts are run.

They stay out of our environment: a script sees its client, what that needs, and nothing else. New pins are made so:

    echo autumn-sdk==1.2.0 | pip-compile --generate-hashes --strip-extras --no-header --no-emit-index-url \
        --no-emit-find-links --output-file tests/sdk/requirements-1.2.0.txt -
    cd tests/sdk/js && npm install --package-lock-only --omit-lockfile-registry-resolved
"""

import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.sidecar_process import SidecarProcess

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[1]
INSTALLED = CHECKOUT / ".build" / "sdk"

INSTALL_SECONDS_MAX = 150.0
SCRIPT_SECONDS_MAX = 60.0
OLDEST_NODE = 18

Answers = Mapping[str, Any]
"""What a script was answered, by the names it gave; the names of fields are those of the wire."""


class Client(Protocol):
    """One published release of an official client."""

    def install(self) -> None:
        """Install it unless it is there; skips the test if it cannot run here."""

    def run(self, script: str, sidecar: SidecarProcess) -> Answers:
        """Run a script with it."""


class PythonClient:
    """A version of autumn-sdk."""

    def __init__(self, version: str) -> None:
        self._name = f"autumn-sdk-{version}"
        self._pins = HERE / f"requirements-{version}.txt"
        self.folder = INSTALLED / self._name

    def __str__(self) -> str:
        return self._name

    def install(self) -> None:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        command += ["--require-hashes", "--no-deps", "--target", str(self.folder), "-r", str(self._pins)]
        wanted = f"{sys.version}\n{self._pins.read_text()}"
        _install_once(self.folder, wanted, lambda: _run_installer(command, CHECKOUT))

    def run(self, script: str, sidecar: SidecarProcess) -> Answers:
        # -S: without the packages of the environment that runs the tests.
        command = [sys.executable, "-S", "-m", f"tests.sdk.python.{script}"]
        return _run(command, CHECKOUT, sidecar, PYTHONPATH=str(self.folder))


class JavaScriptClient:
    """A version of autumn-js, with what the scripts of its folder try it with."""

    def __init__(self, scripts: str) -> None:
        self._scripts = HERE / scripts
        version = json.loads((self._scripts / "package.json").read_text())["dependencies"]["autumn-js"]
        self._name = f"autumn-js-{version}"
        self._folder = INSTALLED / self._name

    def __str__(self) -> str:
        return self._name

    def install(self) -> None:
        _need_node()
        _install_once(self._folder, (self._scripts / "package-lock.json").read_text(), self._npm_install)

    def run(self, script: str, sidecar: SidecarProcess) -> Answers:
        # Node looks for packages beside a script, so the script goes to a place where they are.
        with tempfile.TemporaryDirectory(prefix="cgjs") as temporary:
            folder = Path(temporary) / "js"
            shutil.copytree(self._scripts, folder)
            (folder / "node_modules").symlink_to(self._folder / "node_modules")
            return _run(["node", f"{script}.mjs"], folder, sidecar)

    def _npm_install(self) -> None:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(self._scripts / name, self._folder)
        _run_installer(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], self._folder)


AUTUMN_JS = JavaScriptClient("js")
OLDER_SDK = PythonClient("1.1.0")
NEWEST = (PythonClient("1.2.0"), AUTUMN_JS)
CLIENTS = (*NEWEST, OLDER_SDK)

# What applications from before version 2.1 were built with.
LEGACY_SDK = PythonClient("0.5.0")
LEGACY_JS = JavaScriptClient("js_legacy")


def answers_of(client: Client, script: str) -> Answers:
    """Run a script against a fresh sidecar; with autumn-sdk, it finds the features there."""
    client.install()
    with _running() as sidecar:
        if client is AUTUMN_JS:
            return client.run(script, sidecar)
        # In the published 1.2.0, `client.features` raises NameError.
        OLDER_SDK.install()
        return {**OLDER_SDK.run("catalog", sidecar), **client.run(script, sidecar)}


def answers_on_demo(client: Client, script: str) -> Answers:
    """Run a script against a fresh sidecar that has the tutorial's catalog."""
    client.install()
    with _running("--demo") as sidecar:
        return client.run(script, sidecar)


def answers_without_redis(client: Client, script: str) -> Answers:
    """Run a script for the customer `ann`, whom the sidecar knows, while its Redis does not answer."""
    client.install()
    with _running("--demo") as sidecar:
        sidecar.ask("customers.get_or_create", {"customer_id": "ann"})
        redis = sidecar.valkey_pid
        os.kill(redis, signal.SIGSTOP)
        try:
            return client.run(script, sidecar)
        finally:
            os.kill(redis, signal.SIGCONT)  # else it would outlive its sidecar


@contextmanager
def _running(*arguments: str) -> Iterator[SidecarProcess]:
    sidecar = SidecarProcess(arguments=arguments)
    try:
        yield sidecar.start()
    finally:
        sidecar.close()


def _run(command: list[str], folder: Path, sidecar: SidecarProcess, **environment: str) -> Answers:
    """Run a script with nothing of our environment but the search path; its answers are the last line it prints."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            "CREDITGATE_URL": sidecar.url,
            "CREDITGATE_SECRET_KEY": sidecar.key,
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=SCRIPT_SECONDS_MAX,
        check=False,
    )
    log = (sidecar.directory / "log").read_text()
    assert done.returncode == 0, f"{done.stderr[-4000:]}\nThe sidecar's log ends:\n{log[-2000:]}"
    answers: Answers = json.loads(done.stdout.splitlines()[-1])
    return answers


def _install_once(folder: Path, wanted: str, install: Callable[[], None]) -> None:
    """Install what is wanted, unless it is there. The workers of pytest-xdist wait for one another."""
    INSTALLED.mkdir(parents=True, exist_ok=True)
    stamp, digest = folder / "installed", hashlib.sha256(wanted.encode()).hexdigest()
    with (INSTALLED / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.is_file() and stamp.read_text() == digest:
            return
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        install()
        stamp.write_text(digest)


def _run_installer(command: list[str], folder: Path) -> None:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_SECONDS_MAX, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}"


def _need_node() -> None:
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed, so autumn-js was not tried")
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(version.removeprefix("v").partition(".")[0]) < OLDEST_NODE:
        pytest.skip(f"Node.js {version} is older than {OLDEST_NODE}, so autumn-js was not tried")
