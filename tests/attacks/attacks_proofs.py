"""Proofs that prove nothing: guessed, forged, or somebody else's from before."""

import base64

import packets
import scram
from packets import AUTH, CONNACK, DISCONNECT, V5
from siege import attack


@attack("tokens-forged", "JSON Web Tokens: expired, unsigned, by another key, HS256 by the public key, changed behind their signature")
def tokens(siege):
    forged = list(siege.given["forged_tokens"].items())

    async def client(line, number):
        what, token = forged[number // 2 % len(forged)]
        reason = await line.enter(username="bob", password=token)
        siege.expect(reason != 0, f"a token was taken: {what}")

    siege.crowd(32, client, "guarded")


@attack("passwords-guessed", "wrong passwords in parallel, of one account and of many, from one address and from ever new ones")
def passwords(siege):
    async def client(line, number):
        if number % 2:
            line.source = siege.stranger()
        name = ("bob", "carol", f"nobody-{number}", "mallory")[number // 2 % 4]
        reason = await line.enter(username=name, password=f"guess-{siege.own}-{number}")
        siege.expect(reason != 0, f"a guess was taken for {name}")

    siege.crowd(64, client, "guarded")


@attack("passwords-huge", "passwords of 60,000 bytes, user names of as many, and tokens that are none of that size")
def huge(siege):
    long = "x" * 60_000
    nested = base64.urlsafe_b64encode(b'{"alg":' + b"[" * 5_000).decode() + "." + base64.urlsafe_b64encode(b"{" * 5_000).decode() + ".AAAA"
    given = ({"username": "bob", "password": long}, {"username": long, "password": "x"}, {"username": "bob", "password": nested},
             {"username": "bob", "password": "." * 8_000}, {"username": "bob", "password": "a.b.c"})

    async def client(line, number):
        line.source = siege.stranger()
        reason = await line.enter(**given[number % len(given)])
        siege.expect(reason != 0, "a password of 60,000 bytes was taken")

    siege.crowd(20, client, "guarded")


def begin(client_first):
    return {"given": packets.text(packets.METHOD, scram.METHOD) + packets.text(packets.DATA, client_first)}


async def challenge(line):
    """What the server says first; None: it refuses."""
    for kind, _, body in await line.hear():
        if kind != AUTH:
            return None
        _, at = packets.read_integer(body, 1)
        while at < len(body):
            identifier, length = body[at], int.from_bytes(body[at + 1:at + 3], "big")
            if identifier == packets.DATA:
                return body[at + 3:at + 3 + length]
            at += 3 + length
    return None


async def say_first(line, client_first):
    await line.open()
    await line.say(packets.connect("scram", V5, **begin(client_first)))
    return await challenge(line)


@attack("scram-replayed", "an exchange that led in once, sent again as it was, with its nonce and with its proof")
def replay(siege):
    name, password = "mallory", siege.given["passwords"]["mallory"]
    recorded = []

    async def record(line, number):
        """The one that is right. What an eavesdropper has of it is all that the others use."""
        client_first = scram.first(name, f"{siege.own}{number}")
        server_first = await say_first(line, client_first)
        if server_first is None:
            return
        client_final = scram.final(client_first, server_first, password)
        reason = await line.ask(packets.auth(scram.METHOD, client_final), CONNACK, DISCONNECT)
        siege.expect(reason in (0, 0x9F), f"the right exchange ended with {reason:#x}")
        if reason == 0:
            recorded.append((client_first, client_final))
            await line.stay()

    async def client(line, number):
        if not recorded:
            return
        line.source = siege.stranger()
        client_first, client_final = recorded[-1]
        if await say_first(line, client_first) is None:
            return
        said = packets.auth(scram.METHOD, client_final)
        reason = await line.ask(said if number % 2 else said * 2, CONNACK, DISCONNECT)
        siege.expect(reason != 0, "an exchange was taken a second time")

    siege.crowd(1, record, "scram", version=V5)
    siege.crowd(16, client, "scram", version=V5)


@attack("scram-malformed", "first and final messages that are none, of a kilobyte, of other mechanisms, and in the wrong order")
def malformed(siege):
    firsts = (b"", b"n,,", b"n,,n=bob", b"p=tls-unique,,n=bob,r=abc", b"y,,n=bob,r=" + b"r" * 2_000, b"n,,n=" + b"b" * 1_000 + b",r=abc",
              b"n,a=bob,n=mallory,r=abc", b"n,,m=x,n=bob,r=abc", b"n,,n=bob,r=ab\x00c", b"n,,n==3D,r=abc")
    finals = (b"", b"c=biws,r=abc,p=AAAA", b"c=biws", b"c=biws,r=abc,p=" + b"A" * 2_000, b"\xff" * 100)

    async def client(line, number):
        line.source = siege.stranger()
        if number % 2:
            if await say_first(line, firsts[number // 2 % len(firsts)]) is None:
                return
        elif await say_first(line, scram.first("bob", "abcdef")) is None:
            return
        said = packets.auth(scram.METHOD, finals[number // 2 % len(finals)])
        reason = await line.ask(said, CONNACK, DISCONNECT)
        siege.expect(reason != 0, "a malformed exchange led in")

    siege.crowd(15, client, "scram", version=V5)


@attack("proxy-header-untrusted", "PROXY headers, of both versions, from an address that is no proxy")
def proxied(siege):
    first = b"PROXY TCP4 192.0.2.1 127.0.0.1 4000 1883\r\n"
    second = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c" + bytes([192, 0, 2, 1, 127, 0, 0, 1, 15, 160, 7, 91])
    local = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00"
    headers = (first, second, local, b"", b"PROXY UNKNOWN\r\n", b"PROXY TCP4 " + b"1" * 200, second[:13] + b"\x11\xff\xff" + bytes(4_000))

    async def client(line, number):
        await line.open()
        bob = packets.connect("bob-listens", line.version, username="bob", password=siege.given["passwords"]["mallory"])
        await line.send(headers[number // 2 % len(headers)] + bob)
        await line.some()
        siege.violation("somebody who is no proxy was answered")

    siege.crowd(28, client, "proxied")
