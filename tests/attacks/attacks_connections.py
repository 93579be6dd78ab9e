"""Connections: as many as there are descriptors for, here or at the broker, and as fast as they can be made."""

import packets
from loop import pause
from siege import attack

#: One process may have 20,000 descriptors where this was written: so many are the attacker's.
MANY = 19_000
#: Of the broker that runs out of them: enough for the well-behaved, and for what it keeps.
FEW = 1_024


@attack("connections-storm", f"{MANY:,} clients that connect at once, and stay")
def storm(siege):
    async def client(line, _):
        await line.enter()
        await line.stay()

    siege.crowd(MANY, client)


@attack("connections-churn", "clients that connect and leave: with DISCONNECT, without a word, by reset, before CONNECT")
def churn(siege):
    async def client(line, number):
        if number % 4 == 0:
            await line.dial()
            return line.close(reset=number % 8 == 0)
        await line.enter()
        if number % 4 == 1:
            await line.send(packets.BYE)
        line.close(reset=number % 4 == 2)

    siege.crowd(64, client)


@attack("descriptors-exhausted", f"as many connections as there are descriptors for, of a broker that may have {FEW:,}", descriptors=FEW)
def descriptors(siege):
    async def client(line, number):
        if number % 2:
            await line.enter()
            return await line.stay()
        await line.dial()
        await pause(8)

    siege.crowd(2 * FEW, client)
