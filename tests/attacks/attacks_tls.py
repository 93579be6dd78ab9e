"""TLS: handshakes that do not come, come a byte at a time, or come as fast as one core can; certificates that are not good."""

import ssl

import packets
from loop import pause
from siege import attack

#: More than may be without a CONNECT at a time.
SILENT = 4_500
SLOW = 1_000


def client_hello():
    """As OpenSSL begins."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    speaker = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    try:
        speaker.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


@attack("tls-silence", f"{SILENT:,} connections that never send a ClientHello")
def silence(siege):
    async def client(line, _):
        await line.dial()
        await line.some()
        siege.violation("an answer to nothing")

    siege.crowd(SILENT, client, "tls")


@attack("tls-slow-hello", f"a ClientHello byte by byte, on {SLOW:,} connections")
def slow_hello(siege):
    hello = client_hello()

    async def client(line, _):
        await line.dial()
        for at in range(len(hello)):
            await line.send(hello[at:at + 1])
            await pause(0.05)
        await line.some()

    siege.crowd(SLOW, client, "tls")


@attack("tls-handshakes", "whole handshakes, one after the other, as fast as one core can")
def handshakes(siege):
    async def client(line, _):
        await line.dial()
        await line.shake_hands()
        line.close(reset=True)

    siege.crowd(16, client, "tls")


@attack("tls-garbage", "records that are none: random bytes, plain MQTT, records that announce too much")
def garbage(siege):
    hello = client_hello()
    sayings = (bytes(range(256)) * 64, packets.connect("plain"), b"\x16\x03\x01\xff\xff" + bytes(70_000), hello[:40] + bytes(4_096),
               hello + b"\x17\x03\x03\x40\x00" + bytes(16_384), b"GET / HTTP/1.1\r\n\r\n")

    async def client(line, number):
        await line.dial()
        await line.send(sayings[number % len(sayings)])
        while True:
            data = await line.some()
            # An alert, or what answers the one that begins as it should.
            siege.expect(data[:1] in b"\x15\x16\x14\x17", f"{data[:8]!r} answered what is no TLS")

    siege.crowd(32, client, "tls")


def with_certificate(siege, which):
    shown = tuple(siege.given["certificates"][which])

    async def client(line, _):
        # With TLS 1.3 the client believes that it is through before the server has looked.
        await line.enter()
        siege.violation(f"the certificate that is {which} was taken")

    def refused(line, number):
        line.shown = shown
        return client(line, number)

    siege.crowd(16, refused, "mtls")


@attack("certificate-of-another-authority", "a certificate for a known name, by an authority of the attacker's own")
def stranger(siege):
    with_certificate(siege, "of a stranger")


@attack("certificate-revoked", "a certificate of the right authority that its list revokes")
def revoked(siege):
    with_certificate(siege, "revoked")


@attack("certificate-none", "no certificate where one is asked for, and a CONNECT that names an account")
def without(siege):
    async def client(line, _):
        await line.enter(username="bob", password="")
        siege.violation("somebody without a certificate was let in")

    siege.crowd(16, client, "mtls")


