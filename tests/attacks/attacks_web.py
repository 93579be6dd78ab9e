"""WebSocket: requests that do not end, frames that announce too much or are none, and messages in pieces."""

import packets
import web
from line import Closed
from loop import pause
from siege import attack


@attack("websocket-headers", "requests with headers that do not end, of 64 KiB, without what has to be there, and none")
def headers(siege):
    port = siege.doors["web"]["port"]
    sayings = (web.request(port, more=f"X-Long: {'x' * 65_536}\r\n"), web.request(port, more="X-Many: 1\r\n" * 5_000),
               web.request(port, path="/" + "p" * 60_000), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"POST /mqtt HTTP/1.1\r\n\r\n",
               b"G" * 20_000, web.request(port, protocol="chat"), web.request(port).replace(b"Version: 13", b"Version: 8"),
               b"GET /mqtt HTTP/1.1\r\n" + b"\0" * 100 + b"\r\n\r\n", packets.connect("x"), web.request(port)[:-2])

    async def client(line, number):
        await line.dial()
        await line.send(sayings[number % len(sayings)])
        heard = bytearray()
        try:
            while True:
                heard += await line.some()
        except Closed:
            said = bytes(heard).split(b"\r\n")[0].decode(errors="replace")
            siege.tally.answers[said or "closed without a word"] += 1
            siege.expect(" 101 " not in said, "such a request was accepted")
            raise

    siege.crowd(33, client, "web")


@attack("websocket-headers-slow", "a header byte by byte that never ends, on 500 connections")
def slow_headers(siege):
    begun = web.request(siege.doors["web"]["port"])[:-2]

    async def client(line, _):
        await line.dial()
        await line.send(begun + b"X-Slow: ")
        for _ in range(65_536):
            await line.send(b"x")
            await pause(0.02)

    siege.crowd(500, client, "web")


@attack("websocket-frames", "frames of 2^63 bytes, unmasked, of reserved kinds, text, fragmented controls, and pings without end")
def frames(siege):
    connect = packets.connect("x")
    sayings = (web.frame(b"x", length=(1 << 63) - 1), web.frame(b"x", length=1 << 63), web.frame(connect, masked=False),
               web.frame(connect, web.TEXT), web.frame(b"", web.PING, final=False), web.frame(b"p" * 126, web.PING), web.frame(b"", 3),
               web.frame(connect, reserved=4), web.frame(connect, web.CONTINUED), web.frame(b"", web.CLOSE, length=1),
               web.frame(b"x" * 2, final=False) + web.frame(b"y"), web.frame(b"x", length=1 << 28) + bytes(1 << 20))
    # Allowed, and answered each.
    pings = web.frame(b"p" * 125, web.PING) * 500

    async def client(line, number):
        await line.open()
        if number % 16 == 0:
            while True:
                await line.send(pings)
                # Each is answered; what is read in one go is not looked at frame by frame.
                await line.some()
        await line.send(sayings[number % len(sayings)])
        await line.stay()

    siege.crowd(25, client, "web")


@attack("websocket-fragments", "CONNECT and PUBLISHes in fragments of one byte each")
def fragments(siege):
    pieces = {}
    for version in (packets.V311, packets.V5):
        publishes = b"".join(packets.publish("nobody/listens", b"f" * 20, 0, version=version) for _ in range(500))
        pieces[version] = web.in_pieces(publishes + packets.PING)

    async def client(line, _):
        await line.open()
        await line.send(web.in_pieces(packets.connect(siege.client_id(), line.version)))
        await line.answer(packets.CONNACK)
        while True:
            await line.send(pieces[line.version])
            await line.answer(packets.PINGRESP)

    siege.crowd(4, client, "web")
