"""The command line. A setting is the flag, else the environment (CREDITGATE_PORT), else the file, else the default."""

import gc
import sys
from pathlib import Path

import cyclopts
from cyclopts import CycloptsError
from cyclopts.config import Env, Toml

from creditgate import __version__
from creditgate.commands.catalog import apply
from creditgate.commands.data import backup, init, move, prune, rebuild, restore
from creditgate.commands.imports import import_app
from creditgate.commands.inspection import doctor, statement, verify
from creditgate.commands.keys import key_app
from creditgate.commands.serve import serve
from creditgate.telemetry import configure_logging
from creditgate.terminal import fail

CONFIG_FILE = Path("creditgate.toml")

app = cyclopts.App(
    name="creditgate",
    help="A metering sidecar: checks and takes credits in one atomic Redis call, and keeps every change in SQL.",
    version=__version__,
)
for command in (serve, init, apply, statement, verify, rebuild, backup, restore, move, prune, doctor):
    app.command(command)
for group in (import_app, key_app):
    app.command(group)


def main() -> None:
    """Run the command line; an error is one sentence on stderr and exit code 1."""
    configure_logging()
    file = _config_file(sys.argv[1:])
    app.config = [Env("CREDITGATE_", command=False), *([file] if file else [])]
    try:
        app(_without_config(sys.argv[1:]))
    finally:
        gc.freeze()  # else Python looks through all that was imported for garbage once more: a quarter of a second


def _config_file(arguments: list[str]) -> Toml | None:
    """Return the file named by --config, which must be there, or the one in this folder if it is there."""
    is_named = "--config" in arguments[:-1]
    path = Path(arguments[arguments.index("--config") + 1]) if is_named else CONFIG_FILE
    if not is_named and not path.exists():
        return None
    # One file serves all commands: `verify` passes over the port. What no command has is misspelled.
    file = Toml(path, use_commands_as_keys=False, must_exist=True, allow_unknown=True)
    try:
        unknown = [key for key in file.config if key.replace("-", "_") not in _setting_names()]
    except (OSError, CycloptsError) as error:
        fail(f"{path}: {getattr(error, 'strerror', None) or error}")
    if unknown:
        fail(f"{path}: there is no setting {unknown[0]}; `creditgate serve --help` names them all.")
    return file


def _setting_names() -> set[str]:
    commands = (app[name] for name in app if app[name].default_command and not name.startswith("-"))
    arguments = (argument for command in commands for argument in command.assemble_argument_collection())
    return {
        argument.name.removeprefix("--").replace("-", "_") for argument in arguments if not argument.children
    }


def _without_config(arguments: list[str]) -> list[str]:
    if "--config" not in arguments[:-1]:
        return arguments
    at = arguments.index("--config")
    return arguments[:at] + arguments[at + 2 :]
