"""Packets that come slowly, in halves, in bytes, or announce more than comes."""

import packets
from loop import pause
from siege import attack

SLOW = 1_000
#: Of the size that the broker takes: what it announces in CONNACK.
PACKET_BYTES = 1 << 20
HALVES = 600


@attack("connect-slow", f"a CONNECT of 80 bytes, one each 100 ms, on {SLOW:,} connections")
def connect_slow(siege):
    async def client(line, _):
        await line.open()
        for byte in packets.connect(siege.client_id().ljust(60, "x"), line.version):
            await line.send(bytes([byte]))
            await pause(0.1)
        await line.stay()

    siege.crowd(SLOW, client)


@attack("packet-halves", f"the first half of each packet type on {HALVES:,} connections, of a PUBLISH 512 KiB, and then nothing")
def halves(siege):
    large = packets.publish("x", bytes(PACKET_BYTES - 100), 1, version=packets.V311)

    def whole(version):
        return (large, packets.publish("x/y", b"z" * 200, 2, version=version), packets.subscribe(["a/b", "c/+"], version=version),
                packets.unsubscribe(["a/b", "c/+"], version=version), packets.acknowledge(packets.PUBACK, 7))

    kinds = {version: whole(version) for version in (packets.V311, packets.V5)}

    async def client(line, number):
        await line.open()
        connect = packets.connect(siege.client_id(), line.version)
        if number % 6 == 5:
            await line.send(connect[:len(connect) // 2])
        else:
            await line.ask(connect, packets.CONNACK)
            begun = kinds[line.version][number % 6]
            await line.send(begun[:len(begun) // 2])
        await line.stay()

    siege.crowd(HALVES, client)


@attack("packet-announcements", "the header of a PUBLISH of 1 MiB and nothing more, on 4,000 connections")
def announcements(siege):
    header = packets.publish("x", bytes(PACKET_BYTES - 100), 1, version=packets.V311)[:32]

    async def client(line, _):
        await line.enter()
        await line.send(header)
        await line.stay()

    siege.crowd(4_000, client)


@attack("one-byte-writes", "CONNECT and PUBLISHes in writes of one byte, each a segment of TCP")
def one_byte_writes(siege):
    async def client(line, number):
        await line.open()
        topic, qos = siege.topic("bytes", number), number % 3
        stream = packets.connect(siege.client_id(), line.version)
        stream += b"".join(packets.publish(topic, b"one byte after another", qos, at, version=line.version) for at in range(1, 200))
        for at in range(len(stream)):
            await line.send(stream[at:at + 1])
        await line.ask(packets.PING, packets.PINGRESP)

    siege.crowd(4, client)


@attack("packet-256-mib", "packets that announce 256 MiB, before and after CONNECT, and as much of them as is taken")
def far_too_large(siege):
    announced = packets.integer(packets.REMAINING_LENGTH_MAX)
    filler = bytes(1 << 20)

    async def client(line, number):
        await line.open()
        if number % 3 == 0:
            # A CONNECT that would be right, if only it ended.
            await line.send(b"\x10" + announced + packets.connect("x", line.version)[2:])
        else:
            await line.ask(packets.connect(siege.client_id(), line.version), packets.CONNACK)
            await line.send(bytes([0x32 if number % 3 == 1 else 0x82]) + announced + packets.string("x") + b"\0\1")
        sent = 0
        while sent < packets.REMAINING_LENGTH_MAX:
            await line.exchange(filler)
            sent += len(filler)
        # What was refused is read on for a while, so that its sender hears why; nothing of it may be kept.
        siege.tally.answers["256 MiB taken and dropped"] += 1

    siege.crowd(8, client)


@attack("packets-malformed", "reserved types and flags, lengths of five bytes, packets out of order, a second CONNECT")
def malformed(siege):
    def sayings(version):
        return (b"\x00\x00", b"\x0f\x00", b"\xf1\x00", b"\x31\xff\xff\xff\xff\xff\x01", b"\x36\x05\x00\x01x\x00\x01",
                packets.connect("again", version), b"\x20\x02\x00\x00", b"\x90\x03\x00\x01\x00", b"\xd0\x00", b"\x80\x05\x00\x01\x00\x01x",
                b"\x82\x02\x00\x01", b"\x82\x05\x00\x00\x00\x00\x00", b"\xc1\x00", b"\xc0\x01\x00", b"\x62\x01\x00", b"\x32\x03\x00\x01x",
                b"\x30\x04\x00\xffab", packets.publish("x", b"", 3, 1, version=version))

    said = {version: sayings(version) for version in (packets.V311, packets.V5)}
    # Instead of CONNECT, nothing at all is answered.
    first = (packets.PING, packets.publish("x", b"y"), packets.subscribe(["#"]), b"\xff" * 64, b"\x10\x06\x00\x04MQTX",
             b"\x10\x02\x00\x00", packets.connect("x", 6), packets.connect("x", 4)[:9] + b"\x03" + packets.connect("x", 4)[10:])

    async def client(line, number):
        await line.open()
        if number % 4 == 0:
            await line.send(first[number // 4 % len(first)])
        else:
            await line.ask(packets.connect(siege.client_id(), line.version), packets.CONNACK)
            await line.send(said[line.version][number % len(said[line.version])])
        for kind, _, body in await line.hear():
            siege.expect(kind == packets.DISCONNECT or packets.reasons(kind, body, line.version) not in ([0], []),
                         f"{packets.NAMES.get(kind)} answered a malformed packet")
        await line.stay()

    siege.crowd(63, client)
