"""Small drawings as inline SVG. Horizontal places are percentages, so that they fit any width without distortion."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Scale:
    """A linear axis from `low` to `high`."""

    low: float
    high: float

    def at(self, value: float) -> float:
        """Place in percent, clipped to the axis."""
        share = (value - self.low) / (self.high - self.low)
        return round(100 * min(max(share, 0.0), 1.0), 3)


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers inside [low, high]."""
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(number * step, 10) for number in range(first, last + 1)]


def show_tick(value: float) -> str:
    """`20000` -> `20k`; no trailing zeros; a real minus sign."""
    if abs(value) >= 1e6:
        text = f"{value / 1e6:g}M"
    elif abs(value) >= 1e4:
        text = f"{value / 1e3:g}k"
    else:
        text = f"{value:g}"
    return text.replace("-", "−")


def interval_strip(low: float | None, value: float, high: float | None, scale: Scale, tone: str, label: str) -> Markup:
    """A dot with its interval on a line with zero marked. `tone` is a CSS class; `label` is read aloud."""
    zero = scale.at(0.0)
    parts = [Markup('<line class="zero" x1="{0}%" x2="{0}%" y1="0" y2="100%"/>').format(zero)]
    if low is not None and high is not None:
        ends = (scale.at(low), scale.at(high))
        parts.append(Markup('<line class="whisker {2}" x1="{0}%" x2="{1}%" y1="50%" y2="50%"/>').format(*ends, tone))
        parts += [Markup('<line class="cap {1}" x1="{0}%" x2="{0}%" y1="30%" y2="70%"/>').format(x, tone) for x in ends]
    parts.append(Markup('<circle class="dot {1}" cx="{0}%" cy="50%" r="4.5"/>').format(scale.at(value), tone))
    return _strip(parts, label)


def dots_strip(values: Mapping[str, float], null: float | None, scale: Scale, label: str) -> Markup:
    """One dot a model on a common line; a tick for what guessing would score. Keys become CSS classes."""
    places = {name: scale.at(value) for name, value in values.items()}
    parts = [Markup('<line class="rail" x1="0" x2="100%" y1="50%" y2="50%"/>')]
    if "base" in places and "adapted" in places:
        ends = (places["base"], places["adapted"])
        parts.append(Markup('<line class="link" x1="{0}%" x2="{1}%" y1="50%" y2="50%"/>').format(*ends))
    if null is not None:
        parts.append(Markup('<line class="null" x1="{0}%" x2="{0}%" y1="15%" y2="85%"/>').format(scale.at(null)))
    # the adapted model comes last, so that it is never hidden; a control is a ring around it where both agree
    for name in sorted(places, key=lambda name: name == "adapted"):
        circle = Markup('<circle class="dot {1}" cx="{0}%" cy="50%" r="{2}"/>')
        parts.append(circle.format(places[name], name, 7 if name == "control" else 4.5))
    return _strip(parts, label)


def _strip(parts: Sequence[Markup], label: str) -> Markup:
    return Markup('<svg class="strip" role="img" aria-label="{0}" width="100%" height="22">{1}</svg>').format(
        label, Markup("").join(parts)
    )


def axis(scale: Scale, ticks: Sequence[float], suffix: str = "") -> Markup:
    """Tick labels below a column of strips."""
    marks = [
        Markup('<span style="left:{0}%">{1}{2}</span>').format(scale.at(tick), show_tick(tick), suffix)
        for tick in ticks
    ]
    return Markup('<div class="axis">{0}</div>').format(Markup("").join(marks))


def line_chart(
    series: Mapping[str, Points], *, x_label: str, y_label: str, smooth: bool = False, mark: float | None = None
) -> Markup:
    """Lines over a common horizontal axis, with a legend; with `smooth` a running mean over the faint raw line.

    `mark` is a place on the horizontal axis that gets a dashed line.
    """
    points = [point for line in series.values() for point in line]
    if not points:
        return Markup("")
    x = Scale(min(place for place, _ in points), max(max(place for place, _ in points), 1e-9))
    lowest, highest = min(value for _, value in points), max(value for _, value in points)
    room = (highest - lowest) * 0.08 or 0.1
    y = Scale(lowest - room, highest + room)
    x_ticks, y_ticks = nice_ticks(x.low, x.high), nice_ticks(y.low, y.high, 4)
    drawn = [
        Markup('<line class="grid" x1="0" x2="100" y1="{0}" y2="{0}"/>').format(round(100 - y.at(tick), 3))
        for tick in y_ticks
    ]
    if mark is not None:
        drawn.append(Markup('<line class="mark" x1="{0}" x2="{0}" y1="0" y2="100"/>').format(x.at(mark)))
    for number, line in enumerate(series.values()):
        if smooth and len(line) > 12:
            drawn.append(_polyline(line, x, y, f"line raw s{number % 5}"))
            line = running_mean(line, max(3, len(line) // 20))
        drawn.append(_polyline(line, x, y, f"line s{number % 5}"))
    y_marks = [Markup('<span style="bottom:{0}%">{1}</span>').format(y.at(tick), show_tick(tick)) for tick in y_ticks]
    legend = [
        Markup('<li><i class="key s{0}"></i>{1}</li>').format(number % 5, name) for number, name in enumerate(series)
    ]
    return Markup(
        '<figure class="chart"><figcaption>{y_label}</figcaption><div class="plot"><div class="y">{y_marks}</div>'
        '<svg role="img" aria-label="{y_label} over {x_label}" viewBox="0 0 100 100" preserveAspectRatio="none">'
        '{drawn}</svg></div><div class="x">{x_axis}</div><p class="x-label">{x_label}</p>{legend}</figure>'
    ).format(
        y_label=y_label,
        x_label=x_label,
        y_marks=Markup("").join(y_marks),
        drawn=Markup("").join(drawn),
        x_axis=axis(x, x_ticks),
        legend=Markup('<ul class="legend">{0}</ul>').format(Markup("").join(legend)) if len(series) > 1 else "",
    )


def running_mean(points: Points, width: int) -> Points:
    """Mean over the `width` points up to and including each; shorter at the beginning."""
    found = []
    for at in range(len(points)):
        part = points[max(0, at - width + 1) : at + 1]
        found.append((points[at][0], sum(value for _, value in part) / len(part)))
    return found


def _polyline(points: Points, x: Scale, y: Scale, classes: str) -> Markup:
    text = " ".join(f"{x.at(place):g},{round(100 - y.at(value), 3):g}" for place, value in points)
    return Markup('<polyline class="{0}" points="{1}"/>').format(escape(classes), text)
