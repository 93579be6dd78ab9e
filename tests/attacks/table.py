"""What a run came to: a table for people, and a document."""

COLUMNS = ("attack", "what it does", "what the broker answers", "memory: peak growth, kept, MB", "p99 of others: quiet, noisy, ms", "ratio",
           "spread", "verdict")
#: Of each row with latencies, the first is of delivery and the second of acknowledgement.
BOTH = ("delivery", "acknowledgement")
ANSWERS_SHOWN = 3


def line(cells):
    return f"| {' | '.join(cells)} |\n"


def row(result):
    answers = "; ".join(f"{name} × {count:,}" for name, count in list(result["answers"].items())[:ANSWERS_SHOWN])
    memory = f"{result['peak_mb']:.1f}, {result['kept_mb']:.1f}" if "peak_mb" in result else ""
    latencies = [result.get(which, {}) for which in BOTH]
    p99 = " · ".join(f"{figure(one, 'quiet')}, {figure(one, 'noisy')}" for one in latencies)
    ratio, spread = (" · ".join(figure(one, name) for one in latencies) for name in ("ratio", "spread"))
    return line([result["name"], result["does"], answers or "takes it", memory, p99, ratio, f"{spread} %", result["verdict"]])


def figure(latency, name):
    return f"{latency[name]:.3g}" if name in latency else "–"


def table(results):
    return line(COLUMNS) + line(["---"] * len(COLUMNS)) + "".join(map(row, results))


def latency(figures, name, which):
    """Of the instrument's document: the medians, the ratio, the spread of quiet windows, and whether it moved."""
    names = {"quiet": "p99 quiet", "noisy": "p99 noisy", "ratio": "p99 ratio", "spread": "p99 by itself", "moved": "moved"}
    found = {short: figures.get(f"{name}: {which} {long}") for short, long in names.items()}
    return {short: one["value"] for short, one in found.items() if one}


def verdict(result, is_check):
    """FAILED: something is wrong. Else whether the others noticed."""
    if result["wrong"]:
        return "FAILED"
    if is_check:
        return "passed"
    moved = [result[which].get("moved") for which in BOTH]
    if any(moved):
        return "**moved**"
    # Without a figure the instrument could not tell: it was late itself.
    return "undecided" if None in moved else "held"


def summed(tallies):
    """Of all noisy windows: what the attackers counted."""
    answers = {}
    for tally in tallies:
        for name, count in ((tally["said"] or {}).get("answers") or {}).items():
            answers[name] = answers.get(name, 0) + count
    answers = dict(sorted(answers.items(), key=lambda pair: -pair[1]))
    return {"attempts": sum(tally["attempts"] for tally in tallies), "refused": sum(tally["refused"] for tally in tallies),
            "closed": sum(tally["ended"] for tally in tallies), "seconds": sum(tally["seconds"] for tally in tallies),
            "cpu_s": sum(tally["cpu_us"] for tally in tallies) / 1e6, "answers": answers}
