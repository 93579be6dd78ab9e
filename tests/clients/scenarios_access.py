"""Who is let in, by each proof that there is, and who is not."""

import signal
import socket
import time

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from guarded import another
from guest import CLOSED, SCRAM, Guest, answer, known, mosquitto, node
from paho_client import V5, V311
from proofs import AUDIENCE, PASSWORDS, plant
from scenario import scenario, until

VERSIONS = (V311, V5)


def by(v311, v5, version):
    return v5 if version == V5 else v311


@scenario
def access_passwords_let_in_whom_they_belong_to(broker):
    for version in VERSIONS:
        with another(broker) as own:
            door, right, wrong = own.plain, PASSWORDS["alice"], plant("heron-7f3a9d")
            assert answer(door, version, "alice", right) == 0
            assert answer(door, version, "alice", wrong) == by(4, 0x86, version)
            assert answer(door, version, "nobody", right) == by(4, 0x86, version)
            assert answer(door, version, "alice", PASSWORDS["bob"]) == by(4, 0x86, version)
            # Nothing of what is asked for is shown.
            assert answer(door, version, "alice") == by(5, 0x87, version)
            assert answer(door, version) == by(5, 0x87, version)
            # What was wrong at alice's account is taken back by this.
            assert answer(door, version, "alice", right) == 0
            publish = ("-i", "m", "-q", "1", "-t", "u/alice/x", "-m", plant("dunnock-payload"))
            assert mosquitto("mosquitto_pub", door, version, *publish, username="alice", password=right)[0] == 0
            code, said = mosquitto("mosquitto_pub", door, version, *publish, username="alice", password=wrong)
            assert code == by(4, 0x86, version), (code, said)
            code, said = mosquitto("mosquitto_sub", door, version, "-t", "x", "-E")
            assert code == by(5, 0x87, version), (code, said)
            entered = node("enter", door, version, username="alice", password=right, publish=[["u/alice/x", 1, "pipit-payload"]])
            assert entered == {"code": 0, "publish": [0], "subscribe": []}, entered
            assert node("enter", door, version, username="alice", password=wrong) == {"code": by(4, 0x86, version)}
            assert node("enter", door, version) == {"code": by(5, 0x87, version)}
            assert "turned_away" in own.log_text(), "the log has other levels than the check of its secrets needs"


@scenario
def access_tokens_let_in_for_whom_they_are(broker):
    made, door = broker.proofs, broker.plain
    for version in VERSIONS:
        for algorithm in ("EdDSA", "ES256", "RS256"):
            token = made.token(algorithm, sub="alice")
            for _ in ("looked at", "known from before"):
                assert answer(door, version, "anything", token) == 0, algorithm
            several = made.token(algorithm, sub="alice", aud=["others", AUDIENCE])
            publish = ("-i", "m", "-q", "1", "-t", "u/alice/x", "-m", plant("dunnock-payload"))
            assert mosquitto("mosquitto_pub", door, version, *publish, username="t", password=several)[0] == 0, algorithm
            entered = node("enter", door, version, username="t", password=several, publish=[["u/alice/x", 1, "pipit-payload"]])
            assert entered["publish"] == [0], (algorithm, entered)
    guest = Guest(door, "t", V5, "bob", made.token(sub="alice"))
    assert guest.told("u/alice/x") in (0, 0x10) and guest.told("u/bob/x") == 0x87, "the token names the account"
    guest.close()


@scenario
def access_tokens_that_do_not_hold_are_refused(broker):
    made, door, now = broker.proofs, broker.plain, int(time.time())
    right = made.token(sub="alice")
    head, payload, signature = right.split(".")
    other = made.token(sub="bob").split(".")[1]
    refused = {
        "expired": made.token(sub="alice", exp=now - 60),
        "without end": made.token(sub="alice", without=["exp"]),
        "not yet valid": made.token(sub="alice", nbf=now + 120),
        "of tomorrow": made.token(sub="alice", iat=now + 86_400),
        "another issuer": made.token(sub="alice", iss="https://other.example"),
        "no issuer": made.token(sub="alice", without=["iss"]),
        "another audience": made.token(sub="alice", aud=["others"]),
        "no audience": made.token(sub="alice", without=["aud"]),
        "nobody": made.token(),
        "unsigned": made.token("none", sub="alice"),
        "signature taken off": plant(f"{head}.{payload}."),
        "other content": plant(f"{head}.{other}.{signature}"),
        "HS256 by the public key": made.token_by_public_key("alice"),
        "another key": made.token(sub="alice", key=ed25519.Ed25519PrivateKey.generate()),
        "another key under that name": made.token("ES256", sub="alice", key=ec.generate_private_key(ec.SECP256R1())),
    }
    for version in VERSIONS:
        for what, token in refused.items():
            assert answer(door, version, "alice", token) == by(5, 0x87, version), what
    # Nobody was slowed down: the next is looked at.
    assert answer(door, V5, "alice", right) == 0
    assert mosquitto("mosquitto_pub", door, V5, "-t", "x", "-m", "", username="alice", password=refused["expired"])[0] == 0x87
    assert node("enter", door, V311, username="alice", password=refused["unsigned"]) == {"code": 5}


