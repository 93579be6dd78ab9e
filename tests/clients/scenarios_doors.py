"""Other ways to the broker where a proof is asked for: a Unix socket, proxies, IPv6, WebSocket."""

import contextlib
import shutil
import socket
import stat
import subprocess

from guarded import Door, another, free_ports
from guest import Guest, answer, known, mosquitto, node, over_socket
from paho_client import V5, V311
from proofs import PASSWORDS, plant
from scenario import scenario, until

VERSIONS = (V311, V5)
WAIT_SECONDS = 20
#: CONNECT of version 3.1.1 with user name `alice` and no password.
CONNECT = b"\x10\x14\x00\x04MQTT\x04\x82\x00\x3c\x00\x01s\x00\x05alice"


@scenario
def doors_unix_socket_asks_for_proof_too(broker):
    with another(broker) as own:
        found = own.socket.stat()
        assert stat.S_ISSOCK(found.st_mode) and stat.S_IMODE(found.st_mode) == 0o660, oct(found.st_mode)
        for version in VERSIONS:
            assert over_socket(own.socket, "alice", PASSWORDS["alice"], version) == 0
            for _ in range(4):
                # A socket is no address that could be slowed down.
                assert over_socket(own.socket, "alice", "heron-7f3a9d", version) == (0x86 if version == V5 else 4)
            flags = ("-q", "1", "-t", "u/alice/x", "-m", plant("dunnock-payload"))
            assert mosquitto("mosquitto_pub", own.socket, version, *flags, username="alice", password=PASSWORDS["alice"])[0] == 0
            code, said = mosquitto("mosquitto_pub", own.socket, version, *flags)
            assert code == (0x87 if version == V5 else 5), (code, said)
        # One that a crash left is replaced; one that is taken, or something else, is not.
        own.crash()
        assert own.socket.exists()
        own.start()
        assert over_socket(own.socket, "alice", PASSWORDS["alice"]) == 0
        with another(broker) as second:
            second.stop()
            assert not second.socket.exists(), "it is gone after a stop"
            kept, second.socket = second.socket, own.socket
            expect_no_start(second, str(own.socket))
            second.socket = kept
            kept.write_text("a file\n")
            expect_no_start(second, str(kept))
            assert kept.read_text() == "a file\n"
            kept.unlink()
            second.hook.start()
            second.start()
        assert over_socket(own.socket, "alice", PASSWORDS["alice"]) == 0


def expect_no_start(broker, named):
    before = len(broker.log_text())
    try:
        broker.start()
    except AssertionError as error:
        assert "the broker ended with" in str(error), error
    else:
        raise AssertionError("it started where it should not")
    assert named in broker.log_text()[before:]


@contextlib.contextmanager
def proxy(broker):
    """HAProxy in front of the listener that takes headers: version 1, version 2, and version 2 from IPv6."""
    program = shutil.which("haproxy") or "/usr/sbin/haproxy"
    first, second, unknown = free_ports(3)
    six = free_ports(1, "::1")[0]
    settings, log = broker.folder / "haproxy.cfg", broker.folder / "haproxy.log"
    text = "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1m\n  timeout server 1m\n"
    for name, bind, to, how in (("v1", f"127.0.0.1:{first}", broker.proxied.port, "send-proxy"),
                                ("v2", f"127.0.0.1:{second}", broker.proxied.port, "send-proxy-v2"),
                                ("six", f"[::1]:{six}", broker.proxied.port, "send-proxy-v2"),
                                ("unknown", f"127.0.0.1:{unknown}", broker.strange.port, "send-proxy")):
        text += f"listen {name}\n  bind {bind}\n  server broker 127.0.0.1:{to} {how}\n"
    settings.write_text(text)
    with log.open("wb") as words:
        process = subprocess.Popen([program, "-db", "-f", str(settings)], stdout=words, stderr=words)
    doors = {"v1": Door(first), "v2": Door(second), "six": Door(six, "::1"), "unknown": Door(unknown)}
    try:
        for door in doors.values():
            until(lambda door=door: is_open(door) or process.poll() is not None, "HAProxy")
        assert process.poll() is None, log.read_text()
        yield doors
    finally:
        process.terminate()
        process.wait()


def is_open(door):
    with socket.socket(socket.AF_INET6 if ":" in door.host else socket.AF_INET) as probe:
        return probe.connect_ex((door.host, door.port)) == 0


