"""What an attack has: doors, proofs, a loop, and a tally that tells what became of it.

An attack is a function of a `Siege` that starts clients. A client is a coroutine of a `Line`; when it ends, or the broker ends it, it
comes back with a new connection, until SIGTERM asks the whole of it to stop.
"""

import collections
import functools
import os
import ssl

import packets
from line import Closed, Line
from loop import Loop, pause

#: A client that was ended or refused comes back after this, so that the attack is that of its clients and not of their dialling.
RETURN_SECONDS = 0.005

VIOLATIONS_MAX = 20
ANSWERS_MAX = 40

#: The catalogue: by name, in the order in which the families are imported.
attacks = {}


class Attack:
    """One entry of the catalogue."""

    def __init__(self, function, name, does, family, keeps_mb, descriptors):
        self.function, self.name, self.does, self.family = function, name, does, family
        #: What the broker may still hold afterwards, in MB, because it was told to.
        self.keeps_mb = keeps_mb
        #: The broker may have no more than so many; None: as many as there are.
        self.descriptors = descriptors


def attack(name, does, keeps_mb=0, descriptors=None):
    def add(function):
        family = function.__module__.removeprefix("attacks_")
        attacks[name] = Attack(function, name, does, family, keeps_mb, descriptors)
        return function
    return add


class Tally:
    def __init__(self):
        #: Connections and questions; and of these what was refused, and what the broker ended.
        self.attempts = self.refused = self.closed = 0
        self.sent_bytes = self.heard_bytes = 0
        self.answers, self.violations = collections.Counter(), {}

    def to_json(self):
        return {"attempts": self.attempts, "refused": self.refused, "closed": self.closed,
                "sent_bytes": self.sent_bytes, "heard_bytes": self.heard_bytes,
                "answers": dict(self.answers.most_common(ANSWERS_MAX)), "violations": list(self.violations)}


class Siege:
    def __init__(self, given):
        self.given, self.doors = given, given["doors"]
        self.secret, self.mark = given["secret"].encode(), given["mark"]
        self.loop, self.tally = Loop(), Tally()
        self.own = f"{os.getpid():x}"
        self.names = self.sources = 0

    def violation(self, text):
        """Something that the broker must not do; once each."""
        if len(self.tally.violations) < VIOLATIONS_MAX:
            self.tally.violations[text] = None

    def expect(self, is_so, text):
        if not is_so:
            self.violation(text)

    # --- Who comes ---

    def client_id(self):
        self.names += 1
        return f"{self.mark}-{self.own}-{self.names}"

    def topic(self, *levels):
        """Of the attackers, where nobody else listens."""
        return "/".join((self.mark, *map(str, levels)))

    def next_source(self):
        """An address of the loopback net: far from those of the others, with room for a few thousand connections each."""
        self.sources += 1
        return f"127.{128 + os.getpid() % 100}.{os.getpid() // 100 % 256}.{self.sources // 4_000 % 250 + 1}"

    def stranger(self):
        """An address that no connection of this attack has had."""
        self.sources += 1
        return f"127.{230 + os.getpid() % 20}.{self.sources // 250 % 256}.{self.sources % 250 + 1}"

    @functools.cache
    def context(self, shown):
        context = ssl.create_default_context(cafile=self.given["authority"])
        if shown:
            context.load_cert_chain(*shown)
        return context

    # --- What they do ---

    def crowd(self, count, client, door="plain", **line):
        """So many clients: `client(line, number)`, again and again; the number goes on with each return."""
        for number in range(count):
            self.loop.start(self.again(client, self.doors[door], number, count, line))

    async def again(self, client, door, number, step, given):
        while True:
            version = given.get("version", packets.V5 if number % 2 else packets.V311)
            line = Line(self, door, **{**given, "version": version})
            try:
                await client(line, number)
            except Closed:
                pass
            except OSError as error:
                # Of this machine: no port, no descriptor.
                self.tally.answers[f"here: {error.strerror}"] += 1
            finally:
                line.close()
            number += step
            await pause(RETURN_SECONDS)
