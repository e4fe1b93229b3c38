"""What docs/library.md shows runs, in its order, and prints what it shows."""

import os
import re
import subprocess
import sys
from pathlib import Path

from creditgate.client import answers
from creditgate.client.http import DEADLINE_S
from tests.sidecar_process import SidecarProcess

PAGE = (Path(__file__).parent.parent / "docs" / "library.md").read_text()
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RUN_SECONDS_MAX = 40.0

# What calls the functions that the page defines.
CALLS = {
    "charge": 'with Client("http://127.0.0.1:8787", secret_key=key) as gate:\n'
    '    assert charge(gate, "user_123", 1_000_000) == "not enough, nothing was taken"\n'
    '    assert charge(gate, "user_123", 0) == "taken"\n',
    "answer": "import asyncio\n"
    "async def run():\n"
    '    async with AsyncClient("http://127.0.0.1:8787", secret_key=key) as gate:\n'
    '        await answer(gate, "user_123")\n'
    "asyncio.run(run())\n",
    "main": "asyncio.run(main())\n",
}


def test_the_page_runs(demo: SidecarProcess) -> None:
    """Whoever pastes the blocks one after the other sees what the page says they print."""
    code, shown = "", ""
    for language, text in BLOCK.findall(PAGE):
        if language == "python":
            code += text
            code += "".join(call for name, call in CALLS.items() if f"def {name}(" in text)
        else:
            shown += text
    code = code.replace("http://127.0.0.1:8787", demo.url).replace("creditgate-data", str(demo.directory))
    ended = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=False,
        text=True,
        timeout=RUN_SECONDS_MAX,
        env=os.environ,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == shown


def test_what_is_said_is_so() -> None:
    """The deadline and the names of values are those of the code."""
    assert f"({DEADLINE_S:.0f} seconds unless" in PAGE
    for name in re.findall(r"`(Checked|Tracked|Customer)`", PAGE):
        assert hasattr(answers, name)
