"""Reading /metrics as Prometheus does."""

from collections.abc import Iterable
from typing import NamedTuple

import httpx
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from tests.sidecar_process import SidecarProcess

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
SCRAPE_SECONDS_MAX = 10.0  # Prometheus's own default


class Page(NamedTuple):
    """One scrape: the families by name."""

    families: dict[str, Metric]

    def value(self, sample: str, **labels: str) -> float | None:
        """Return the value of one sample, None where it is not there."""
        return next(
            (
                found.value
                for family in self.families.values()
                for found in family.samples
                if found.name == sample and found.labels == labels
            ),
            None,
        )

    def labels(self) -> Iterable[tuple[str, str]]:
        """Yield every label of every sample."""
        for family in self.families.values():
            for sample in family.samples:
                yield from sample.labels.items()


def scrape(sidecar: SidecarProcess, accept: str = "text/plain") -> Page:
    """Return what /metrics says now."""
    answer = httpx.get(f"{sidecar.url}/metrics", headers={"Accept": accept}, timeout=SCRAPE_SECONDS_MAX)
    assert answer.status_code == 200, answer.text
    return page_of(answer)


def page_of(answer: httpx.Response) -> Page:
    """Return an answer, read by the format that its content type names."""
    is_openmetrics = answer.headers["Content-Type"].startswith("application/openmetrics-text")
    parse = parse_openmetrics if is_openmetrics else parse_text
    return Page({family.name: family for family in parse(answer.text)})
