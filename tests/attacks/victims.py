"""The others: accounts with secrets, whose books must be clean, and newcomers, who want to be let in while all this happens.

`bob` writes to himself; nobody else may have it, and nothing else may come to him. `alice` and `carol` listen to what is theirs, and to
no sound. All of them are paho's clients, on the listeners that ask for a proof. They have a thread of their own in the idle class, so
that they take from nobody whose latency is measured.
"""

import os
import socket
import ssl
import threading
import time

import packets
from guarded import Door
from guest import Guest, Refused
from target import cpus

PAUSE_SECONDS = 0.1
#: One that is not through by then was not let in.
NEWCOMER_SECONDS = 5
#: What is on its way has arrived by then.
SETTLED_SECONDS = 20


class Victims:
    def __init__(self, target):
        self.target = target
        door = Door(target.ports["guarded"])
        self.stopping, self.wrong = threading.Event(), []
        self.sent, self.newcomers = 0, Newcomers(target)
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self.run, args=(door,), daemon=True)
        self.thread.start()
        if not self.ready.wait(SETTLED_SECONDS):
            raise AssertionError(f"the victims did not come in: {self.wrong}")

    def run(self, door):
        # Threads of clients are started from here, and inherit it.
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        os.sched_setaffinity(0, {cpus()[0]})
        try:
            self.enter(door)
            self.ready.set()
            while not self.stopping.wait(PAUSE_SECONDS):
                self.speak()
                self.newcomers.send_one()
        except Exception as error:  # noqa: BLE001  whatever it is, it is told with the rest
            self.wrong.append(f"victims: {type(error).__name__}: {error}")
            self.ready.set()

    def enter(self, door):
        """By tokens: to look at a password takes 19 MiB, which are not to be taken for an attack's."""
        def guest(client_id, name, **given):
            token = self.target.evidence.made.token(sub=name, exp=int(time.time()) + 7_200)
            return Guest(door, client_id, username=name, password=token, **given)

        self.speaker = guest("bob-speaks", "bob")
        # There for whoever asks, if it is he.
        kept = {f"u/bob/{name}": f"{self.target.secret} {name}" for name in ("secret", "a/b/c")}
        for topic, payload in kept.items():
            self.speaker.publish(topic, payload, 1, retain=True)
        self.guests = [guest(f"{name}-listens", name) for name in ("bob", "alice", "carol")]
        for one in self.guests:
            one.subscribe(f"u/{one.username}/#", 2)
        bob = self.guests[0]
        bob.wait(lambda: len(bob.messages) >= len(kept), "what is retained")
        heard = {message.topic: message.payload.decode() for message in bob.take()}
        assert heard == kept, f"{heard} was retained"
        self.away = guest("bob-away", "bob", durable=True, expiry=3_600)
        self.away.subscribe("u/bob/news", 1)
        self.away.close()

    def speak(self):
        self.speaker.publish("u/bob/news", f"{self.target.secret} {self.sent}", 1)
        self.sent += 1

    def settle(self):
        """Their books since the last time: what is wrong with them."""
        self.stopping.set()
        self.thread.join(SETTLED_SECONDS + NEWCOMER_SECONDS)
        wrong, self.wrong = self.wrong, []
        bob, *others = self.guests
        wrong += self.unlike(bob)
        try:
            self.away.open()
            wrong += [f"after he was away: {one}" for one in self.unlike(self.away)]
        except (AssertionError, Refused) as error:
            wrong.append(f"bob's other session cannot come back: {error}")
        for guest in others:
            if foreign := guest.take():
                wrong.append(f"{guest.username} heard {len(foreign)} messages that are not hers: {foreign[0].topic}")
        for guest in (*self.guests, self.speaker):
            if guest.disconnects:
                wrong.append(f"the connection of {guest.client._client_id.decode()} was ended")
        if self.newcomers.wrong:
            wrong.append(f"newcomers: {self.newcomers.wrong[:3]}")
        return wrong

    def unlike(self, bob):
        """What is wrong with what he heard."""
        wanted = [f"{self.target.secret} {number}".encode() for number in range(self.sent)]
        with bob.changed:
            bob.changed.wait_for(lambda: len(bob.messages) >= len(wanted), SETTLED_SECONDS)
        heard = [message.payload for message in bob.take()]
        if heard == wanted:
            return []
        foreign = sorted({repr(payload[:60]) for payload in set(heard) - set(wanted)})
        return [f"bob sent {len(wanted)} messages and heard {len(heard)}; not his own: {foreign[:5]}"]

    def close(self):
        for guest in (*self.guests, self.speaker, self.away):
            guest.client.disconnect()
            guest.client.loop_stop()


class Newcomers:
    """One after the other comes, subscribes, and sends itself a message. Whether an attack keeps them out is told, not judged."""

    def __init__(self, target):
        self.target, self.number = target, 0
        self.seconds, self.turned_away, self.wrong = [], {}, []

    def send_one(self):
        self.number += 1
        begin = time.monotonic()
        try:
            visit(self.target, f"newcomer-{self.number}")
            self.seconds.append(time.monotonic() - begin)
        except (OSError, EOFError, Refused) as error:
            why = str(error) or type(error).__name__
            self.turned_away[why] = self.turned_away.get(why, 0) + 1
        except AssertionError as error:
            self.wrong.append(str(error))

    def to_json(self):
        return {"came": self.number, "through": len(self.seconds), "slowest_ms": round(1_000 * max(self.seconds, default=0), 1),
                "turned_away": self.turned_away}


def visit(target, name, seconds=NEWCOMER_SECONDS):
    """Comes in where nothing is asked for, and gets a message; what it gets instead is an error."""
    with socket.create_connection(("127.0.0.1", target.ports["plain"]), timeout=seconds) as peer:
        converse(peer, packets.connect(name), "visits", name, seconds)


def visit_guarded(target, name, seconds=NEWCOMER_SECONDS):
    """The same through TLS, with a token."""
    made = target.evidence.made
    context = ssl.create_default_context(cafile=str(made.authority))
    with socket.create_connection(("127.0.0.1", target.ports["tls"]), timeout=seconds) as carrier:
        with context.wrap_socket(carrier, server_hostname="localhost") as peer:
            converse(peer, packets.connect(name, username="alice", password=made.token(sub="alice")), "u/alice", name, seconds)


def converse(peer, connect, above, name, seconds):
    """Subscribes with a wildcard, so that tables which are full would show."""
    deadline = time.monotonic() + seconds
    peer.sendall(connect)
    heard = bytearray()
    kind, body = next_packet(peer, heard, deadline)
    if kind != packets.CONNACK or body[1]:
        raise Refused(packets.called(kind, packets.reasons(kind, body, packets.V5)[0]))
    peer.sendall(packets.subscribe([f"{above}/+/{name}"], qos=1) + packets.publish(f"{above}/here/{name}", name, 1, 2))
    while True:
        kind, body = next_packet(peer, heard, deadline)
        if kind == packets.PUBLISH:
            assert body.endswith(name.encode()), f"{name} got {body[-60:]!r}"
            return peer.sendall(packets.BYE)
        if any(reason >= 0x80 for reason in packets.reasons(kind, body, packets.V5)):
            raise Refused(packets.called(kind, packets.reasons(kind, body, packets.V5)[0]))


def next_packet(peer, heard, deadline):
    while True:
        # One at a time: what is behind it stays.
        for kind, _, body in packets.split(heard):
            return kind, body
        peer.settimeout(max(0.01, deadline - time.monotonic()))
        data = peer.recv(4_096)
        if not data:
            raise EOFError("closed")
        heard += data
