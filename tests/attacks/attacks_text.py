"""Text that is none, and names that are paths."""

import packets
from packets import CONTENT_TYPE, METHOD, REASON_STRING, RESPONSE_TOPIC, USER_PROPERTY, V5
from siege import attack

#: Ill-formed (RFC 3629), or a NUL, which MQTT has forbidden [MQTT-1.5.4-1, MQTT-1.5.4-2].
NO_TEXT = (b"\xff", b"\xc0\x80", b"\xc1\xbf", b"a\x80", b"\xe2\x82", b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xf0\x80\x80\xaf",
           b"\xf4\x90\x80\x80", b"\xf8\x88\x80\x80\x80", b"x\x00y", b"\x00")


def in_connect(bad, version):
    """A CONNECT for each place that text has in it."""
    yield packets.connect(bad, version)
    yield packets.connect("t", version, username=bad)
    yield packets.connect("t", version, will=(bad, b"", 1, False))
    if version == V5:
        yield packets.connect("t", given=packets.text(USER_PROPERTY, bad, "v"))
        yield packets.connect("t", given=packets.text(USER_PROPERTY, "k", bad))
        yield packets.connect("t", given=packets.text(METHOD, bad))
        for name in (CONTENT_TYPE, RESPONSE_TOPIC):
            yield packets.connect("t", will=("w", b"", 1, False, packets.text(name, bad)))
        yield packets.connect("t", will=("w", b"", 1, False, packets.text(USER_PROPERTY, bad, bad)))


def after_connect(bad, version):
    """Every other packet that has text in it."""
    yield packets.publish(bad, b"", 1, version=version)
    yield packets.subscribe([bad], version=version)
    yield packets.subscribe([b"a/" + bad + b"/+"], version=version)
    yield packets.subscribe([b"$share/" + bad + b"/x"], version=version)
    yield packets.unsubscribe([bad], version=version)
    if version == V5:
        for name in (CONTENT_TYPE, RESPONSE_TOPIC):
            yield packets.publish("x", b"", 1, given=packets.text(name, bad))
        yield packets.publish("x", b"", 1, given=packets.text(USER_PROPERTY, "k", bad))
        yield packets.subscribe(["x"], given=packets.text(USER_PROPERTY, bad, "v"))
        reason = packets.text(REASON_STRING, bad)
        yield packets.packet(packets.PUBACK, b"\0\1\0" + packets.integer(len(reason)) + reason)
        yield packets.packet(packets.DISCONNECT, b"\0" + packets.integer(len(reason)) + reason)


@attack("utf8-invalid", "ill-formed UTF-8 and NUL in every place that has text")
def utf8(siege):
    at_once = {version: [one for bad in NO_TEXT for one in in_connect(bad, version)] for version in (packets.V311, V5)}
    later = {version: [one for bad in NO_TEXT for one in after_connect(bad, version)] for version in (packets.V311, V5)}

    async def client(line, number):
        await line.open()
        # Versions alternate with the number, and so do the places with half of it.
        turn, half = divmod(number // 2, 2)
        if half:
            reason = await line.ask(at_once[line.version][turn % len(at_once[line.version])], packets.CONNACK)
            return siege.expect(reason != 0, "a CONNECT with ill-formed text was accepted")
        await line.ask(packets.connect(siege.client_id(), line.version), packets.CONNACK)
        await line.say(later[line.version][turn % len(later[line.version])] + packets.PING)
        for kind, _, body in await line.hear():
            is_refusal = all(reason >= 0x80 for reason in packets.reasons(kind, body, line.version))
            siege.expect(kind != packets.PINGRESP and is_refusal, "a packet with ill-formed text was accepted")
        await line.stay()

    siege.crowd(16, client)


def paths(name):
    """Where a name would lead, if it were one of a file."""
    return (f"../../{name}", f"../{name}", "../" * 40 + f"tmp/{name}", f"/tmp/{name}", f"/etc/{name}", f"./{name}", f"{name}/../../{name}",
            f"..\\..\\{name}", f"%2e%2e%2f{name}", f"file:///tmp/{name}", f"~/{name}", f"$(touch /tmp/{name})", f"`touch /tmp/{name}`",
            f"|touch /tmp/{name}", f"/proc/self/cwd/{name}", f"{name}\n/tmp/{name}", f"/dev/shm/{name}", "/" * 30 + name)


@attack("path-traversal", "client ids, user names and topics that are paths, of sessions and messages that are kept", keeps_mb=16)
def traversal(siege):
    names = paths(siege.given["file_mark"])
    nul = tuple(f"{name}\0.txt" for name in names)

    async def client(line, number):
        path = names[number // 4 % len(names)]
        if number % 4 == 3:
            # A NUL ends a name in C.
            reason = await line.enter(nul[number // 4 % len(names)])
            return siege.expect(reason != 0, "a client id with a NUL was accepted")
        given = {"clean": False, "username": path}
        if line.version == V5:
            given["given"] = packets.number(packets.SESSION_EXPIRY, 60, 4)
        if await line.enter(path, will=(path, b"will", 1, True), **given):
            return
        await line.ask(packets.subscribe([path, f"{path}/#"], version=line.version, qos=1), packets.SUBACK)
        await line.ask(packets.publish(path, path, 1, 1, True, line.version), packets.PUBACK, packets.DISCONNECT)
        line.close(reset=True)

    siege.crowd(12, client)
