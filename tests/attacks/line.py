"""One connection of an attacker: TCP, TLS and WebSocket, whatever its door asks for, without blocking.

Everything that it hears is searched for what only others may see. What the broker answers is counted, refusals by their reason, and
the end of the connection by whoever ends it: `Closed` is raised for an end by the broker.
"""

import collections
import contextlib
import errno
import socket
import ssl

import packets
import web
from loop import READABLE, WRITABLE, turn, until

IP_BIND_ADDRESS_NO_PORT = 24
#: Of one call. Attackers may share the broker's processor, and a kernel that does not preempt itself lets nobody else have it
#: during one: with a mebibyte in a call the shard waited for its attacker's kernel 130 ms of each second.
CALL_BYTES = 16 << 10
#: Calls of one line that did not have to wait, before the others have their turn.
CALLS_PER_TURN = 16


class Closed(Exception):
    """The broker has ended the connection, or never made one."""


class Line:
    def __init__(self, siege, door, version=packets.V5, source=None, shown=None, narrow=False):
        self.siege, self.door, self.version = siege, door, version
        self.source = source or siege.next_source()
        #: A certificate and its key, for a door that asks for one.
        self.shown = shown
        #: With buffers so small that what is not read is soon felt by the broker.
        self.narrow = narrow
        self.socket = None
        self.heard, self.frames, self.tail = bytearray(), bytearray(), b""
        self.is_web = False
        #: Whether what comes is packets: from the beginning where nothing is between, else when it is open.
        self.hears_packets = not (door.get("tls") or door.get("web"))
        self.calls = 0
        #: How many packets of each type came.
        self.seen = collections.Counter()

    # --- Up and down ---

    async def dial(self):
        """The connection alone, without a word."""
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setsockopt(socket.SOL_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        if self.narrow:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        self.socket.bind((self.source, 0))
        self.siege.tally.attempts += 1
        code = self.socket.connect_ex((self.door["host"], self.door["port"]))
        if code == errno.EINPROGRESS:
            await until(self.socket.fileno(), WRITABLE)
            code = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self.lost(errno.errorcode.get(code, str(code)))

    async def shake_hands(self):
        """TLS, if the door has it."""
        if not self.door.get("tls"):
            return
        context = self.siege.context(self.shown)
        self.socket = context.wrap_socket(self.socket, server_hostname="localhost", do_handshake_on_connect=False)
        while True:
            try:
                return self.socket.do_handshake()
            except ssl.SSLWantReadError:
                await until(self.socket.fileno(), READABLE)
            except ssl.SSLWantWriteError:
                await until(self.socket.fileno(), WRITABLE)
            except (ssl.SSLError, OSError) as error:
                self.lost(alert(error))

    async def upgrade(self):
        """WebSocket, if the door has it."""
        if not self.door.get("web"):
            return
        await self.send(web.request(self.door["port"]))
        while b"\r\n\r\n" not in self.heard:
            self.heard += await self.some()
        head, _, rest = bytes(self.heard).partition(b"\r\n\r\n")
        self.heard.clear()
        if not head.startswith(b"HTTP/1.1 101"):
            self.lost(head.split(b"\r\n")[0].decode())
        self.is_web = True
        self.take(rest)

    async def open(self):
        await self.dial()
        await self.shake_hands()
        await self.upgrade()
        self.hears_packets = True
        return self

    async def enter(self, client_id=None, **given):
        """Opens, sends a CONNECT, and returns the reason of its CONNACK."""
        await self.open()
        client_id = self.siege.client_id() if client_id is None else client_id
        await self.say(packets.connect(client_id, self.version, **given))
        return await self.answer(packets.CONNACK)

    def close(self, reset=False):
        if self.socket is None:
            return
        if reset:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.siege.loop.forget(self.socket.fileno())
        with contextlib.suppress(OSError):
            self.socket.close()
        self.socket = None

    def lost(self, why):
        """By the broker; what it said before counts."""
        if self.is_web or not self.door.get("web"):
            self.count(list(packets.split(self.heard)))
        self.siege.tally.closed += 1
        self.siege.tally.answers[f"closed ({why})" if why else "closed"] += 1
        self.close()
        raise Closed(why)

    # --- Bytes ---

    def frame(self, data):
        return web.frame(data) if self.is_web else data

    async def send(self, data):
        """All of it, as it is."""
        view = memoryview(data)
        while view:
            view = view[self.write(view):]
            await (until(self.socket.fileno(), WRITABLE) if view else self.fair())

    async def fair(self):
        self.calls += 1
        if self.calls % CALLS_PER_TURN == 0:
            await turn()

    def say(self, data):
        return self.send(self.frame(data))

    def write(self, view):
        """How much of it was taken."""
        try:
            taken = self.socket.send(view[:CALL_BYTES])
            self.siege.tally.sent_bytes += taken
            return taken
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            return 0
        except (ssl.SSLError, OSError) as error:
            self.write_failed(error)
            return 0

    def write_failed(self, error):
        """What the broker said before it closed is still there to be read."""
        with contextlib.suppress(Closed, OSError, ssl.SSLError):
            while (data := self.read()) is not None:
                if self.hears_packets:
                    self.take(data)
        if self.socket is not None:
            self.lost(alert(error))
        raise Closed("")

    def read(self):
        """What there is; None: nothing yet."""
        try:
            data = self.socket.recv(CALL_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None
        except (ssl.SSLError, OSError) as error:
            self.lost(alert(error))
        if not data:
            self.lost("")
        self.siege.tally.heard_bytes += len(data)
        seen = self.tail + data
        if self.siege.secret in seen:
            self.siege.violation("it was sent what only others may see")
        self.tail = seen[-len(self.siege.secret) + 1:]
        return data

    async def some(self):
        """At least a byte."""
        while (data := self.read()) is None:
            await until(self.socket.fileno(), READABLE)
        await self.fair()
        return data

    # --- Packets ---

    def take(self, data):
        if not self.is_web:
            self.heard += data
            return
        self.frames += data
        for opcode, payload in web.split(self.frames):
            if opcode == web.BINARY:
                self.heard += payload
            elif opcode == web.CLOSE:
                self.siege.tally.answers[f"WebSocket close {int.from_bytes(payload[:2], 'big')}"] += 1

    def count(self, heard):
        for kind, _, body in heard:
            self.seen[kind] += 1
            if kind not in packets.NAMES:
                self.siege.violation(f"a packet of type {kind} came")
                continue
            for reason in packets.reasons(kind, body, self.version):
                is_refusal = reason >= 0x80 or kind == packets.CONNACK and reason > 0
                if is_refusal:
                    self.siege.tally.refused += 1
                    self.siege.tally.answers[packets.called(kind, reason)] += 1
        return heard

    async def hear(self):
        """The packets that come next, at least one."""
        while True:
            heard = self.count(list(packets.split(self.heard)))
            if heard:
                return heard
            self.take(await self.some())

    async def answer(self, *kinds):
        """The first reason of the next packet of one of these types, 0 if those have none; what comes before it is dropped, what comes
        with it too."""
        while True:
            for kind, _, body in await self.hear():
                if kind in kinds:
                    return next(iter(packets.reasons(kind, body, self.version)), 0)

    async def ask(self, data, *kinds):
        self.siege.tally.attempts += 1
        await self.say(data)
        return await self.answer(*kinds)

    async def exchange(self, data, listens=True):
        """Sends all of it, and hears meanwhile what comes. `listens` False: what comes is only searched for secrets."""
        view = memoryview(self.frame(data))
        while view:
            events = await until(self.socket.fileno(), READABLE | WRITABLE)
            if events & ~WRITABLE:
                while (heard := self.read()) is not None:
                    if listens:
                        self.take(heard)
                self.count(list(packets.split(self.heard)))
            if events & WRITABLE:
                view = view[self.write(view):]

    async def await_seen(self, kind, count):
        """Until so many of that type have come since it was opened."""
        while self.seen[kind] < count:
            await self.hear()

    async def stay(self):
        """Hears until the broker ends it."""
        while True:
            await self.hear()


def alert(error):
    """What ended it, in a few words."""
    if isinstance(error, ssl.SSLError):
        return (error.reason or type(error).__name__).lower().replace("_", " ")
    return "" if isinstance(error, (ConnectionResetError, BrokenPipeError)) else type(error).__name__
