"""What aiomqtt sees: an asyncio client with an interface of its own on top of paho's protocol code."""

import asyncio

import aiomqtt

from scenario import scenario

WAIT_SECONDS = 20


def client(broker, client_id, **given):
    if broker.is_web:
        given.update(transport="websockets", websocket_path="/mqtt")
    if broker.authority:
        given["tls_params"] = aiomqtt.TLSParameters(
            ca_certs=str(broker.authority), **dict(zip(("certfile", "keyfile"), broker.shown or ())))
    return aiomqtt.Client("127.0.0.1", broker.port, identifier=client_id, **given)


async def collect(connection, count):
    got = []
    async for message in connection.messages:
        got.append((str(message.topic), message.payload.decode(), message.qos))
        if len(got) == count:
            return got
    raise AssertionError(f"the stream ended after {len(got)} of {count}")


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, WAIT_SECONDS))


async def echo(broker, name, **given):
    async with client(broker, f"aio-echo-{name}", **given) as connection:
        await connection.subscribe(f"aio/{name}/#", qos=2)
        for qos in (0, 1, 2):
            for number in range(30):
                await connection.publish(f"aio/{name}/{qos}", str(number), qos=qos)
        got = await collect(connection, 90)
    assert got == [(f"aio/{name}/{qos}", str(number), qos) for qos in (0, 1, 2) for number in range(30)], got


@scenario
def aiomqtt_messages_of_each_qos_come_back_in_order(broker):
    run(echo(broker, "v311", protocol=aiomqtt.ProtocolVersion.V311))
    run(echo(broker, "v5", protocol=aiomqtt.ProtocolVersion.V5))


async def many(broker):
    """Several clients of one loop, all to all."""
    async def member(number):
        async with client(broker, f"aio-many-{number}") as connection:
            await connection.subscribe("aio-many/+", qos=1)
            await ready.wait()
            await connection.publish(f"aio-many/{number}", str(number), qos=1)
            return sorted(int(payload) for _, payload, _ in await collect(connection, 20))
    ready = asyncio.Barrier(20)
    for got in await asyncio.gather(*(member(number) for number in range(20))):
        assert got == list(range(20)), got


@scenario
def aiomqtt_twenty_clients_all_hear_each_other(broker):
    run(many(broker))


async def leave_session(broker):
    async with client(broker, "aio-queue", clean_session=False) as connection:
        await connection.subscribe("aio-queue/#", qos=1)
    async with client(broker, "aio-queue-writer") as connection:
        for number in range(100):
            await connection.publish("aio-queue/x", str(number), qos=1)


async def find_session(broker):
    async with client(broker, "aio-queue", clean_session=False) as connection:
        return [int(payload) for _, payload, _ in await collect(connection, 100)]


@scenario
def aiomqtt_a_session_queues_while_it_is_away_and_through_a_crash(broker):
    run(leave_session(broker))
    broker.restart()
    assert run(find_session(broker)) == list(range(100))
