#!/usr/bin/env python3
"""Runs the scenarios against the real binary with clients nobody here wrote: both reactors, 1, 2 and 8 shards.

Set up and started by `tests/run`. By hand, after that has run once:

    target/clients/venv/bin/python tests/clients/run.py --binary target/release/ironpost --only qos_2 --shards 2
    target/clients/venv/bin/python tests/clients/run.py --binary mosquitto --own target/release/ironpost

The last runs them against Debian's mosquitto: do the scenarios themselves hold?

Exit code 0 only if every chosen scenario passed; choosing none is a failure.
"""

import argparse
import sys
import time
import traceback

import scenarios_access  # each import adds its scenarios to the list
import scenarios_aiomqtt  # noqa: F401
import scenarios_doors
import scenarios_mosquitto
import scenarios_mqttjs  # noqa: F401
import scenarios_own
import scenarios_paho
import scenarios_rules
import scenarios_secrets
import scenarios_tls
import scenarios_web
from broker import Broker
from guarded import Guarded
from scenario import peer_skips, scenarios


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True, help="ironpost, or the word mosquitto for the peer")
    parser.add_argument("--own", default="", help="the command whose pub and sub are used; default: the binary")
    parser.add_argument("--reactor", action="append", choices=("epoll", "uring"), help="default: both")
    parser.add_argument("--shards", action="append", type=int, help="default: 1, 2 and 8")
    parser.add_argument("--transport", choices=("tcp", "tls", "mtls", "ws", "wss", "guarded"), default="tcp",
                        help="what the clients speak, without those that do not know it; guarded: only the scenarios in which "
                             "they prove who they are, each in its way; default: %(default)s")
    parser.add_argument("--stream", type=int, default=scenarios_paho.stream_messages,
                        help="messages of a stream with a crash in the middle; default: %(default)s")
    parser.add_argument("--only", default="", help="only scenarios whose name contains this")
    return parser.parse_args()


#: The modules that need a broker with proofs.
GUARDED = {module.__name__ for module in (scenarios_access, scenarios_doors, scenarios_rules, scenarios_secrets)}


def left_out(transport):
    """The modules whose scenarios say nothing about it, or whose clients do not know it."""
    if transport == "guarded":
        return {scenario.__module__ for scenario in scenarios} - GUARDED
    return GUARDED | left_out_of_open(transport)


def left_out_of_open(transport):
    if transport == "tcp":
        return {scenarios_tls.__name__, scenarios_web.__name__}
    if transport in ("tls", "mtls"):
        return {scenarios_own.__name__, scenarios_web.__name__}
    return {scenarios_own.__name__, scenarios_tls.__name__, scenarios_mosquitto.__name__}


def run_scenario(scenario, broker, label):
    """One line, and what went wrong; the next scenario gets a broker that is new if this one failed."""
    begin = time.monotonic()
    try:
        scenario(broker)
        error = None
    except Exception:  # noqa: BLE001  whatever it is, it is a failed scenario
        error = traceback.format_exc()
    seconds = time.monotonic() - begin
    print(f"{'FAILED' if error else 'ok':6} {seconds:6.1f} s  {label:14} {scenario.__name__}", flush=True)
    if error:
        print(error, f"--- the broker's log:\n{broker.log_tail()}\n---", sep="\n", flush=True)
    return error is None


def run_all(binary, reactor, shards, transport, chosen):
    """How many passed and failed in one configuration."""
    label = "peer" if binary == "mosquitto" else f"{reactor} {shards} {transport}"
    passed = failed = 0
    broker = None
    try:
        for scenario in chosen:
            if broker is None:
                kind = Guarded if transport == "guarded" else Broker
                broker = kind(binary, reactor, shards, transport)
                broker.start()
            if run_scenario(scenario, broker, label):
                passed += 1
            else:
                failed += 1
                broker.remove()
                broker = None
        if broker is not None:
            broker.stop()
    except Exception:  # noqa: BLE001  a broker that does not start or stop
        traceback.print_exc()
        failed += 1
    finally:
        if broker is not None:
            broker.remove()
    return passed, failed


def main():
    given = arguments()
    scenarios_own.binary = given.own or given.binary
    scenarios_paho.stream_messages = given.stream
    is_peer = given.binary == "mosquitto"
    chosen = [scenario for scenario in scenarios if given.only in scenario.__name__]
    chosen = [scenario for scenario in chosen if not is_peer or scenario.__name__ not in peer_skips]
    chosen = [scenario for scenario in chosen if scenario.__module__ not in left_out(given.transport)]
    passed = failed = 0
    for reactor in ["-"] if is_peer else given.reactor or ["epoll", "uring"]:
        for shards in [0] if is_peer else given.shards or [1, 2, 8]:
            counts = run_all(given.binary, reactor, shards, given.transport, chosen)
            passed, failed = passed + counts[0], failed + counts[1]
    print(f"\n{passed} passed, {failed} failed")
    return 0 if failed == 0 and passed > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
