"""WebSocket as bytes (RFC 6455): the opening request, frames as a client sends them, and what a server sends."""

CONTINUED, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

#: A masking key of zeros is a key, and leaves the payload as it is.
KEY = bytes(4)


def request(port, path="/mqtt", more="", protocol="mqtt"):
    return (f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Protocol: {protocol}\r\n{more}\r\n").encode()


def frame(payload, opcode=BINARY, final=True, masked=True, length=None, reserved=0):
    """`length`: what it announces, if that is not how long it is."""
    announced = len(payload) if length is None else length
    mask = 0x80 if masked else 0
    head = bytes([(0x80 if final else 0) | reserved << 4 | opcode])
    if announced < 126:
        head += bytes([mask | announced])
    elif announced < 1 << 16:
        head += bytes([mask | 126]) + announced.to_bytes(2, "big")
    else:
        head += bytes([mask | 127]) + announced.to_bytes(8, "big")
    return head + (KEY if masked else b"") + payload


def in_pieces(payload):
    """One message, a byte in each frame."""
    last = len(payload) - 1
    return b"".join(frame(payload[at:at + 1], BINARY if at == 0 else CONTINUED, at == last) for at in range(len(payload)))


def split(heard):
    """Takes the whole frames of a server off the front of a bytearray, as long as they are asked for: (opcode, payload) each."""
    while len(heard) >= 2:
        length, at = heard[1] & 0x7F, 2
        if length == 126:
            length, at = int.from_bytes(heard[2:4], "big"), 4
        elif length == 127:
            length, at = int.from_bytes(heard[2:10], "big"), 10
        if len(heard) < at + length:
            return
        opcode, payload = heard[0] & 15, bytes(heard[at:at + length])
        del heard[:at + length]
        yield opcode, payload
