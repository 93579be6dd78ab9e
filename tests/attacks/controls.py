"""Controls: neighbours that behave, and one that has nothing to do with the broker. What they move is what any business does on this
machine, and no attack can be held to less."""

import socket
import struct

import packets
from loop import pause, turn
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


@attack("control-elsewhere", "no attack: connections of the attacker to itself, as fast as it can where attackers are; none to the broker")
def elsewhere(siege):
    listener = socket.create_server(("127.0.0.1", 0), backlog=16)
    reset_at_end = struct.pack("ii", 1, 0)

    async def talk():
        while True:
            with socket.create_connection(listener.getsockname()) as here, listener.accept()[0] as there:
                # Else the port of each would be kept for a minute.
                here.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset_at_end)
                for sender, receiver in ((here, there), (there, here)):
                    sender.sendall(bytes(1_024))
                    receiver.recv(1_024)
            siege.tally.attempts += 1
            await turn()

    siege.loop.start(talk())
