"""What `pip install creditgate` gives is complete, without a checkout beside it.

In a checkout the Lua scripts are read from `lua/`, so every other test passes even when the package has lost
them.
"""

import json
import re
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).parents[1]
INCLUDE_DIRECTIVE = re.compile(r"^\s*---\s*@include\b", re.MULTILINE)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

# Runs inside the fresh environment.
REPORT = """
import json, pathlib, creditgate
from creditgate.balances.scripts import load_source, script_names
from creditgate.engine import demo
package = pathlib.Path(creditgate.__file__).parent
print(json.dumps({
    "package": str(package),
    "files": [str(path.relative_to(package)) for path in package.rglob("*") if path.is_file()],
    "demo": [plan.id for plan in demo.tutorial().plans],
    "sources": {name: load_source(name) for name in script_names()},
}))
"""


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command[:4]} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the built wheel in it, and nothing of the checkout."""
    root = tmp_path_factory.mktemp("wheel")
    environment = root / "environment"
    python = environment / "bin" / "python"
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=root)

    # Without --wheel, the sdist is made first and the wheel out of it: so both are known to be complete.
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", root, CHECKOUT, cwd=root)
    (wheel,) = root.glob("*.whl")
    install = ["install", "--no-deps", "--no-index", str(wheel)]
    run(sys.executable, "-m", "pip", "--python", python, *install, cwd=root)

    # The dependencies are borrowed from the environment that runs the tests. A folder named in a .pth file joins
    # sys.path, but the .pth files inside it, one of which leads to the checkout, are not read.
    (site_packages,) = environment.glob("lib/python*/site-packages")
    folders = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site_packages / "borrowed.pth").write_text("\n".join(folders) + "\n")
    return environment


@pytest.fixture(scope="module")
def report(environment: Path) -> dict[str, Any]:
    """What a program in the fresh environment sees of the package, from a folder outside the checkout."""
    # -I: neither PYTHONPATH nor the current folder can lead back to the checkout.
    output = run(environment / "bin" / "python", "-I", "-c", REPORT, cwd=environment)
    seen: dict[str, Any] = json.loads(output)
    return seen


def test_the_installed_package_is_the_one_imported(environment: Path, report: dict[str, Any]) -> None:
    """An installed creditgate never reads code from a checkout that happens to be on the machine."""
    assert Path(report["package"]).is_relative_to(environment.resolve())


def test_the_wheel_carries_everything(report: dict[str, Any]) -> None:
    """No page, style, migration, licence or `py.typed` is lost on the way into the wheel."""
    package = CHECKOUT / "src" / "creditgate"
    files = {str(path.relative_to(package)) for path in package.rglob("*") if path.is_file()}
    wanted = {name for name in files if "__pycache__" not in name}
    assert {"py.typed", "api/templates/docs.html", "api/vendor/redoc.LICENSE"} <= wanted
    assert wanted - set(report["files"]) == set()


def test_the_wheel_has_the_demo(report: dict[str, Any]) -> None:
    """`serve --demo` finds its catalog file in the package."""
    assert report["demo"] == ["free", "pro", "top_up"]


def test_the_wheel_loads_every_script(report: dict[str, Any]) -> None:
    """A sidecar installed from the wheel finds every Lua script, whole; without them it decides nothing."""
    scripts = sorted(path.stem for path in (CHECKOUT / "lua").glob("*.lua"))
    assert scripts
    assert sorted(report["sources"]) == scripts
    for name, source in report["sources"].items():
        assert source.strip(), f"{name} is empty"
        assert not INCLUDE_DIRECTIVE.search(source), f"{name} still has an include to resolve"
