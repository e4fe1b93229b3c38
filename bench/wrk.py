"""wrk as the load client, where it is installed: it takes less of the machine than ours. It has no open loop."""

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from bench.cpu import Meter, holders
from bench.samples import Sample

PROGRAM = shutil.which("wrk")
SAID = "BENCH "
LONGEST_S = 60
STOP_S = 30.0

# The requests go in front of it, as a table.
SCRIPT = """
local at = 0
function request()
  at = at % #requests + 1
  return requests[at]
end
function done(summary, latency, _)
  local errors, form = summary.errors, '%s{"requests":%d,"us":%d,"p50":%f,"p99":%f,"p999":%f,'
  print(string.format(form .. '"status":%d,"connect":%d,"read":%d,"write":%d,"timeout":%d}', 'BENCH ',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency:percentile(99.9),
    errors.status, errors.connect, errors.read, errors.write, errors.timeout))
end
"""


def run(port: int, payloads: str, connections: int, seconds: float, watch: Mapping[str, int]) -> Sample:
    """Load a server for a whole number of seconds, as wrk knows no other; opening the connections is counted."""
    assert PROGRAM is not None
    command = [
        PROGRAM,
        "-t1",
        f"-c{connections}",
        f"-d{max(1, round(seconds))}s",
        "-s",
        str(_script(payloads)),
    ]
    meters = {name: Meter(pid) for name, pid in watch.items()}
    process = subprocess.Popen([*command, f"http://127.0.0.1:{port}/"], stdout=subprocess.PIPE, text=True)
    time.sleep(seconds / 2)
    workers = {name: holders(pid, port) or None for name, pid in watch.items()}
    time.sleep(seconds / 2)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=STOP_S)
    spent = {name: meter.spent(workers[name]) for name, meter in meters.items()}
    said = json.loads(next(line for line in out.splitlines() if line.startswith(SAID)).removeprefix(SAID))
    failed = {why: said[why] for why in ("status", "connect", "read", "write", "timeout") if said[why]}
    return Sample(
        answers=said["requests"] - said["status"],
        seconds=said["us"] / 1e6,
        latency_ms={name: said[name] / 1000 for name in ("p50", "p99", "p999")},
        spent=spent,
        failed=failed,
    )


def _script(payloads: str) -> Path:
    """Return the file of the script for these requests, which are ASCII, where JSON's text is Lua's."""
    path = Path(f"{payloads}.lua")
    if not path.exists():
        requests: list[bytes] = msgspec.msgpack.decode(Path(payloads).read_bytes(), type=list[bytes])
        texts = ",\n".join(json.dumps(request.decode()) for request in requests)
        path.write_text(f"requests = {{\n{texts}\n}}\n{SCRIPT}")
    return path
