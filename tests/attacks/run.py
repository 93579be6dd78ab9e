#!/usr/bin/env python3
"""Runs every attack of the catalogue beside well-behaved clients, and says what became of the broker and of them.

    target/clients/venv/bin/python tests/attacks/run.py --binary target/release/ironpost --bench target/release/ironpost-bench
    ... --check                  # the slice of CI: one short alternation each, one broker, no verdict on latency
    ... --only ping-flood,tls    # these attacks, or all of a family
    ... --prove                  # against brokers that are left open: do the attacks find it?

One broker for each family, a new one after an attack that leaves something behind or that failed. For each attack the instrument
(`ironpost-bench noisy-neighbour`) alternates quiet and noisy windows. Afterwards everything in `aftermath.py` has to be so, and the
books of `victims.py` have to be clean.

Exit code 0: nothing is wrong. Others whose latency moved are a finding, in the table, and not an exit code.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "clients"))

import aftermath  # noqa: E402
import catalogue  # noqa: E402
import table  # noqa: E402
from openings import openings  # noqa: E402
from target import Evidence, Target, cpus, go_first  # noqa: E402
from victims import Victims  # noqa: E402

#: Beyond what the windows take, the instrument is stuck.
INSTRUMENT_SPARE_SECONDS = 90
#: Of the slice: windows, what passes between them, and the others.
CHECK = {"--noise-seconds": "0.4", "--noise-settle-seconds": "0.1", "--noise-warm-up-seconds": "0.1", "--noise-pairs": "20",
         "--noise-rate": "500"}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True, help="ironpost")
    parser.add_argument("--bench", required=True, help="ironpost-bench")
    parser.add_argument("--only", default="", help="names of attacks or families, with commas between them; default: all")
    parser.add_argument("--alternations", type=int, default=7, help="noisy windows of each; default: %(default)s")
    parser.add_argument("--window-seconds", type=float, default=2.0, help="default: %(default)s")
    parser.add_argument("--shards", type=int, default=1, help="of the broker, all on one CPU; default: %(default)s")
    parser.add_argument("--reactor", choices=("auto", "epoll", "uring"), default="auto", help="default: %(default)s")
    parser.add_argument("--check", action="store_true", help="one short alternation, one broker, no verdict on latency")
    parser.add_argument("--prove", action="store_true", help="as --check, against brokers that are left open, which has to be found")
    parser.add_argument("--json", type=pathlib.Path, help="the document goes here too")
    parser.add_argument("--markdown", type=pathlib.Path, help="the table goes here too")
    given = parser.parse_args()
    given.check |= given.prove
    return given


def chosen(only):
    wanted = set(filter(None, only.split(",")))
    attacks = [one for one in catalogue.attacks.values() if not wanted or {one.name, one.family} & wanted]
    unknown = wanted - {name for one in attacks for name in (one.name, one.family)}
    if unknown or not attacks:
        sys.exit(f"no attack or family is called {', '.join(sorted(unknown))}: attack.py --list has them")
    return attacks


class Stand:
    """The broker of the moment, and its victims."""

    def __init__(self, given):
        self.given, self.binary = given, str(pathlib.Path(given.binary).resolve())
        self.evidence = Evidence(self.binary)
        self.target, self.suits = None, None
        #: Of brokers that did not stop as they should.
        self.wrong = []

    def prepare(self, attack, opening):
        """A broker that suits it: the last one, if that is as good as new."""
        family = "all" if self.given.check else attack.family
        suits = (family, attack.descriptors, opening)
        if self.target is None or self.suits != suits:
            self.remove()
            self.target = Target(self.binary, self.evidence, attack.descriptors, opening, self.given.reactor, self.given.shards)
            self.target.start()
            self.suits = suits
        return self.target

    def remove(self):
        """Asked to stop, it does, and says so by its exit code."""
        if self.target is None:
            return
        target, self.target = self.target, None
        try:
            target.stop()
        except AssertionError as error:
            self.wrong.append(f"behind {self.suits[0]}: {error}")
        finally:
            target.remove()


def instrument(given, target, attack):
    """The document of `noisy-neighbour`."""
    command = f"{sys.executable} {HERE / 'attack.py'} {attack.name} --ports {target.doors()}"
    settings = CHECK if given.check else {"--noise-seconds": str(given.window_seconds)}
    alternations = 1 if given.check else given.alternations
    arguments = [given.bench, "noisy-neighbour", "--target", f"127.0.0.1:{target.ports['plain']}", "--pid", str(target.process.pid),
                 "--noise-cpu", str(cpus()[2]), "--alternations", str(alternations), "--hostile", f"{attack.name}={command}"]
    arguments += [word for pair in settings.items() for word in pair]
    limit = INSTRUMENT_SPARE_SECONDS + (2 * alternations + 1) * (given.window_seconds + 6)
    # Its attackers and what keeps CPUs awake put themselves back into the idle class.
    done = subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=limit, preexec_fn=go_first)
    if not done.stdout.strip():
        raise AssertionError(f"the instrument ended with {done.returncode}: {done.stderr[-1_000:]}")
    # An attack that broke says where.
    said = ["".join(done.stderr.partition("Traceback")[1:])[-2_000:]] if "Traceback" in done.stderr else []
    return json.loads(done.stdout)["outcome"], said


def beset(given, target, attack, result):
    """The attack beside the others; what came of it goes into the row."""
    victims = Victims(target)
    try:
        outcome, said = instrument(given, target, attack)
        result["wrong"] += outcome["failures"] + said
        detail = (outcome["detail"] or {}).get("kinds") or [{"hostile": []}]
        result.update(table.summed(detail[0]["hostile"]))
        for which in table.BOTH:
            result[which] = table.latency(outcome["figures"], attack.name, which)
        if not result["attempts"]:
            result["wrong"].append("the attack tried nothing")
    finally:
        if target.process.poll() is None:
            result["wrong"] += victims.settle()
        result["newcomers"] = victims.newcomers.to_json()
        victims.close()


def run_one(given, stand, attack, opening=None):
    """One row."""
    target = stand.prepare(attack, opening)
    result = {"name": attack.name, "family": attack.family, "does": attack.does, "wrong": [], "answers": {}}
    begin, before = time.monotonic(), aftermath.Before(target)
    try:
        beset(given, target, attack, result)
    except (AssertionError, subprocess.TimeoutExpired) as error:
        result["wrong"].append(str(error))
    wrong, figures = aftermath.judge(target, before, attack)
    result["wrong"] += wrong
    result.update(figures, took_s=time.monotonic() - begin)
    if given.check:
        result["wrong"] = [one for one in result["wrong"] if not is_about_latency(one)]
    result["verdict"] = table.verdict(result, given.check)
    if result["wrong"] or attack.keeps_mb and not given.check:
        stand.remove()
    return result


def is_about_latency(failure):
    """A machine of CI is as busy as it is."""
    return "generator" in failure


def tell(result):
    newcomers = result.get("newcomers")
    said = f"newcomers {newcomers['through']}/{newcomers['came']}, slowest {newcomers['slowest_ms']} ms" if newcomers else ""
    print(f"{result['verdict']:10} {result['took_s']:6.1f} s  {result['name']:32} {said}", file=sys.stderr, flush=True)
    for one in result["wrong"]:
        print(f"    {one}", file=sys.stderr, flush=True)


def publish(given, results):
    document = {"machine": {"cpus": len(os.sched_getaffinity(0)), "kernel": os.uname().release, "load": os.getloadavg()},
                "command": sys.argv, "attacks": results}
    text = table.table(results)
    if given.json:
        given.json.write_text(json.dumps(document, indent=1) + "\n")
    if given.markdown:
        given.markdown.write_text(text)
    print(text)


def prove(given, stand):
    """Whether what is open is found."""
    unseen = 0
    for opening in openings:
        for name in opening.attacks:
            found = run_one(given, stand, catalogue.attacks[name], opening)["wrong"]
            unseen += not found
            print(f"{'found' if found else 'NOT FOUND':10} {opening.name}: {name}: {'; '.join(found)[:300]}", flush=True)
    return 1 if unseen else 0


def main():
    given = arguments()
    stand, results = Stand(given), []
    try:
        if given.prove:
            return prove(given, stand)
        for attack in chosen(given.only):
            results.append(run_one(given, stand, attack))
            tell(results[-1])
    finally:
        stand.remove()
    publish(given, results)
    failed = [one["name"] for one in results if one["wrong"]]
    for one in stand.wrong:
        print(one, file=sys.stderr)
    print(f"{len(results)} attacks, {len(failed)} with something wrong: {', '.join(failed) or 'none'}", file=sys.stderr)
    return 1 if failed or stand.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
