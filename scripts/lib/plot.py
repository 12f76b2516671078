"""Line charts as SVG, with nothing but the standard library."""
from html import escape

COLORS = ["#d62728", "#1f77b4", "#2ca02c", "#ff7f0e", "#9467bd", "#8c564b"]
PANEL_WIDTH, PANEL_HEIGHT = 420, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 16, 44, 46
LEGEND = 34
FONT = "font-family='sans-serif' font-size='12'"


def nice_ticks(highest, wanted=5):
    """Round numbers from 0 to at least `highest`."""
    step = 1e-6
    while True:
        for factor in (1, 2, 5):
            if highest <= step * factor * wanted:
                return [step * factor * i for i in range(wanted + 1) if step * factor * (i - 1) < highest]
        step *= 10


def text(x, y, words, anchor="middle", extra=""):
    return f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}' {extra}>{escape(words)}</text>"


def line(x1, y1, x2, y2, color, width=1.0):
    return f"<line x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}' stroke='{color}' stroke-width='{width}'/>"


class Panel:
    """One chart: positions are the x values in order, at equal distances (depths grow by factors)."""

    def __init__(self, left, title, x_label, xs, highest):
        self.left, self.title, self.x_label, self.xs = left, title, x_label, xs
        self.ticks = nice_ticks(highest)
        self.width = PANEL_WIDTH - LEFT - RIGHT
        self.height = PANEL_HEIGHT - TOP - BOTTOM

    def x(self, value):
        steps = max(1, len(self.xs) - 1)
        return self.left + LEFT + self.width * (self.xs.index(value) + (len(self.xs) == 1) / 2) / steps

    def y(self, value):
        return TOP + self.height * (1 - value / self.ticks[-1])

    def frame(self):
        right = self.left + LEFT + self.width
        yield text((self.left + LEFT + right) / 2, TOP - 16, self.title, extra="font-weight='bold'")
        for tick in self.ticks:
            yield line(self.left + LEFT, self.y(tick), right, self.y(tick), "#ddd")
            yield text(self.left + LEFT - 6, self.y(tick) + 4, f"{tick:g}", "end")
        for value in self.xs:
            yield text(self.x(value), TOP + self.height + 18, str(value))
        yield text((self.left + LEFT + right) / 2, TOP + self.height + 38, self.x_label)

    def series(self, points, color):
        """points: {x: (low, middle, high)}."""
        path = " ".join(f"{self.x(x):.1f},{self.y(points[x][1]):.1f}" for x in self.xs if x in points)
        yield f"<polyline points='{path}' fill='none' stroke='{color}' stroke-width='2'/>"
        for x in self.xs:
            if x in points:
                low, middle, high = points[x]
                yield line(self.x(x), self.y(low), self.x(x), self.y(high), color, 1.5)
                yield f"<circle cx='{self.x(x):.1f}' cy='{self.y(middle):.1f}' r='3.5' fill='{color}'/>"


def legend(names, width):
    step = width / len(names)
    for i, name in enumerate(names):
        x, y = step * i + 24, PANEL_HEIGHT + 16
        yield line(x, y, x + 24, y, COLORS[i % len(COLORS)], 2)
        yield text(x + 30, y + 4, name, "start")


def chart(panels, names, x_label):
    """panels: [(title, {name: {x: (low, middle, high)}})], one beside the other; the SVG's text."""
    width, height = PANEL_WIDTH * len(panels), PANEL_HEIGHT + LEGEND
    parts = [f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' width='{width}' {FONT}>"]
    parts.append(f"<rect width='{width}' height='{height}' fill='white'/>")
    for i, (title, series) in enumerate(panels):
        xs = sorted({x for points in series.values() for x in points})
        highest = max(point[2] for points in series.values() for point in points.values())
        panel = Panel(i * PANEL_WIDTH, title, x_label, xs, highest)
        parts.extend(panel.frame())
        for j, name in enumerate(names):
            if name in series:
                parts.extend(panel.series(series[name], COLORS[j % len(COLORS)]))
    parts.extend(legend(names, width))
    return "\n".join([*parts, "</svg>", ""])
