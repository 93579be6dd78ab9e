"""Sessions: two that take each other's, wills without end, and sessions that are made and left."""

import packets
from loop import pause
from siege import attack

NAMES = 20


@attack("takeover-war", f"two parties that take {NAMES} client ids from each other, as fast as they are let")
def takeover(siege):
    def war(clean):
        async def client(line, number):
            given = {} if line.version == packets.V311 else {"given": packets.number(packets.SESSION_EXPIRY, 60, 4)}
            await line.enter(f"{siege.mark}-war-{number % NAMES}", clean=clean, **given)
            await line.ask(packets.subscribe([siege.topic("war", number % NAMES, "#")], version=line.version, qos=1), packets.SUBACK)
            while True:
                await line.exchange(packets.publish(siege.topic("war", number % NAMES, "x"), b"mine", 1, 1, version=line.version))
                await pause(0.01)
        return client

    # Both parties of a name have the same remainder.
    siege.crowd(2 * NAMES, war(clean=False))


@attack("will-storm", "clients that leave a will of 32 KiB to 50 others, and vanish")
def wills(siege):
    topic = siege.topic("wills")

    async def heir(line, _):
        await line.enter()
        await line.ask(packets.subscribe([topic], version=line.version, qos=1), packets.SUBACK)
        while True:
            for kind, flags, body in await line.hear():
                if kind == packets.PUBLISH and flags & 6:
                    at = 2 + int.from_bytes(body[:2], "big")
                    await line.say(packets.acknowledge(packets.PUBACK, int.from_bytes(body[at:at + 2], "big")))

    async def dying(line, number):
        will = (topic, b"w" * (32 << 10), number % 3, False)
        await line.enter(will=will)
        line.close(reset=True)

    siege.crowd(50, heir)
    siege.crowd(16, dying)


@attack("will-delays", "clients with wills that wait for an hour, and never come back", keeps_mb=64)
def delayed_wills(siege):
    async def client(line, number):
        given = packets.number(packets.SESSION_EXPIRY, 3_600, 4)
        will = (siege.topic("delayed", number), b"w" * 1_024, 1, True, packets.number(packets.WILL_DELAY, 3_600, 4))
        await line.enter(will=will, clean=False, given=given)
        line.close(reset=True)

    siege.crowd(8, client, version=packets.V5)


@attack("sessions-abandoned", "a new durable session with 20 subscriptions for each connection", keeps_mb=256)
def abandoned(siege):
    async def client(line, number):
        given = {} if line.version == packets.V311 else {"given": packets.number(packets.SESSION_EXPIRY, 3_600, 4)}
        await line.enter(clean=False, **given)
        filters = [siege.topic("abandoned", number, at) for at in range(20)]
        await line.ask(packets.subscribe(filters, version=line.version, qos=1), packets.SUBACK)
        line.close()

    siege.crowd(8, client)
