#!/usr/bin/env python3
"""One attack of the catalogue: says `ready`, goes on until SIGTERM, and then says in one line of JSON what became of it.

    tests/attacks/attack.py ping-flood --ports FILE

FILE (or the JSON itself) says where the doors are and what there is to show at them; `run.py` writes it. Meant to be started by
`ironpost-bench noisy-neighbour --hostile NAME=COMMAND`. `--list` prints the catalogue. Needs nothing but Python's own library.
"""

import signal
import sys

stopped = []
# Before anything that takes its time: whoever is asked to stop while it begins has still a tally to tell.
signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))

import argparse  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import pathlib  # noqa: E402

import catalogue  # noqa: E402
from siege import Siege  # noqa: E402


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", help="which attack")
    parser.add_argument("--ports", help="where the doors are: a file, or JSON")
    parser.add_argument("--list", action="store_true", help="print names and what they do")
    given = parser.parse_args()
    if not given.list and (given.name not in catalogue.attacks or not given.ports):
        parser.error("a name of --list, and --ports")
    return given


def doors(text):
    return json.loads(text if text.lstrip().startswith("{") else pathlib.Path(text).read_text())


def main():
    given = arguments()
    if given.list:
        for one in catalogue.attacks.values():
            print(f"{one.name:28} {one.does}")
        return
    siege = Siege(doors(given.ports))
    catalogue.attacks[given.name].function(siege)

    def stop(*_):
        siege.loop.stopping = True

    signal.signal(signal.SIGTERM, stop)
    if stopped:
        stop()
    print("ready", flush=True)
    siege.loop.run()
    print(json.dumps(siege.tally.to_json()), flush=True)
    # Thousands of connections end with the process; taking coroutines apart one by one would be slower.
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
