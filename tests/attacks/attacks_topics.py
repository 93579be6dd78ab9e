"""Topics and filters: as deep as the protocol allows, as many as there is room for, and such that match everything."""

import packets
from siege import attack

#: Of one string [MQTT 1.5.4]: one level more than it has slashes.
LEVELS = 65_535
DEEP = "/" * (LEVELS - 1)
#: What a session may have, and all of them together with a wildcard at their beginning; a few more are tried.
SUBSCRIPTIONS_MAX, BROAD_MAX = 1_024, 4_096
CHURN = 64


@attack("topic-65535-levels", "PUBLISH, SUBSCRIBE and will with a topic of 65,535 levels")
def levels(siege):
    wild = "/".join("+" * (LEVELS // 2))

    async def client(line, number):
        if number % 3 == 2:
            reason = await line.enter(will=(DEEP, b"", 1, False))
            return siege.expect(reason != 0, "a will with 65,535 levels was taken")
        await line.enter()
        if number % 3 == 0:
            reason = await line.ask(packets.publish(DEEP, b"", 1, version=line.version), packets.PUBACK, packets.DISCONNECT)
            return siege.expect(reason >= 0x80, "65,535 levels were published")
        for deep in (DEEP, DEEP[:-1] + "#", wild, "$share/g/" + DEEP[:60_000]):
            reason = await line.ask(packets.subscribe([deep], version=line.version), packets.SUBACK, packets.DISCONNECT)
            siege.expect(reason >= 0x80, "65,535 levels were subscribed to")

    siege.crowd(12, client)


@attack("subscriptions-to-the-limit", f"clients that subscribe {SUBSCRIPTIONS_MAX:,} times and {CHURN} times more, and stay")
def to_the_limit(siege):
    async def client(line, number):
        await line.enter()
        for begin in range(0, SUBSCRIPTIONS_MAX + CHURN, CHURN):
            filters = [siege.topic("limit", number, at, "+") for at in range(begin, begin + CHURN)]
            await line.exchange(packets.subscribe(filters, version=line.version, qos=1))
        await line.stay()

    siege.crowd(100, client)


@attack("subscriptions-broad", f"filters with a wildcard where a topic's place is decided, three times {BROAD_MAX:,}")
def broad(siege):
    async def client(line, number):
        await line.enter()
        for begin in range(0, SUBSCRIPTIONS_MAX, CHURN):
            filters = [f"{siege.mark}/+/{number}/{at}/#" for at in range(begin, begin + CHURN)]
            await line.exchange(packets.subscribe(filters, version=line.version))
        await line.stay()

    siege.crowd(3 * BROAD_MAX // SUBSCRIPTIONS_MAX, client)


@attack("subscribe-250000-filters", "SUBSCRIBE and UNSUBSCRIBE with 250,000 filters in one packet")
def many_filters(siege):
    def packed(version):
        # A string of one byte, with its options or without.
        one, other = packets.string("a") + b"\1", b"".join(packets.string(chr(97 + at)) for at in range(26))
        head = b"\0\1" + packets.properties(version, b"")
        return packets.packet(packets.SUBSCRIBE, head + one * 250_000, 2), packets.packet(packets.UNSUBSCRIBE, head + other * 10_000, 2)

    both = {version: packed(version) for version in (packets.V311, packets.V5)}

    async def client(line, number):
        await line.enter()
        await line.exchange(both[line.version][number // 2 % 2])
        await line.answer(packets.SUBACK, packets.UNSUBACK, packets.DISCONNECT)

    siege.crowd(3, client)


@attack("wildcard-storm", "wildcards on ten levels that come and go, and PUBLISHes that all of them match")
def wildcards(siege):
    filters = ["/".join("+" if at << 1 >> bit & 1 else "w" for bit in range(11)) + "/#" for at in range(1_000)]
    topic = "/".join("w" * 31)

    def churn(version):
        return b"".join(packets.subscribe(filters[at:at + 50], at + 1, version) + packets.unsubscribe(filters[at:at + 50], at + 2, version)
                        for at in range(0, len(filters), 50))

    churns = {version: churn(version) for version in (packets.V311, packets.V5)}
    storms = {version: packets.publish(topic, b"w", version=version) * 200 for version in (packets.V311, packets.V5)}

    async def client(line, number):
        await line.enter()
        if number % 4 == 0:
            await line.exchange(packets.subscribe(filters[:500], version=line.version))
            while True:
                await line.exchange(storms[line.version], listens=False)
        while True:
            await line.exchange(churns[line.version])

    siege.crowd(8, client)


@attack("filters-malformed", "wildcards in topic names, and filters that are none")
def malformed_filters(siege):
    names = ("#", "a/#", "+", "a/+/b", "")
    filters = ("", "a#", "#/a", "a/#/b", "+a", "a/b+", "$share/", "$share/g", "$share//x", "$share/+/x", "$share/g#/x", "$share/g/")

    async def client(line, number):
        await line.enter()
        if number // 2 % 2:
            said = names[number // 4 % len(names)]
            reason = await line.ask(packets.publish(said, b"", 1, version=line.version), packets.PUBACK, packets.DISCONNECT)
        else:
            said = filters[number // 4 % len(filters)]
            reason = await line.ask(packets.subscribe([said], version=line.version), packets.SUBACK, packets.DISCONNECT)
        siege.expect(reason >= 0x80, f"{said!r} was taken as a topic or filter")

    siege.crowd(27, client)
