"""What a run came to: a table for people, and a document."""

HEAD = ("| attack | what it does | what the broker answers | memory: peak, kept MB | p99 of others: quiet, noisy ms | ratio | spread | verdict |\n"
        "|---|---|---|---|---|---|---|---|\n")
ANSWERS_SHOWN = 3


def row(result):
    answers = "; ".join(f"{name} × {count:,}" for name, count in list(result["answers"].items())[:ANSWERS_SHOWN])
    memory = f"{result['peak_mb']:.1f}, {result['kept_mb']:.1f}" if "peak_mb" in result else ""
    delivery, acknowledgement = result.get("delivery", {}), result.get("acknowledgement", {})
    latency = f"{figure(delivery, 'quiet')}, {figure(delivery, 'noisy')} · {figure(acknowledgement, 'quiet')}, {figure(acknowledgement, 'noisy')}"
    ratio = f"{figure(delivery, 'ratio')} · {figure(acknowledgement, 'ratio')}"
    spread = f"{delivery.get('spread', 0):.0f} % · {acknowledgement.get('spread', 0):.0f} %"
    return f"| {result['name']} | {result['does']} | {answers or 'takes it'} | {memory} | {latency} | {ratio} | {spread} | {result['verdict']} |\n"


def figure(latency, name):
    return f"{latency[name]:.3g}" if name in latency else "–"


def table(results):
    return HEAD + "".join(map(row, results))


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
    moved = [result[which].get("moved") for which in ("delivery", "acknowledgement")]
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
