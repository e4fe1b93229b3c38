"""`creditgate import`: take over the customers of another system."""

import sys
from typing import Annotated

import cyclopts
from cyclopts import Parameter

from creditgate.commands.place import DEFAULT_SEALED, SealedPlace
from creditgate.terminal import counter, run

import_app = cyclopts.App(name="import", help="Take over customers from another system.")


@import_app.command(name="autumn")
def import_autumn(
    *,
    url: Annotated[str, Parameter(help="Where it is, such as https://api.useautumn.com.")],
    key: Annotated[
        str, Parameter(help="Its secret key; better in the environment.", env_var="AUTUMN_SECRET_KEY")
    ],
    skip_unknown: Annotated[bool, Parameter(help="End with 0 though something could not be taken.")] = False,
    place: SealedPlace = DEFAULT_SEALED,
) -> None:
    """Take over the customers of an Autumn with what they hold there. The source decides: run it as often as needed."""
    settings = place.settings()
    from creditgate import operations  # here, since `creditgate --help` need not load SQLAlchemy

    with counter("customers read") as count:
        report = run(operations.import_autumn(settings, url, key, count))
    print(
        f"{report.customers} customers: {report.created} created, {report.corrected} corrected,"
        f" {report.unchanged} as they were"
    )
    for text, customers, first in report.lacks.values():
        named = f" ({', '.join(first)}{', …' if customers > len(first) else ''})" if first else ""
        print(f"- not taken: {text}; {customers} customers{named}")
    if report.lacks and not skip_unknown:
        sys.exit(1)