@scenario
def doors_proxies_say_where_clients_come_from(broker):
    with another(broker) as own, proxy(own) as doors:
        right, wrong = PASSWORDS["alice"], plant("heron-7f3a9d")
        sources = {"v1": "127.0.0.5", "v2": "127.0.0.6", "six": "::1"}
        for version in VERSIONS:
            for name, source in sources.items():
                assert answer(doors[name], version, "alice", right, source=source) == 0, name
        # Its first wrong proof is another's seventh, if it is the proxy that is counted.
        for source in ("127.0.0.5", "127.0.0.7"):
            codes = [answer(doors["v1"], V5, "bob", wrong, source=source) for _ in range(6)]
            assert codes == [0x86] * 6, (source, codes)
        assert answer(doors["v2"], V5, "bob", wrong, source="127.0.0.8") == 0x86
        assert answer(doors["six"], V5, "bob", wrong) == 0x86
        for peer in ("127.0.0.5", "127.0.0.7", "127.0.0.8", "::1"):
            assert any("turned_away" in line and f'"{peer}"' in line for line in own.log_text().splitlines()), peer
        flags = ("-q", "1", "-t", "u/alice/x", "-m", "")
        assert mosquitto("mosquitto_pub", doors["v2"], V5, *flags, username="alice", password=right)[0] == 0
        entered = node("enter", doors["v1"], username="alice", password=right, publish=[["u/alice/x", 2, "pipit-payload"]])
        assert entered["publish"] in ([0], [0x10]), entered
        # A proxy that is not known, with whatever it says.
        assert answer(doors["unknown"], V5, "alice", right) == "closed"


def heard(door, *pieces):
    """What comes back from a connection that says that; it is over then."""
    with socket.create_connection((door.host, door.port), timeout=WAIT_SECONDS) as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        said = b""
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                peer.sendall(piece)
            while more := peer.recv(100):
                said += more
        return said


@scenario
def doors_proxied_listener_takes_nobody_without_a_header(broker):
    header = b"PROXY TCP4 198.51.100.7 127.0.0.1 4000 1883\r\n"
    refused = b"\x20\x02\x00\x05"
    # In one piece, behind one another, and byte by byte.
    for pieces in ([header + CONNECT], [header, CONNECT], [bytes([byte]) for byte in header + CONNECT]):
        assert heard(broker.proxied, *pieces) == refused, pieces
    assert "198.51.100.7" in broker.log_text()
    assert heard(broker.proxied, CONNECT) == b"", "without"
    assert heard(broker.proxied, b"PROXY TCP4 198.51.100.7 127.0.0.1 4000\r\n" + CONNECT) == b"", "not well-formed"
    assert heard(broker.strange, header + CONNECT) == b"", "not from there"
    assert heard(broker.strange, CONNECT) == b""
    # And where none is asked for, none is taken.
    assert heard(broker.plain, header + CONNECT + bytes(100)) == b""
    assert heard(broker.plain, CONNECT) == refused


@scenario
def doors_ipv6_is_as_good(broker):
    for version in VERSIONS:
        guest = known(broker.six, "alice", "six", version)
        guest.subscribe("u/alice/#", 2)
        guest.publish("u/alice/x", plant("dunnock-payload"), 2)
        guest.expect(["dunnock-payload"])
        guest.close()
        assert answer(broker.six, version, "alice") == (0x87 if version == V5 else 5)
        flags = ("-q", "1", "-t", "u/alice/x", "-m", "")
        assert mosquitto("mosquitto_pub", broker.six, version, *flags, username="alice", password=PASSWORDS["alice"])[0] == 0


@scenario
def doors_websockets_take_tokens(broker):
    made, door = broker.proofs, broker.web
    for version in VERSIONS:
        token = made.token("ES256", sub="alice")
        guest = Guest(door, "web", version, "t", token)
        guest.subscribe("u/alice/#", 1)
        guest.publish("u/alice/x", plant("dunnock-payload"), 1)
        guest.expect(["dunnock-payload"])
        guest.close()
        entered = node("enter", door, version, username="t", password=token, publish=[["u/alice/x", 1, "pipit-payload"]],
                       subscribe=[["u/alice/x", 1], ["u/bob/x", 1]])
        assert entered["subscribe"] == [1, 0x87 if version == V5 else 0x80], entered
        bad = made.token("ES256", sub="alice", iss="other")
        assert node("enter", door, version, username="t", password=bad) == {"code": 0x87 if version == V5 else 5}
        assert answer(door, version, "alice", PASSWORDS["alice"]) == 0
