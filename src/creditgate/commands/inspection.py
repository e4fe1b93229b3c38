"""The commands that look and change nothing: `statement`, `verify` and `doctor`."""

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from creditgate.commands.place import DEFAULT_PLACE, DEFAULT_SEALED, DataPlace, SealedPlace
from creditgate.core.amounts import format_amount
from creditgate.settings import Settings
from creditgate.terminal import counter, run, unix_ms

if TYPE_CHECKING:
    from creditgate.engine.statement import Line


def statement(
    customer_id: Annotated[str, Parameter(help="Whose statement.")],
    *,
    since: Annotated[
        datetime | None, Parameter(help="From when on, such as 2026-11-01 (UTC); without it, all of it.")
    ] = None,
    place: DataPlace = DEFAULT_PLACE,
) -> None:
    """Tell one customer's journal in words, with the balance after each line: where did the credits go?"""
    settings = place.settings()
    for line in run(_statement(settings, customer_id, unix_ms(since) if since else None)):
        print(line)


def verify(
    *,
    place: SealedPlace = DEFAULT_SEALED,
) -> None:
    """Prove that every balance is the sum of its history. Ends with 0 if it is, with 1 if anything differs."""
    settings = place.settings()
    if not run(_verify(settings)):
        sys.exit(1)


def doctor(
    *,
    place: DataPlace = DEFAULT_PLACE,
) -> None:
    """Look at the machine, Redis and SQL, and say what to change. Ends with 1 if anything is bad."""
    settings = place.settings()
    if not run(_doctor(settings)):
        sys.exit(1)


def line_text(line: "Line") -> str:
    """Return one line of a statement: when, what, the change, and what was left of which feature."""
    at = datetime.fromtimestamp(line.at / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    sign = "+" if line.change_nanos > 0 else ""
    change, left = sign + format_amount(line.change_nanos), format_amount(line.remaining_nanos)
    return f"{at}  {line.text:<40} {change:>16} {left:>16} {line.feature_id}"


async def _statement(settings: Settings, customer_id: str, since: int | None) -> list[str]:
    from creditgate import operations  # here, since `creditgate --help` need not load SQLAlchemy

    async with operations.open_statements(settings) as statements:
        told = await statements.of(customer_id, since=since)
    lines = [] if told.is_whole else ["(earlier lines are left out; see --since)"]
    return lines + [line_text(line) for line in told.lines]


async def _verify(settings: Settings) -> bool:
    from creditgate import operations  # here, since `creditgate --help` need not load SQLAlchemy

    with counter("customers checked") as count:
        proof, spooled = await operations.verify(settings, count)
    print(f"{proof.customers} customers, {proof.entries} entries, {proof.differences_count} differences")
    if proof.sealed_items is not None:
        since = datetime.fromtimestamp((proof.sealed_since or 0) / 1000, UTC)
        told = f"since {since:%Y-%m-%d %H:%M:%S} UTC" if proof.sealed_since else "from the start"
        print(f"{proof.sealed_items} items are sealed, {told}")
    if proof.open_batches:
        print(f"{proof.open_batches} batches of usage are still to be worked off")
    if spooled:
        print(f"{spooled} uses that were kept during an outage wait in the spool; they are in no balance yet")
    for difference in proof.differences:
        print(f"- {difference}")
    return proof.holds


async def _doctor(settings: Settings) -> bool:
    from creditgate import operations  # here, since `creditgate --help` need not load SQLAlchemy

    is_well = True
    async for level, about, text in operations.doctor(settings):
        print(f"{level:<5} {about:<12} {text}", flush=True)
        is_well = is_well and level != "bad"
    return is_well