@scenario
def access_tokens_end_their_connections(broker):
    made = broker.proofs
    for version in VERSIONS:
        token, begin = made.token(sub="alice", exp=int(time.time()) + 2), time.monotonic()
        guest = Guest(broker.plain, f"short-{version}", version, "t", token)
        ended = node("stay", broker.plain, version, username="t", password=token)
        assert ended == {"code": 0, "reason": by("closed", 0xA0, version)}, ended
        assert guest.ends(5) == by(False, True, version)
        assert time.monotonic() - begin < 8, "a token of two seconds"
    token = made.token(sub="alice", exp=int(time.time()) + 1)
    _, said = mosquitto("mosquitto_sub", broker.plain, V5, "-t", "u/alice/x", "-d", "-W", "8", username="t", password=token)
    assert "received CONNACK (0)" in said and "Received DISCONNECT (160)" in said, said


@scenario
def access_claims_of_tokens_are_obeyed(broker):
    made, door = broker.proofs, broker.plain
    for version in VERSIONS:
        token = made.token(sub="alice", client_id="probe-7")
        assert answer(door, version, "t", token, "probe-7") == 0
        assert answer(door, version, "t", token, "probe-8") == by(2, 0x85, version)
        assert answer(door, version, "t", token, "probe-8") == by(2, 0x85, version), "known from before"
    pairs = [["u/alice/#", ["sub"]], ["readings/alice", ["pub"]], ["u/bob/shared", ["pub", "sub"]]]
    guest = Guest(door, "granted", V5, "t", made.token(sub="alice", permissions=pairs))
    assert guest.told("readings/alice") in (0, 0x10) and guest.told("u/bob/shared") in (0, 0x10)
    assert guest.told("u/alice/x") == 0x87 and guest.told("readings/bob") == 0x87 and guest.told("u/bob/inbox") == 0x87
    asked = ("u/alice/x", "u/alice/#", "u/bob/shared", "readings/alice", "u/#", "u/+/shared", "$share/g/u/alice/x")
    granted = [guest.subscribe(topic, 1)[0] for topic in asked]
    assert granted == [1, 1, 1, 0x87, 0x87, 0x87, 1], granted
    guest.close()
    guest = Guest(door, "nothing", V5, "t", made.token(sub="alice", permissions=[]))
    assert guest.told("u/alice/x") == 0x87 and guest.subscribe("u/alice/x")[0] == 0x87
    guest.close()
    for groups, reason in ((["operators", "unknown"], (0, 0x10)), (["unknown"], (0x87,))):
        guest = Guest(door, "member", V5, "t", made.token(sub="alice", groups=groups))
        assert guest.told("ops/x") in reason, groups
        guest.close()


def connect_by_scram():
    """CONNECT with the first message of an exchange."""
    def text(value):
        return len(value).to_bytes(2, "big") + value
    given = b"\x15" + text(b"SCRAM-SHA-256") + b"\x16" + text(b"n,,n=alice,r=abcdef")
    body = b"\x00\x04MQTT\x05\x02\x00\x3c" + bytes([len(given)]) + given + text(b"s")
    return bytes([0x10, len(body)]) + body


def after_auth(door, packet):
    """What the broker says to something that is not the answer that it waits for."""
    with socket.create_connection((door.host, door.port), timeout=20) as peer:
        peer.sendall(connect_by_scram())
        assert peer.recv(1) == b"\xf0"
        peer.recv(1_000)
        peer.sendall(packet)
        heard = b""
        while more := peer.recv(100):
            heard += more
        return heard


