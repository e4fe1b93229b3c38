"""What a bench prints and keeps: one table, and the same as JSON with every round's figure."""

import os
import platform
import statistics
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import uvicorn

from bench import wrk
from bench.samples import Row
from bench.stage import Stage

HEAD = ("case", "figure", "ours", "beside it", "is", "ratio", "spread", "must be")


def environment(stage: Stage) -> dict[str, Any]:
    """Say what was measured with."""
    server = stage.redis.info("server")
    options = sysconfig.get_config_var("CONFIG_ARGS") or ""
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "python_build": "PGO and LTO"
        if "--enable-optimizations" in options
        else "without --enable-optimizations",
        "python_path_is_debian": sys.base_prefix == "/usr",
        "valkey": server.get("valkey_version") or server["redis_version"],
        "valkey_kind": "Valkey" if "valkey_version" in server else "Redis",
        "valkey_allocator": stage.redis.info("memory")["mem_allocator"],
        "appendfsync": "everysec",
        "uvicorn": uvicorn.__version__,
        "load_client": "wrk" if wrk.PROGRAM else "the bench's own, a process with uvloop",
        "machine": f"{_cpu()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start",
        "rounds": stage.rounds,
        "seconds_of_a_round": stage.seconds,
    }


def table(rows: Iterable[Row]) -> str:
    """Return the table as text."""
    lines = [HEAD, *(_line(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    return "\n".join(_aligned(line, widths) for line in lines)


def is_kept(row: Row) -> bool | None:
    """Say whether the ratio is what it must be, None if nothing is promised."""
    ratio = statistics.median(row.ratios)
    if row.at_most is not None:
        return ratio <= row.at_most
    return ratio >= row.at_least if row.at_least is not None else None


def as_json(said: Mapping[str, Any], rows: Sequence[Row], stage: Stage) -> bytes:
    """Return everything, with the figures of each round."""
    found = [
        {
            **msgspec.to_builtins(row),
            "ratio": statistics.median(row.ratios),
            "ratios": row.ratios,
            "kept": is_kept(row),
        }
        for row in rows
    ]
    raw = msgspec.json.encode(
        {"environment": said, "failed": stage.failed, "skipped": sorted(stage.skipped), "rows": found}
    )
    return msgspec.json.format(raw, indent=1) + b"\n"


def _line(row: Row) -> tuple[str, ...]:
    ratios = row.ratios
    must = f"<= {row.at_most:.3g}" if row.at_most is not None else ""
    must = f">= {row.at_least:.3g}" if row.at_least is not None else must
    kept = {True: "ok", False: "MISSED", None: ""}[is_kept(row)]
    return (
        row.case,
        row.figure,
        _short(statistics.median(row.ours)),
        row.beside,
        _short(statistics.median(row.theirs)),
        _short(statistics.median(ratios)),
        f"{_short(min(ratios))}-{_short(max(ratios))}",
        f"{must} {kept}".strip(),
    )


def _short(value: float) -> str:
    if value >= 1000:
        return f"{value:.0f}"
    return f"{value:.3g}"


def _aligned(line: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()


def _cpu() -> str:
    return next(_models(), platform.machine())


def _models() -> Iterator[str]:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            yield line.partition(":")[2].strip()
