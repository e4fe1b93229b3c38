"""What the docs say of the code is so: tables, codes, numbers, links, the names of tests."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import cyclopts
import pytest
from prometheus_client.parser import text_string_to_metric_families

from creditgate import cli, errors
from creditgate.api import problems
from creditgate.core.decisions import Status
from creditgate.ledger.outbox import Backlog
from creditgate.telemetry.exposition import Readings, Waiting, exposed
from creditgate.telemetry.metrics import Metrics
from tests.api.routes import verbs

CHECKOUT = Path(__file__).parent.parent
SOURCES = CHECKOUT / "src" / "creditgate"
PAGES = [CHECKOUT / "README.md", CHECKOUT / "lua" / "README.md", *sorted((CHECKOUT / "docs").rglob("*.md"))]

TRACK_UNDECIDED = (429, "undecided")  # one error with a status of its own, by its route

Coded = tuple[int, str]
Kind = type[errors.CreditgateError]


def test_links_lead_to_files() -> None:
    """No link of the README or the docs is dead, neither to a file nor to a heading."""
    for page in PAGES:
        for target, heading in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", page.read_text()):
            if target.startswith("http"):
                continue
            there = page.parent / target if target else page
            assert there.exists(), f"{page.name}: {target}"
            assert not heading or heading in _anchors(there), f"{page.name}: {target}#{heading}"


def test_every_promise_names_a_test() -> None:
    """A promise that no test holds is a wish: each one names a test that is there."""
    text = (CHECKOUT / "docs" / "consistency.md").read_text()
    promises = re.findall(r"^- (.+?)(?=^- |^#|\Z)", text, re.MULTILINE | re.DOTALL)
    assert len(promises) >= 8
    for promise in promises:
        assert "`tests/" in promise, promise


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_named_tests_exist(page: Path) -> None:
    """Every test that a page names as holding what it says is there, by file and by name."""
    for file, name in re.findall(r"`(tests/[\w/.]+)(?:::(\w+))?`", page.read_text()):
        there = CHECKOUT / file
        assert there.exists(), file
        assert not name or re.search(rf"def {name}\b", there.read_text()), f"{file}::{name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_named_files_exist(page: Path) -> None:
    """Whoever follows a page into the code finds every file that it names."""
    rooms = "api|balances|core|docs|engine|ledger|lib|lua|src|telemetry"
    for name in re.findall(rf"`((?:{rooms})/[\w/.-]+)`", page.read_text()):
        assert any((root / name).exists() for root in (CHECKOUT, SOURCES, CHECKOUT / "lua")), name


def test_the_table_of_routes() -> None:
    """The HTTP API's page has a line for every verb."""
    assert {verb for verb, _ in _rows("docs/http-api.md", "Verb")} == set(verbs())


def test_the_table_of_errors() -> None:
    """Every code that a caller can get is explained under its status, and no other."""
    table = [(int(status), code) for status, code, _ in _rows("docs/http-api.md", "Status", "Code")]
    assert len(table) == len(set(table))
    assert [status for status, _ in table] == sorted(status for status, _ in table)
    assert set(table) == set(_codes()) | {TRACK_UNDECIDED}


def test_the_table_of_statuses() -> None:
    """The statuses stand in the order of their precedence, as scripts and Python have them."""
    names = [name for name, *_ in _rows("docs/http-api.md", "Status", "Means")]
    assert names == [status.name for status in sorted(Status)]
    assert re.findall(r"^  ([A-Z_]+) = -?\d+,", (CHECKOUT / "lua/lib/status.lua").read_text(), re.M) == names


def test_the_table_of_metrics() -> None:
    """Operations explains every number that /metrics gives: its kind, its labels, and what it counts."""
    page, _ = exposed(_busy(), Readings({"redis": "ok"}, 1, Waiting(3, 0.25, 2), Backlog(1, 1)), "")
    families = list(text_string_to_metric_families(page.decode()))
    shown = {
        (
            family.name + ("_total" if family.type == "counter" else ""),
            family.type,
            ", ".join(sorted({name for sample in family.samples for name in sample.labels} - {"le"})),
            family.documentation,
        )
        for family in families
    }
    assert all(name.startswith("creditgate_") for name, *_ in shown)
    assert all(family.samples for family in families), "_busy leaves a number out"
    rows = _rows("docs/operations.md", "Metric")
    assert {(name, kind, labels.replace("`", ""), meaning) for name, kind, labels, meaning in rows} == shown


