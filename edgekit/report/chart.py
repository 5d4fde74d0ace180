"""Accuracy against latency as an SVG, without a script: one circle a candidate, its area the file's size.

Vertical bars are the 95 % interval of the accuracy, horizontal ones reach from p50 to p99. Time is logarithmic.
Colours are classes (`float32`, `bf16`, `float16`, `int8`) that the page's style sheet defines.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from edgekit.ledger import Final

WIDTH, HEIGHT = 860, 440
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 18, 52
RADIUS, CHARACTER = 17, 6.6  # px: of the largest file; of a letter at 12 px

Box = tuple[float, float, float, float]  # left, top, right, bottom in px


@dataclass(frozen=True)
class Scale:
    """Linear map of [low, high] to [start, end] pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def svg(finals: Sequence[Final], ship: str | None, *, limit_ms: float | None, floor: float | None) -> str:
    """Single-stream candidates of one board. limit_ms: the goal's p50. floor: the least accuracy allowed, a share.

    Returns an empty string where no candidate has both numbers.
    """
    shown = [f for f in finals if f.accuracy and f.p50.value and f.scenario == "single-stream" and f.state != "invalid"]
    if not shown:
        return ""
    x, y = _scales(shown, limit_ms, floor)
    parts = [_grid(x, y), _limits(x, y, limit_ms, floor)]
    # Large circles first, so that a small one is never hidden.
    for final in sorted(shown, key=lambda f: -f.bytes):
        parts.append(_point(final, x, y, max(f.bytes for f in shown), final.name == ship))
    parts.append(_labels(shown, x, y, ship))
    title = escape(f"Accuracy against latency of {len(shown)} candidates on {shown[0].board}")
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">{"".join(parts)}</svg>'


def _scales(shown: Sequence[Final], limit_ms: float | None, floor: float | None) -> tuple[Scale, Scale]:
    times = [ms for f in shown for ms in (f.p50.value, f.p99.value) if ms] + ([limit_ms] if limit_ms else [])
    shares = [share for f in shown if f.accuracy for share in f.accuracy.ci95] + ([floor] if floor else [])
    left, right = math.log10(min(times)), math.log10(max(times))
    margin = max(0.12, 0.12 * (right - left))
    low, high = 100 * min(shares), 100 * max(shares)
    air = max(0.2, 0.08 * (high - low))
    x = Scale(left - margin, right + margin, LEFT, WIDTH - RIGHT)
    return x, Scale(max(0.0, low - air), min(100.0 + air / 2, high + air), HEIGHT - BOTTOM, TOP)


def _grid(x: Scale, y: Scale) -> str:
    parts = []
    for ms in _log_ticks(x.low, x.high):
        at = x(math.log10(ms))
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text class="tick" x="{at:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{ms:g}</text>')
    for percent in _ticks(y.low, min(100.0, y.high)):
        at = y(percent)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{percent:g}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text class="axis" x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">p50 latency, ms (log)</text>')
    turned = f'transform="translate(16 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)"'
    return "".join(parts) + f'<text class="axis" {turned} text-anchor="middle">accuracy, %</text>'


