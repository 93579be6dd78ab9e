"""Messages: more than anybody takes, and acknowledgements that never come."""

import packets
from loop import pause
from siege import attack

#: What may be in flight from one client; the protocol allows 65,535.
RECEIVE_MAXIMUM = 1_024
VERSIONS = (packets.V311, packets.V5)


def publishes(topic, payload, version, qos=0, count=200):
    return b"".join(packets.publish(topic, payload, qos, at % 60_000 + 1, version=version) for at in range(count))


@attack("retained-flood", "retained messages on ever new topics, of 128 bytes and of 64 KiB", keeps_mb=1_100)
def retained(siege):
    async def client(line, number):
        await line.enter()
        payload, at_once = (b"r" * (64 << 10), 4) if number % 4 == 0 else (b"r" * 128, 100)
        at = 0
        while True:
            topics = (siege.topic("retained", siege.own, number, at + step) for step in range(at_once))
            await line.exchange(b"".join(packets.publish(topic, payload, 1, step + 1, True, line.version)
                                         for step, topic in enumerate(topics)))
            at += at_once
            await line.await_seen(packets.PUBACK, at)

    siege.crowd(4, client)


@attack("qos2-packet-ids", "65,535 PUBLISHes at QoS 2 without a PUBREL; those within the window, and never more")
def packet_ids(siege):
    def flood(version):
        return b"".join(packets.publish("nobody/listens", b"2", 2, at, version=version) for at in range(1, 65_536))

    floods = {version: flood(version) for version in VERSIONS}
    inside = {version: publishes("nobody/listens", b"2", version, 2, RECEIVE_MAXIMUM) for version in VERSIONS}

    async def client(line, number):
        await line.enter()
        if number % 4 < 2:
            await line.exchange(floods[line.version])
            return await line.stay()
        await line.exchange(inside[line.version])
        # Not one more, and they stay as they are.
        await line.stay()

    siege.crowd(8, client)


def flooded(siege, client, readers, narrow=False, size=1_024):
    """Somebody publishes to those readers as fast as he is let."""
    topic = siege.topic("flooded", siege.own)

    async def publisher(line, number):
        await line.enter()
        stream = publishes(topic, b"f" * size, line.version, number % 2, 100)
        sent = 0
        while True:
            await line.exchange(stream)
            sent += 100
            if number % 2:
                await line.await_seen(packets.PUBACK, sent)

    async def reader(line, number):
        given = {} if line.version == packets.V311 else {"given": packets.number(packets.RECEIVE_MAXIMUM, 65_535, 2)}
        await line.enter(**given)
        await line.ask(packets.subscribe([topic], version=line.version, qos=1 + number % 2), packets.SUBACK)
        await client(line)

    siege.crowd(readers, reader, narrow=narrow)
    siege.crowd(4, publisher)


@attack("subscriber-never-acknowledges", "20 subscribers that read everything and acknowledge nothing, and who floods them")
def never_acknowledges(siege):
    async def client(line):
        while True:
            await line.some()

    flooded(siege, client, 20)


@attack("subscriber-never-reads", "20 subscribers that never read, with small buffers, and who floods them")
def never_reads(siege):
    async def client(line):
        await pause(3_600)

    flooded(siege, client, 20, narrow=True, size=8 << 10)


@attack("ping-flood", "PINGREQs as fast as they are taken")
def pings(siege):
    flood = packets.PING * 8_192

    async def client(line, _):
        await line.enter()
        while True:
            await line.exchange(flood, listens=False)

    siege.crowd(4, client)


@attack("publish-flood", "PUBLISHes at QoS 0 and 1 as fast as they are taken, to nobody")
def publish_flood(siege):
    floods = {(version, qos): publishes("nobody/listens", b"p" * 64, version, qos, 1_000) for version in VERSIONS for qos in (0, 1)}

    async def client(line, number):
        await line.enter()
        qos, sent = number // 2 % 2, 0
        while True:
            await line.exchange(floods[line.version, qos])
            sent += 1_000
            if qos:
                await line.await_seen(packets.PUBACK, sent)

    siege.crowd(4, client)


@attack("acknowledgements-unasked", "PUBACK, PUBREC, PUBREL and PUBCOMP for what was never sent")
def unasked(siege):
    kinds = (packets.PUBACK, packets.PUBREC, packets.PUBREL, packets.PUBCOMP)
    floods = [b"".join(packets.acknowledge(kind, at) for at in range(1, 2_000)) for kind in kinds]

    async def client(line, number):
        await line.enter()
        while True:
            await line.exchange(floods[number // 2 % len(floods)])

    siege.crowd(8, client)


@attack("alias-abuse", "topic aliases of nothing, of 0, beyond the maximum, and mapped anew in each packet")
def aliases(siege):
    def alias(value, topic=""):
        return packets.publish(topic, b"a", 1, 1, given=packets.number(packets.TOPIC_ALIAS, value, 2))

    wrong = (alias(5), alias(0, "x"), alias(33, "x"), alias(65_535, "x"), alias(65_535),
             packets.publish("x", b"", given=packets.number(packets.TOPIC_ALIAS, 1, 2) * 2))
    again = b"".join(packets.publish(siege.topic("alias", at), b"", given=packets.number(packets.TOPIC_ALIAS, at % 32 + 1, 2))
                     for at in range(1_000))

    async def client(line, number):
        await line.enter()
        if number % 4 == 0:
            while True:
                await line.exchange(again)
        reason = await line.ask(wrong[number % len(wrong)], packets.PUBACK, packets.DISCONNECT)
        siege.expect(reason >= 0x80, "an alias of nothing was taken")

    siege.crowd(16, client, version=packets.V5)
