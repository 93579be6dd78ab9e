"""What an account that is let in tries to read of another's, and to write to it, by every route there is.

`bob`'s topics have secrets, retained and fresh ones, which no line may hear; and what arrives at him that is not his own, he tells
(`victims.py`). `mallory` has a proof of her own; who only says that he is bob, on the listener that asks for nothing, is a stranger.
"""

import packets
from packets import DISCONNECT, PUBACK, PUBCOMP, PUBREC, SUBACK, V5, V311
from siege import attack

#: Filters that would bring something of bob's.
FILTERS = ("u/bob/#", "u/bob/news", "u/bob", "#", "+/#", "u/#", "u/+/news", "u/+/#", "+/bob/#", "+/+/+", "u/bob/+", "u/bob/secret",
           "$share/g/u/bob/#", "$share/g/#", "$share/g/+/bob/news", "$share/bob/u/+/#", "$SYS/#", "$SYS/broker/clients/+",
           "$share/g/$SYS/#", "$SYS/+/#")
#: How a topic of his may be called, and topics that only the broker has.
TOPICS = ("u/bob/news", "u/bob/secret", "u/bob/a/b/c", "u/bob", "u/bob/", "$SYS/broker/uptime", "$SYS/x")
#: Somebody else's word for what is his is no topic of his, and harmless.
OTHERS = ("/u/bob/news", "U/BOB/news", "u//bob/news", "u/bob\u200b/news", "u/../u/bob/news")

#: Client ids of bob's own sessions; the last is away, with messages in its queue.
BOBS = ("bob-listens", "bob-speaks", "bob-away")


def identities(siege):
    """Door, and what is said there. With a token any user name may be said."""
    right = {"username": "mallory", "password": siege.given["passwords"]["mallory"]}
    token = {"username": "bob", "password": siege.given["own_token"]}
    return (("guarded", right), ("guarded", token), ("tls", token), ("wss", token), ("plain", {"username": "bob"}), ("plain", {}))


def crowds(siege, client, count=4):
    """As each of them."""
    for door, shown in identities(siege):
        async def entering(line, number, shown=shown):
            named = BOBS[number // 8 % len(BOBS)] if number % 8 >= 6 else None
            if await line.enter(named, **shown) == 0:
                await client(line, number)

        siege.crowd(count, entering, door)


@attack("accounts-subscribe", "to another account's topics: by wildcards, shared, $SYS, retained, with its client ids or its name")
def subscribes(siege):
    async def client(line, number):
        for at, name in enumerate(FILTERS):
            # Every option there is: retained always, never, as published; no own ones.
            options = (0, 1, 2, 0x08, 0x10, 0x20, 0x04)[(number + at) % 7] if line.version == V5 and "$share" not in name else at % 3
            reason = await line.ask(packets.subscribe([(name, options)], at + 1, line.version), SUBACK, DISCONNECT)
            siege.expect(reason >= 0x80, f"{name} was granted")
        # Those of one packet are judged one by one.
        await line.say(packets.subscribe([siege.topic("own"), "u/bob/news", siege.topic("two")], 99, line.version))
        for kind, _, body in await line.hear():
            if kind == SUBACK:
                granted = [reason < 0x80 for reason in packets.reasons(kind, body, line.version)]
                siege.expect(granted == [True, False, True], f"{granted} granted of own, bob's, own")
        await line.ask(packets.PING, packets.PINGRESP)

    crowds(siege, client)


async def published(line, topic, qos, retain, given=b"", named=None):
    """The reason; None: there is none at QoS 0, and the connection goes on."""
    packet = packets.publish(topic if named is None else named, line.siege.mark, qos, 7, retain, line.version, given)
    if qos == 0:
        await line.ask(packet + packets.PING, packets.PINGRESP)
        return None
    reason = await line.ask(packet, PUBACK, PUBREC, DISCONNECT)
    if qos == 2 and reason < 0x80:
        await line.ask(packets.acknowledge(packets.PUBREL, 7), PUBCOMP)
    return reason


@attack("accounts-publish", "to another account's topics: at each QoS, retained, through aliases, with its client ids or its name")
def publishes(siege):
    async def client(line, number):
        topic = TOPICS[number // 2 % len(TOPICS)]
        for qos in (0, 1, 2):
            for retain in (False, True):
                # 3.1.1 has no word for it: there the connection ends.
                reason = await published(line, topic, qos, retain)
                siege.expect(reason is None or reason >= 0x80, f"{topic} was taken at QoS {qos}")
        if line.version == V311:
            siege.violation("a refused message was acknowledged to 3.1.1")
        alias = packets.number(packets.TOPIC_ALIAS, 1, 2)
        response = packets.text(packets.RESPONSE_TOPIC, "u/bob/news")
        for given, named in ((alias, None), (alias, ""), (response, None)):
            reason = await published(line, topic, 1, False, given, named)
            siege.expect(reason >= 0x80, f"{topic} was taken by an alias")
        for other in OTHERS:
            await published(line, other, 1, True)

    crowds(siege, client)


@attack("accounts-will", "wills to another account's topics: at each QoS, retained, with a delay")
def wills(siege):
    def crowd(door, shown):
        async def client(line, number):
            topic = TOPICS[number // 2 % len(TOPICS)]
            more = (packets.number(packets.WILL_DELAY, number % 2, 4),) if line.version == V5 else ()
            will = (topic, siege.mark, number % 3, number % 5 == 0, *more)
            reason = await line.enter(will=will, **shown)
            siege.expect(reason != 0, f"a will to {topic} was taken")

        siege.crowd(4, client, door)

    for door, shown in identities(siege):
        crowd(door, shown)


@attack("accounts-sessions", "another account's client ids, with and without a clean start, to take its sessions over or to end them")
def sessions(siege):
    def crowd(door, shown):
        async def client(line, number):
            await line.open()
            # Those of bob's own that are connected must stay so, and the queue of the one that is away must be there for him.
            name, clean = BOBS[number // 4 % len(BOBS)], number // 2 % 2 == 0
            await line.ask(packets.connect(name, line.version, clean=clean, **shown), packets.CONNACK)
            if not clean:
                # What would be there, would come now.
                await line.ask(packets.PING, packets.PINGRESP)

        siege.crowd(4, client, door)

    for door, shown in identities(siege):
        crowd(door, shown)