@scenario
def access_scram_is_proven_by_both_sides(broker):
    with another(broker) as own:
        door = own.scram
        # The broker knows the password as well: what it signed was checked.
        entered = node("scram", door, user="alice", secret=PASSWORDS["alice"], clientId="s")
        assert entered == {"code": 0, "own": 0, "other": 0x87, "signed": True}, entered
        for name, secret in (("alice", "heron-7f3a9d"), ("nobody", PASSWORDS["alice"])):
            assert node("scram", door, user=name, secret=secret, clientId="s") == {"code": 0x87}, name
        assert node("replay", door, user="alice", secret=PASSWORDS["alice"], clientId="s") == {"code": 0x87, "first": 0}
        codes = node("between", door, user="alice", secret=PASSWORDS["alice"], clientId="s")
        assert codes == {"method": 0x82, "reason": 0x82}, codes
        for what in (b"\xc0\x00", b"\x30\x08\x00\x01x\x00abcd", b"\x82\x07\x00\x01\x00\x00\x01x\x00", connect_by_scram()):
            assert after_auth(door, what) == b"\x20\x03\x00\x82\x00", what
        assert after_auth(door, b"\xe0\x00") == b"", "DISCONNECT"
        for method in ("SCRAM-SHA-1", "scram-sha-256", "SCRAM-SHA-256-PLUS", "PLAIN"):
            given = {"AuthenticationMethod": method, "AuthenticationData": b"n,,n=alice,r=abcdef"}
            assert answer(door, V5, given=given) == 0x8C, method
        assert answer(door, V5, given={**SCRAM, "AuthenticationData": b"p=tls-unique,,n=alice,r=abc"}) == 0x87
        assert answer(door, V5, given=SCRAM) == 0x87, "without a first message"
        flags = ("-t", "x", "-m", plant("dunnock-payload"), "-D", "connect", "authentication-method")
        assert mosquitto("mosquitto_pub", door, V5, *flags, "OTHER")[0] == 0x8C
        # Listeners that take passwords know no methods, and this one takes no passwords.
        assert answer(own.plain, V5, "alice", PASSWORDS["alice"], given=SCRAM) == 0x8C
        for version in VERSIONS:
            assert answer(door, version, "alice", PASSWORDS["alice"]) == by(5, 0x87, version)


@scenario
def access_certificates_name_the_account(broker):
    made, door = broker.proofs, broker.tls
    alice, stranger = door.showing(made.shown["alice"]), door.showing(made.stranger)
    for version in VERSIONS:
        # What else it says it is does not count.
        guest = Guest(alice, "c", version, "bob", PASSWORDS["bob"])
        guest.subscribe("u/alice/#", 1)
        guest.publish("u/alice/x", plant("dunnock-payload"), 1)
        guest.expect(["dunnock-payload"])
        assert guest.subscribe("u/bob/#", 1) == [by(0x80, 0x87, version)]
        guest.close()
        for refused in (stranger, door.showing(made.shown["revoked"]), door):
            assert answer(refused, version) == CLOSED, refused.shown
        publish = ("-i", "m", "-q", "1", "-t", "u/alice/x", "-m", "")
        assert mosquitto("mosquitto_pub", alice, version, *publish)[0] == 0
        assert mosquitto("mosquitto_pub", stranger, version, *publish)[0] not in (0, 5, 0x87)
        entered = node("enter", alice, version, publish=[["u/alice/x", 1, ""]])
        assert entered["publish"] == [0], entered
        assert node("enter", stranger, version) == {"code": "closed"}
        assert node("enter", door, version) == {"code": "closed"}
    assert answer(alice, V5, given=SCRAM) == 0x8C


@scenario
def access_certificates_are_revoked_while_it_runs(broker):
    with another(broker) as own:
        late = own.tls.showing(own.proofs.shown["late"])
        guest = Guest(late, "stays")
        own.proofs.revocations(own.folder, "revoked", "late")
        assert answer(late) == 0, "nobody has said so"
        own.process.send_signal(signal.SIGHUP)
        until(lambda: '"reloaded"' in own.log_text(), "the new list")
        assert answer(late) == CLOSED
        assert answer(own.tls.showing(own.proofs.shown["bob"])) == 0
        assert guest.told("u/late/x") in (0, 0x10), "who is connected stays"
        guest.close()


