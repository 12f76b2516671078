"""Line charts and scatter plots with Matplotlib."""
import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot  # noqa: E402

# The same picture from the same numbers: no date, no random names of elements.
matplotlib.rcParams["svg.hashsalt"] = "turboquant"


def save(figure, path):
    figure.savefig(path, format="svg", metadata={"Date": None})
    pyplot.close(figure)


def lines(path, panels, names, x_label):
    """panels: [(title, {name: {x: (low, middle, high)}})], one beside the other; x values stand at equal distances."""
    figure, axes = pyplot.subplots(1, len(panels), figsize=(5 * len(panels), 4), layout="constrained", squeeze=False)
    for axis, (title, series) in zip(axes[0], panels, strict=True):
        xs = sorted({x for points in series.values() for x in points})
        for name in (name for name in names if name in series):
            points = [(i, *series[name][x]) for i, x in enumerate(xs) if x in series[name]]
            at, low, middle, high = zip(*points, strict=True)
            below = [m - l for m, l in zip(middle, low, strict=True)]
            above = [h - m for m, h in zip(middle, high, strict=True)]
            axis.errorbar(at, middle, yerr=[below, above], marker="o", markersize=4, capsize=2, label=name)
        axis.set(title=title, xlabel=x_label, xticks=range(len(xs)), xticklabels=[str(x) for x in xs])
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.4)
    axes[0][0].legend()
    save(figure, path)


def quality(path, caches):
    """caches: of `tq eval --json`. Mean divergence over bits, logarithmic; f16 and its like would squeeze the rest."""
    figure, axis = pyplot.subplots(figsize=(8, 5), layout="constrained")
    for system, color in (("turboquant", "tab:green"), ("llama.cpp", "tab:red")):
        shown = [c for c in caches if c["system"] == system and c["bits_per_value"] <= 12 and c["mean_kld"]["value"] > 0]
        axis.scatter([c["bits_per_value"] for c in shown], [c["mean_kld"]["value"] for c in shown], color=color, label=system)
        for c in shown:
            axis.annotate(c["cache"], (c["bits_per_value"], c["mean_kld"]["value"]), xytext=(5, 3), textcoords="offset points", fontsize=7)
    axis.set(xlabel="bits per value, everything counted", ylabel="mean KLD against f16", yscale="log")
    axis.grid(alpha=0.4)
    axis.legend()
    save(figure, path)