def test_the_tables_of_scripts() -> None:
    """The guide to the scripts has a line for every one of them."""
    for head, pattern in (("Script", "*.lua"), ("Include", "lib/*.lua")):
        files = {str(path.relative_to(CHECKOUT / "lua")) for path in (CHECKOUT / "lua").glob(pattern)}
        assert {name for name, _ in _rows("lua/README.md", head)} == files


def test_flags_exist() -> None:
    """Every flag that a page tells of is one of the command line's."""
    flags = {"--config", "--help"} | _flags(cli.app)
    for page in PAGES:
        for code in re.findall(r"`[^`\n]*`|^```\n.*?^```$", page.read_text(), re.MULTILINE | re.DOTALL):
            if not re.search(r"\b(?:pip|npm|make|python)\b", code):
                assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", code)) <= flags, f"{page.name}: {code}"


def _flags(app: cyclopts.App) -> set[str]:
    """Return the flags of all commands of a command line, and of the commands below them."""
    arguments = app.assemble_argument_collection() if app.default_command else ()
    flags = {argument.name for argument in arguments if not argument.children}
    return flags.union(*(_flags(app[command]) for command in app if not command.startswith("-")))


def _busy() -> Metrics:
    """Numbers with one value of everything, so that all labels show."""
    metrics = Metrics()
    metrics.decisions["check", "messages", "allowed"] += 1
    metrics.decision_s["check"].add(0.001)
    metrics.taken_nanos["messages"] += 1
    metrics.given_back_nanos["messages"] += 1
    metrics.holds_settled["confirmed"] += 1
    metrics.batch_items["applied"] += 1
    metrics.verify_runs["holds"] += 1
    metrics.redis_s["check"].add(0.001)
    metrics.redis_errors["check", "TimeoutError"] += 1
    metrics.webhook_attempts["delivered"] += 1
    return metrics


def _codes() -> Iterator[Coded]:
    """Yield the status and code of every error that the API can answer, as the source has them."""
    kinds = {kind.__name__: kind for kind in _kinds(errors.CreditgateError) if _reaches_callers(kind)}
    for file in SOURCES.rglob("*.py"):
        for call in ast.walk(ast.parse(file.read_text())):
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
                continue
            literals = [part.value for part in call.args if isinstance(part, ast.Constant)]
            match call.func.id:
                case "TurnedAway" if len(literals) > 1:
                    yield literals[0], literals[1]  # type: ignore[misc]
                case "_unauthorized":
                    yield 401, str(literals[0])
                case name if name in kinds:
                    yield _coded(kinds[name], call)


def _kinds(kind: Kind) -> Iterator[Kind]:
    yield kind
    for below in kind.__subclasses__():
        yield from _kinds(below)


def _reaches_callers(kind: Kind) -> bool:
    """Whether the class has a status of its own, or one above it: the rest is about starting, or caught inside."""
    return kind is errors.CreditgateError or any(
        above in problems._STATUS for above in kind.__mro__ if above is not errors.CreditgateError
    )


def _coded(kind: Kind, call: ast.Call) -> Coded:
    said = next((ast.literal_eval(word.value) for word in call.keywords if word.arg == "code"), None)
    code: str = said or kind.code
    by_class = next(problems._STATUS[above] for above in kind.__mro__ if above in problems._STATUS)
    return problems._STATUS_OF_CODE.get(code, by_class), code


def _rows(page: str, *heads: str) -> list[tuple[str, ...]]:
    """Return the rows of the table whose first columns are called so; code is without its backticks."""
    lines = iter((CHECKOUT / page).read_text().splitlines())
    for line in lines:
        if line.startswith("| " + " | ".join(heads) + " |"):
            next(lines)
            break
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        rows.append(tuple(re.sub(r"^`([^`]*)`$", r"\1", cell) for cell in cells))
    assert rows, f"{page} has no table of {heads}"
    return rows


def _anchors(page: Path) -> set[str]:
    """The names of a page's headings, as they stand in links."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