@scenario
def access_hook_says_who_may_come(broker):
    with another(broker) as own:
        door, hook = own.hooked, own.hook
        hook.answers = {
            "ann": (200, {"allow": True, "account": "alice", "groups": ["operators"]}),
            "ben": (200, {"allow": True, "permissions": [["readings/ben", ["pub"]]], "cache_s": 0}),
            "cat": (204, None),
            "dan": (200, {"allow": False}),
            "eve": (401, None),
            "fay": (200, {"allow": True, "expires_in_s": 1, "cache_s": 0}),
        }
        for version in VERSIONS:
            hook.asked.clear()
            secret = plant("godwit-51aa")
            for _ in ("asked", "remembered"):
                guest = Guest(door, f"ann-{version}", version, "ann", secret)
                guest.subscribe("u/alice/#", 1)
                guest.publish("u/alice/x", plant("dunnock-payload"), 1)
                guest.expect(["dunnock-payload"])
                guest.publish("ops/x", "dunnock-payload", 1)
                assert guest.subscribe("u/ann/#", 1) == [by(0x80, 0x87, version)]
                guest.close()
            asked = {"username": "ann", "password": secret, "client_id": f"ann-{version}", "address": "127.0.0.1",
                     "listener": "hook", "protocol_version": by(4, 5, version)}
            assert hook.asked == [(asked, f"Bearer {own.proofs.hook_secret}")], hook.asked
            for who in ("dan", "eve"):
                assert answer(door, version, who, secret) == by(5, 0x87, version), who
            assert answer(door, version, "cat", secret) == 0
            assert answer(door, version, "cat") == 0, "whether it needs a password is up to the hook"
            assert mosquitto("mosquitto_pub", door, version, "-t", "u/cat/x", "-m", "", username="cat", password=secret)[0] == 0
            entered = node("enter", door, version, username="cat", password=secret, publish=[["u/cat/x", 1, ""]])
            assert entered["publish"] == [0], entered
        guest = Guest(door, "ben", V5, "ben", secret)
        assert guest.told("readings/ben") in (0, 0x10) and guest.told("u/ben/x") == 0x87
        guest.close()
        assert node("stay", door, username="fay", password=secret) == {"code": 0, "reason": 0xA0}
        assert answer(door, V5, given=SCRAM) == 0x8C, "methods are none of its business"


@scenario
def access_hook_that_does_not_answer_lets_nobody_in(broker):
    with another(broker) as own:
        door, hook, secret = own.hooked, own.hook, plant("godwit-51aa")
        yes = (200, {"allow": True, "cache_s": 0})
        hook.answers = {"good": yes}
        assert answer(door, V5, "good", secret) == 0
        # Answers that are none.
        for status, said in ((500, None), (302, None), (200, {"allow": "yes"}), (200, {}), (200, {**yes[1], "groups": "all"})):
            hook.answers = {"good": yes, "odd": (status, said)}
            assert answer(door, V5, "odd", secret) == 0x88, (status, said)
            assert answer(door, V5, "good", secret) == 0
        hook.stop()
        codes = [answer(door, version, "good", secret) for version in (V5, V311, V5, V311, V5)]
        assert codes == [0x88, 3, 0x88, 3, 0x88], codes
        hook.asked.clear()
        hook.start()
        # It is left alone for a second after five such times, and asked again then.
        until(lambda: answer(door, V5, "good", secret) == 0, "an answer of the hook that is back")
        assert len(hook.asked) == 1, hook.asked
        assert "hook_unreachable" in own.log_text()


@scenario
def access_who_is_wrong_too_often_waits(broker):
    with another(broker) as own:
        door, wrong = own.plain, plant("heron-7f3a9d")
        known(door, "carol").close()
        codes = []
        while 0x9F not in codes and len(codes) < 20:
            codes.append(answer(door, V5, "alice", wrong))
        # Five are free, the sixth costs a second. A machine that takes longer than that for one gets another, and so on.
        assert codes[:6] == [0x86] * 6 and codes[-1] == 0x9F, codes
        assert answer(door, V311, "alice", wrong) == 3
        assert answer(door, V5, "alice", PASSWORDS["alice"]) == 0x9F, "it is not even looked at"
        assert answer(door, V5, "dave", PASSWORDS["dave"]) == 0x9F, "a stranger from there"
        assert answer(own.web, V5, "dave", PASSWORDS["dave"]) == 0x9F, "at another listener"
        assert own.log_text().count("too many wrong proofs") == 5
        for version in VERSIONS:
            assert answer(door, version, "carol", PASSWORDS["carol"]) == 0, "she has come from there before"
        assert answer(own.six, V5, "dave", PASSWORDS["dave"]) == 0, "another address"
        assert answer(door, V5, "t", own.proofs.token(sub="alice")) == 0, "tokens cannot be guessed"
        until(lambda: answer(door, V5, "alice", PASSWORDS["alice"]) == 0, "the end of the wait")
        assert answer(door, V5, "dave", PASSWORDS["dave"]) == 0, "she has made good for it"
