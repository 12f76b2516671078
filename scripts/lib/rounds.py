"""What rounds of measurements say: medians, spreads, ratios within a round, and whether the machine was quiet enough."""
import statistics

# Other processes took so large a part of the cores in some round: what was measured there is theirs, too.
BUSY_SHARE = 0.1
# (highest - lowest) / median of one figure's rounds beyond which a difference of some ten percent means nothing.
WIDE_SPREAD = 0.25


def spread(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "rounds": list(values)}


def ratio(values, others):
    """values / others, round by round: what disturbs a round disturbs both. The lists are in the order of the rounds."""
    return spread([value / other for value, other in zip(values, others, strict=True)])


def machine_summary(machines):
    """machines: the "machine" of each measurement (see lib/measure), in the order of time."""
    known = [m["others_cores"] for m in machines if m["others_cores"] is not None]
    return {
        "cores": machines[0]["cores"],
        "others_cores": spread(known) if known else None,
        "load_before": machines[0]["load_before"],
        "load_after": machines[-1]["load_after"],
    }


def doubts(summary, spreads):
    """Why the figures can't be trusted, as sentences; empty: they can. spreads: {what: spread}."""
    said = []
    others, cores = summary["others_cores"], summary["cores"]
    if others is None:
        said.append("this system does not say what other processes took meanwhile")
    elif others["max"] > BUSY_SHARE * cores:
        said.append(f"other processes took up to {others['max']:.2f} of {cores} cores in a round")
    for what, each in spreads.items():
        share = (each["max"] - each["min"]) / each["median"]
        if share > WIDE_SPREAD:
            said.append(f"{what}: rounds differ by {100 * share:.0f} % of the median")
    return said