def _limits(x: Scale, y: Scale, limit_ms: float | None, floor: float | None) -> str:
    """The goal as dashed lines: to the left of one and above the other it is met."""
    parts = []
    if limit_ms:
        at = x(math.log10(limit_ms))
        parts.append(f'<line class="limit" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text class="limit" x="{at + 5:.1f}" y="{TOP + 12}">goal p50 {limit_ms:g} ms</text>')
    if floor:
        at = y(100 * floor)
        parts.append(f'<line class="limit" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        text = f"accuracy budget {100 * floor:.2f} %"
        parts.append(f'<text class="limit" x="{WIDTH - RIGHT - 4}" y="{at + 15:.1f}" text-anchor="end">{text}</text>')
    return "".join(parts)


def _point(final: Final, x: Scale, y: Scale, largest: int, ship: bool) -> str:
    if final.accuracy is None or final.p50.value is None:
        return ""
    at_x, at_y = x(math.log10(final.p50.value)), y(100 * final.accuracy.value)
    top, bottom = y(100 * final.accuracy.ci95[1]), y(100 * final.accuracy.ci95[0])
    end = x(math.log10(final.p99.value)) if final.p99.value else at_x
    kind = escape(final.precision, quote=True)
    bars = f'<path class="bar {kind}" d="M{at_x:.1f} {top:.1f}V{bottom:.1f}M{at_x:.1f} {at_y:.1f}H{end:.1f}"/>'
    radius = max(4.0, RADIUS * math.sqrt(final.bytes / largest))
    ring = f'<circle class="ring" cx="{at_x:.1f}" cy="{at_y:.1f}" r="{radius + 4:.1f}"/>' if ship else ""
    told = f"{final.name}: {100 * final.accuracy.value:.2f} %, {final.p50.value:.3g} ms, {final.size_kb:,.1f} kB"
    circle = f'<circle class="dot {kind}" cx="{at_x:.1f}" cy="{at_y:.1f}" r="{radius:.1f}">'
    return f"{bars}{ring}{circle}<title>{escape(told)}</title></circle>"


def _labels(shown: Sequence[Final], x: Scale, y: Scale, ship: str | None) -> str:
    """Each name at the place beside its circle where it covers least; a circle or a name weighs more than a bar."""
    spots = [(x(math.log10(f.p50.value)), y(100 * f.accuracy.value), f) for f in shown if f.p50.value and f.accuracy]
    covered = [((cx - 14, cy - 14, cx + 14, cy + 14), 10.0) for cx, cy, _ in spots]
    covered += [
        ((cx - 1, y(100 * f.accuracy.ci95[1]), cx + 1, y(100 * f.accuracy.ci95[0])), 1.0)
        for cx, cy, f in spots
        if f.accuracy
    ]
    names = _short_names(shown)
    parts = []
    for cx, cy, final in sorted(spots, key=lambda spot: spot[0]):
        name = names[final.name]
        width = CHARACTER * len(name)
        left, base = _best_place(cx, cy, width, covered)
        covered.append((_box(left, base, width), 10.0))
        weight = "label ship" if final.name == ship else "label"
        parts.append(f'<text class="{weight}" x="{left:.1f}" y="{base:.1f}">{escape(name)}</text>')
    return "".join(parts)


def _short_names(shown: Sequence[Final]) -> dict[str, str]:
    """The step, and the runtime where there are several; the whole name where that does not tell two apart."""
    several = len({final.runtime for final in shown}) > 1
    short = [f"{final.step} · {final.runtime}" if several else final.step for final in shown]
    return {f.name: name if short.count(name) == 1 else f.name for f, name in zip(shown, short, strict=True)}


def _best_place(cx: float, cy: float, width: float, covered: Sequence[tuple[Box, float]]) -> tuple[float, float]:
    """Left end and base line of a label: around the circle, near before far, inside the frame."""

    def cost(place: tuple[int, tuple[float, float]]) -> float:
        order, (left, base) = place
        outside = not (LEFT < left < WIDTH - RIGHT - width and TOP + 12 < base < HEIGHT - BOTTOM)
        return 0.4 * order + 100 * outside + sum(w for box, w in covered if _overlap(_box(left, base, width), box))

    beside = [(cx + 16, cy + 4), (cx - 16 - width, cy + 4), (cx - width / 2, cy - 22), (cx - width / 2, cy + 32)]
    corners = [(cx + dx, cy + dy) for dy in (-20, 28, -36, 44) for dx in (8, -8 - width)]
    return min(enumerate([*beside, *corners]), key=cost)[1]


def _box(left: float, base: float, width: float) -> Box:
    return left, base - 11, left + width, base + 3


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 of every decade between 10^low and 10^high."""
    decades = range(math.floor(low), math.ceil(high) + 1)
    return [m * 10.0**d for d in decades for m in (1, 2, 5) if low <= math.log10(m * 10.0**d) <= high]


def _ticks(low: float, high: float) -> list[float]:
    """Four to eight round numbers between low and high."""
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough)
    return [round(k * step, 9) for k in range(math.ceil(low / step), math.floor(high / step) + 1)]
