"""MQTT packets as bytes, well-formed or not: an attack is written once, before it begins, and then only sent.

Decides how each packet type is laid out (MQTT 3.1.1 and 5, chapters 2 and 3), and what an answer's reason is called. Nothing here
checks what it is given: text may be bytes that are no text, lengths may lie.
"""

V311, V5 = 4, 5

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = 1, 2, 3, 4, 5, 6, 7
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT, AUTH = 8, 9, 10, 11, 12, 13, 14, 15

NAMES = {CONNACK: "CONNACK", PUBLISH: "PUBLISH", PUBACK: "PUBACK", PUBREC: "PUBREC", PUBREL: "PUBREL", PUBCOMP: "PUBCOMP",
         SUBACK: "SUBACK", UNSUBACK: "UNSUBACK", PINGRESP: "PINGRESP", DISCONNECT: "DISCONNECT", AUTH: "AUTH"}

#: The most that the four bytes of a remaining length can say.
REMAINING_LENGTH_MAX = 268_435_455

PING = b"\xc0\x00"
BYE = b"\xe0\x00"

# Properties of version 5, by identifier [MQTT 2.2.2.2].
EXPIRY, CONTENT_TYPE, RESPONSE_TOPIC, SESSION_EXPIRY = 0x02, 0x03, 0x08, 0x11
METHOD, DATA, WILL_DELAY, RECEIVE_MAXIMUM, TOPIC_ALIAS, USER_PROPERTY = 0x15, 0x16, 0x18, 0x21, 0x23, 0x26
REASON_STRING = 0x1F


def raw(text):
    return text if isinstance(text, bytes) else text.encode()


def integer(value):
    """A variable byte integer [MQTT 1.5.5]."""
    out = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        out.append(low | (0x80 if value else 0))
        if not value:
            return bytes(out)


def string(text):
    text = raw(text)
    return len(text).to_bytes(2, "big") + text


def number(identifier, value, size):
    """A property that is a number of that many bytes."""
    return bytes([identifier]) + value.to_bytes(size, "big")


def text(identifier, *texts):
    """A property of one string, or of two."""
    return bytes([identifier]) + b"".join(map(string, texts))


def properties(version, given):
    return integer(len(given)) + given if version == V5 else b""


def packet(kind, body, flags=0):
    return bytes([kind << 4 | flags]) + integer(len(body)) + body


def connect(client_id, version=V5, username=None, password=None, will=None, clean=True, given=b"", keep_alive=600):
    """`will`: topic, payload, QoS, retain, and properties if there are any."""
    flags, payload = (2 if clean else 0), string(client_id)
    if will is not None:
        topic, message, qos, retain, *more = will
        flags |= 4 | qos << 3 | (32 if retain else 0)
        payload += properties(version, b"".join(more)) + string(topic) + string(message)
    if username is not None:
        flags, payload = flags | 128, payload + string(username)
    if password is not None:
        flags, payload = flags | 64, payload + string(password)
    head = string("MQTT") + bytes([version, flags]) + keep_alive.to_bytes(2, "big")
    return packet(CONNECT, head + properties(version, given) + payload)


def publish(topic, payload=b"", qos=0, packet_id=1, retain=False, version=V5, given=b"", duplicate=False):
    number = packet_id.to_bytes(2, "big") if qos else b""
    body = string(topic) + number + properties(version, given) + raw(payload)
    return packet(PUBLISH, body, (8 if duplicate else 0) | qos << 1 | int(retain))


def subscribe(filters, packet_id=1, version=V5, qos=0, given=b""):
    """`filters`: texts, or texts with options."""
    pairs = ((one, qos) if isinstance(one, (str, bytes)) else one for one in filters)
    body = b"".join(string(name) + bytes([options]) for name, options in pairs)
    return packet(SUBSCRIBE, packet_id.to_bytes(2, "big") + properties(version, given) + body, 2)


def unsubscribe(filters, packet_id=1, version=V5):
    body = b"".join(map(string, filters))
    return packet(UNSUBSCRIBE, packet_id.to_bytes(2, "big") + properties(version, b"") + body, 2)


def acknowledge(kind, packet_id):
    return packet(kind, packet_id.to_bytes(2, "big"), 2 if kind == PUBREL else 0)


def auth(method, data, reason=0x18):
    given = text(METHOD, method) + text(DATA, data)
    return packet(AUTH, bytes([reason]) + properties(V5, given))


def read_integer(body, at=0):
    """A variable byte integer, and where it ends."""
    value = shift = 0
    while True:
        byte = body[at]
        value, shift, at = value | (byte & 0x7F) << shift, shift + 7, at + 1
        if byte < 0x80:
            return value, at


def split(heard):
    """Takes whole packets off the front of a bytearray, as long as they are asked for: (type, flags, body) each."""
    at, end = 0, len(heard)
    try:
        while (found := frame_at(heard, at, end)) is not None:
            kind, begin, at = heard[at], *found
            yield kind >> 4, kind & 15, bytes(heard[begin:at])
    finally:
        del heard[:at]


def frame_at(heard, at, end):
    """Where the body of the packet there begins and ends; None: not all of it is there."""
    length, shift, begin = 0, 0, at + 1
    while begin < end:
        byte = heard[begin]
        begin += 1
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return (begin, begin + length) if begin + length <= end else None
    return None


def reasons(kind, body, version):
    """The reason codes of an answer; an acknowledgement without one says success [MQTT-3.4.2-1]."""
    if kind == CONNACK:
        return [body[1]]
    if kind in (SUBACK, UNSUBACK):
        at = 2
        if version == V5:
            length, at = read_integer(body, 2)
            at += length
        return list(body[at:])
    if kind in (PUBACK, PUBREC, PUBREL, PUBCOMP):
        return [body[2] if len(body) > 2 else 0]
    if kind in (DISCONNECT, AUTH):
        return [body[0] if body else 0]
    return []


#: What a refusal means [MQTT 2.4]; below 6 they are return codes of version 3.1.1 [MQTT 3.2.2.3].
REASONS = {
    1: "protocol version", 2: "client id", 3: "unavailable", 4: "bad user name or password", 5: "not authorized",
    0x80: "refused", 0x81: "malformed packet", 0x82: "protocol error", 0x83: "implementation specific", 0x84: "protocol version",
    0x85: "client id not valid", 0x86: "bad user name or password", 0x87: "not authorized", 0x88: "unavailable", 0x89: "busy",
    0x8B: "shutting down", 0x8C: "bad method", 0x8D: "keep alive", 0x8E: "session taken over", 0x8F: "filter invalid",
    0x90: "topic name invalid", 0x91: "packet id in use", 0x92: "packet id not found", 0x93: "receive maximum exceeded",
    0x94: "topic alias invalid", 0x95: "packet too large", 0x96: "message rate too high", 0x97: "quota exceeded",
    0x99: "payload format", 0x9F: "connection rate exceeded", 0xA0: "maximum connect time", 0xA2: "wildcards not supported",
}


def called(kind, reason):
    """`CONNACK 0x87 not authorized`."""
    return f"{NAMES[kind]} {reason:#04x} {REASONS.get(reason, '')}".rstrip()
