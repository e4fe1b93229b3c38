"""The picture of latency over rate, as SVG written by hand. Its colours are read on white and on black."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

WIDTH, HEIGHT = 720, 360
LEFT, RIGHT, TOP, BOTTOM = 64, 84, 40, 48
TEXT, LINE = "#808890", "#80889055"
COLOURS = {"p50": "#2f81f7", "p99": "#d9822b", "p999": "#d1495b"}
NAMES = {"p50": "p50", "p99": "p99", "p999": "p99.9"}
STEPS = (1, 2, 5)  # of the rates on the axis, times a power of ten


class Point(NamedTuple):
    """Latencies in ms by percentile at a rate of requests a second."""

    rate: float
    latency_ms: Mapping[str, float]


def latency_svg(points: Sequence[Point], saturation: float) -> str:
    """Return the picture: one line for each percentile, milliseconds on a logarithmic axis."""
    values = [value for point in points for value in point.latency_ms.values() if math.isfinite(value)]
    low = 10 ** math.floor(math.log10(min(values)))
    high = 10 ** math.ceil(math.log10(max(values)))
    plot = _Plot(saturation * 1.02, low, max(high, low * 10))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
            f'font-family="system-ui, sans-serif" font-size="13" fill="{TEXT}">',
            "<title>Latency of track over HTTP at fixed rates</title>",
            _text(LEFT, TOP - 18, "ms from when a request was due, by requests a second", "start"),
            *plot.axes(),
            *(part for name in COLOURS for part in plot.line(name, points)),
            "</svg>\n",
        ]
    )


class _Plot(NamedTuple):
    rate_max: float
    low: float
    high: float

    def x(self, rate: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * rate / self.rate_max

    def y(self, ms: float) -> float:
        part = math.log(min(max(ms, self.low), self.high) / self.low) / math.log(self.high / self.low)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * part

    def axes(self) -> Iterator[str]:
        ms = self.low
        while ms <= self.high * 1.001:
            y = self.y(ms)
            yield f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="{LINE}"/>'
            yield _text(LEFT - 8, y + 4, f"{ms:g}", "end")
            ms *= 10
        step = next(
            step * 10**power
            for power in range(7)
            for step in STEPS
            if self.rate_max / (step * 10**power) <= 8
        )
        for number in range(int(self.rate_max / step) + 1):
            yield _text(self.x(number * step), HEIGHT - BOTTOM + 20, f"{number * step:,}", "middle")

    def line(self, name: str, points: Sequence[Point]) -> Iterator[str]:
        places = [
            (self.x(point.rate), self.y(point.latency_ms[name]))
            for point in points
            if math.isfinite(point.latency_ms[name])
        ]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        yield f'<polyline points="{path}" fill="none" stroke="{COLOURS[name]}" stroke-width="2"/>'
        for x, y in places:
            yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{COLOURS[name]}"/>'
        if places:
            x, y = places[-1]
            yield _text(x + 10, y + 4, NAMES[name], "start", COLOURS[name])


def _text(x: float, y: float, text: str, anchor: str, colour: str = TEXT) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{text}</text>'
