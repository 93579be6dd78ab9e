"""Controls: neighbours that behave. What they move is what any business does on this machine, and no attack can be held to less."""

import packets
from loop import pause
from siege import attack

NEIGHBOURS = 50


@attack("control-messages", f"no attack: {NEIGHBOURS} clients that each send themselves 20 messages a second, acknowledged")
def messages(siege):
    async def client(line, number):
        await line.enter()
        topic = siege.topic("control", number)
        await line.ask(packets.subscribe([topic], version=line.version), packets.SUBACK)
        while True:
            await line.ask(packets.publish(topic, bytes(100), 1, version=line.version), packets.PUBACK)
            await pause(0.05)

    siege.crowd(NEIGHBOURS, client)


@attack("control-logins", "no attack: some 300 clients a second that connect, subscribe, and take their leave")
def logins(siege):
    async def client(line, number):
        await line.enter()
        await line.ask(packets.subscribe([siege.topic("control", number)], version=line.version), packets.SUBACK)
        await pause(0.1)
        await line.send(packets.BYE)

    siege.crowd(NEIGHBOURS * 2 // 3, client)
