"""What accounts keep from each other, and what changes when rules do."""

import signal
import time

from broker import Broker
from guarded import RULES, another
from guest import Guest, answer, known, mosquitto, node
from paho_client import V5, V311, properties
from proofs import PASSWORDS, plant
from scenario import scenario, until

VERSIONS = (V311, V5)
#: What would bring something of bob's.
BOBS = ("u/bob/#", "u/bob/x", "#", "u/#", "+/bob/x", "u/+/x", "u/+/#", "$share/g/u/bob/#", "$share/g/#")


def reload(broker, event="reloaded"):
    """SIGHUP, and waits until the log says what came of it."""
    said = f'"{event}"'
    before = broker.log_text().count(said)
    broker.process.send_signal(signal.SIGHUP)
    until(lambda: broker.log_text().count(said) > before, event)


def change(broker, rules):
    """Other rules, and waits until they hold for alice and for carol: each shard takes them when its turn comes."""
    mark = f"probe/{time.monotonic_ns()}"
    broker.rules.write_text(f"deny publish client:probe {mark}\n{rules}")
    reload(broker)
    for name in ("alice", "carol"):
        probe = known(broker.plain, name, "probe")
        until(lambda probe=probe: probe.told(mark) == 0x87, "the rules to hold")
        probe.close()


@scenario
def rules_one_client_id_in_two_accounts_is_two_sessions(broker):
    for version in VERSIONS:
        name = f"phone-{version}"
        alice = known(broker.plain, "alice", name, version, durable=True)
        bob = known(broker.plain, "bob", name, version, durable=True)
        alice.subscribe("u/alice/#", 1)
        bob.subscribe("u/bob/#", 1)
        assert (alice.session_present, bob.session_present, alice.disconnects) == (False, False, 0)
        alice.close()
        carol = known(broker.plain, "carol", f"carol-{version}", version)
        for number in range(5):
            carol.publish("u/alice/inbox", plant(f"alice-payload-{number}"), 1)
            carol.publish("u/bob/inbox", plant(f"bob-payload-{number}"), 1)
        bob.expect([f"bob-payload-{number}" for number in range(5)])
        bob.close()
        carol.publish("u/bob/inbox", plant("bob-payload-last"), 1)
        # A third account with that client id finds nothing.
        dave = known(broker.plain, "dave", name, version, durable=True)
        assert not dave.session_present
        for guest, wanted in ((alice, [f"alice-payload-{number}" for number in range(5)]), (bob, ["bob-payload-last"])):
            guest.open()
            assert guest.session_present
            guest.expect(wanted)
        dave.expect([])
        # The same account takes over its own.
        again = known(broker.plain, "alice", name, version, durable=True)
        assert again.session_present
        assert alice.ends() == (version == V5)
        assert bob.disconnects == 1, "bob was not asked"
        for guest in (again, bob, carol, dave):
            guest.close()


def listening(broker, version=V5):
    bob = known(broker.plain, "bob", "bob-listens", version)
    assert bob.subscribe("u/bob/#", 2) == [2]
    return bob


def heard_nothing(bob):
    """What he sends himself comes behind everything that was sent before, and is all."""
    bob.publish("u/bob/end", plant("end-payload"), 1)
    bob.expect(["end-payload"])


@scenario
def rules_nobody_publishes_to_topics_of_another(broker):
    bob = listening(broker)
    alice = known(broker.plain, "alice", "tries")
    for qos in (1, 2):
        # paho answers a PUBREC that refuses with PUBREL, and has what that is answered with: 0x92.
        assert alice.told("u/bob/x", qos=qos) == {1: 0x87, 2: 0x92}[qos]
        assert alice.told("u/bob/x", qos=qos, retain=True) == {1: 0x87, 2: 0x92}[qos]
    alice.publish("u/bob/x", plant("stint-payload"), 0)
    # A rule gives away the inbox, and only to publish.
    assert alice.told("u/bob/inbox", "inbox-payload") == 0
    assert alice.told("u/bob/inbox", retain=True) == 0x87
    bob.expect(["inbox-payload"])
    # An alias stands for the topic that it was given with, whether that was allowed or not.
    alias = properties("PUBLISH", TopicAlias=1)
    assert alice.told("u/alice/x", properties=alias) in (0, 0x10)
    assert alice.told("", properties=alias) in (0, 0x10)
    assert alice.told("u/bob/x", properties=alias) == 0x87
    assert alice.told("", properties=alias) == 0x87
    alice.publish("", plant("stint-payload"), 0, properties=alias)
    assert alice.told("$SYS/broker/uptime") == 0x87
    alice.close()
    entered = node("enter", broker.plain, username="alice", password=PASSWORDS["alice"], publish=[
        ["u/bob/x", 0, "stint-payload"], ["u/bob/x", 1, "stint-payload"], ["u/bob/x", 2, "stint-payload"],
        ["u/bob/y", 2, "stint-payload", {"topicAlias": 2}], ["u/alice/x", 2, "stint-payload"]])
    assert entered["publish"] in ([0, 0x87, 0x87, 0x87, 0], [0, 0x87, 0x87, 0x87, 0x10]), entered
    heard_nothing(bob)
    # Nothing was retained either.
    again = known(broker.plain, "bob", "bob-looks")
    again.subscribe("u/bob/#", 1)
    again.expect([])
    for guest in (again, bob):
        guest.close()


@scenario
def rules_3_1_1_has_no_word_for_no(broker):
    bob = listening(broker, V311)
    for qos in (1, 2):
        for retain in (False, True):
            alice = known(broker.plain, "alice", "tries-311", V311)
            alice.client.publish("u/bob/x", plant("stint-payload"), qos, retain)
            # An acknowledgement would be a lie.
            assert not alice.ends() and not alice.acknowledged, (qos, retain)
    alice = known(broker.plain, "alice", "tries-311", V311)
    alice.publish("u/bob/x", plant("stint-payload"), 0)
    alice.publish("u/alice/x", plant("stint-payload"), 1)
    alice.close()
    code, said = mosquitto("mosquitto_pub", broker.plain, V311, "-q", "1", "-t", "u/bob/x", "-m", "", "-i", "m",
                           username="alice", password=PASSWORDS["alice"])
    assert code != 0, said
    heard_nothing(bob)
    bob.close()


@scenario
def rules_nobody_leaves_a_will_with_another(broker):
    bob = listening(broker)
    for version, code in ((V311, 5), (V5, 0x87)):
        secret = PASSWORDS["alice"]
        for will in (("u/bob/x", plant("will-payload"), 1, False), ("u/bob/inbox", "will-payload", 1, True),
                     ("u/bob/inbox", "will-payload", 1, False), ("ops/x", "will-payload", 0, False)):
            assert answer(broker.plain, version, "alice", secret, will=will) == code, will
        # Its own is taken, and published.
        watcher = known(broker.plain, "alice", "watches", version)
        watcher.subscribe("u/alice/will", 1)
        known(broker.plain, "alice", "leaves", version, will=("u/alice/will", plant("own-will-payload"), 1, False)).vanish()
        watcher.expect(["own-will-payload"])
        watcher.close()
        flags = ("-t", "x", "-m", "", "--will-topic", "u/bob/x", "--will-payload", "will-payload")
        assert mosquitto("mosquitto_pub", broker.plain, version, *flags, username="alice", password=secret)[0] == code
        will = {"topic": "u/bob/x", "payload": "will-payload", "qos": 1, "retain": False}
        assert node("enter", broker.plain, version, username="alice", password=secret, will=will) == {"code": code}
    heard_nothing(bob)
    bob.close()


def subscribes_in_vain(door):
    bob = known(door, "bob", "bob-speaks")
    for version, refused in ((V311, 0x80), (V5, 0x87)):
        alice = known(door, "alice", f"listens-{version}", version)
        granted = [alice.subscribe(topic, 1)[0] for topic in BOBS]
        assert granted == [refused] * len(BOBS), dict(zip(BOBS, granted, strict=True))
        assert alice.subscribe("u/alice/#", 1) == [1] and alice.subscribe("$share/g/u/alice/x", 1) == [1]
        for topic in ("u/bob/x", "u/bob/a/b", "u/bob"):
            bob.publish(topic, plant("bobs-payload"), 1)
        alice.expect([])
        # Those of one packet are judged one by one.
        if version == V5:
            _, mid = alice.client.subscribe([("u/alice/y", 1), ("u/bob/x", 1), ("u/alice/z", 2)])
            alice.wait(lambda: mid in alice.granted, "SUBACK")
            assert alice.granted[mid] == [1, 0x87, 2], alice.granted[mid]
        alice.close()
    entered = node("enter", door, username="alice", password=PASSWORDS["alice"], subscribe=[[topic, 1] for topic in BOBS])
    assert entered["subscribe"] == [0x87] * len(BOBS), entered
    _, said = mosquitto("mosquitto_sub", door, V311, "-t", "u/bob/#", "-t", "#", "-E",
                        username="alice", password=PASSWORDS["alice"])
    assert "denied" in said, said
    bob.close()


@scenario
def rules_nobody_subscribes_to_topics_of_another(broker):
    subscribes_in_vain(broker.plain)
    for version, refused in ((V311, 0x80), (V5, 0x87)):
        alice = known(broker.plain, "alice", "system", version)
        for topic in ("$SYS/#", "$SYS/broker/uptime", "$SYS/+/uptime", "$share/g/$SYS/#"):
            assert alice.subscribe(topic, 0) == [refused], topic
        alice.close()
    # Without a file of rules, too.
    with another(broker, rules=None) as own:
        subscribes_in_vain(own.plain)
        alice = known(own.plain, "alice", "open")
        assert alice.told("u/bob/inbox") == 0x87, "no rule gives it away"
        assert alice.subscribe("$SYS/#", 0) == [0]
        alice.close()


@scenario
def rules_change_and_nobody_is_dropped(broker):
    with another(broker) as own:
        reader, writer = known(own.plain, "alice", "reader"), known(own.plain, "carol", "writer")
        old = known(own.plain, "alice", "reader-311", V311)
        for guest in (reader, old):
            assert guest.subscribe("news/#", 1) == [1] and guest.subscribe("$share/g/shared/#", 1) == [1]
        assert reader.subscribe("news/sport", 1) == [1]
        assert writer.told("news/x", "first-payload") == 0
        for guest in (reader, old):
            guest.expect(["first-payload"])
        change(own, "deny subscribe account:alice news/#\ndeny subscribe account:alice shared/#\n"
                    "deny publish account:carol blog/#\n" + RULES)
        # Nobody has it any more, says the broker.
        for topic in ("news/x", "shared/x"):
            until(lambda topic=topic: writer.told(topic, "meanwhile-payload") == 0x10, "the subscriptions to be taken back")
        for guest in (reader, old):
            guest.take()
        for topic in ("news/x", "news/sport", "shared/x"):
            assert writer.told(topic, "never-payload") == 0x10
        for guest in (reader, old):
            guest.expect([])
        assert reader.subscribe("news/#", 1) == [0x87] and old.subscribe("news/#", 1) == [0x80]
        assert writer.told("blog/x") == 0x87
        change(own, RULES)
        assert writer.told("blog/x") == 0x10
        for guest in (reader, old):
            assert guest.subscribe("news/#", 1) == [1]
        assert writer.told("news/x", "second-payload") == 0
        for guest in (reader, old):
            guest.expect(["second-payload"])
        assert [guest.disconnects for guest in (reader, writer, old)] == [0, 0, 0]
        for guest in (reader, writer, old):
            guest.close()


@scenario
def rules_that_cannot_be_read_change_nothing(broker):
    with another(broker) as own:
        alice, carol = known(own.plain, "alice"), known(own.plain, "carol")
        assert alice.subscribe("news/#", 1) == [1]
        for line in ("alow all everyone #", "deny all somebody news/#", "deny all everyone news/#/x"):
            own.rules.write_text(f"deny all everyone news/#\n{line}\n")
            reload(own, "not_reloaded")
            said = own.log_text().splitlines()
            said = next(text for text in reversed(said) if "not_reloaded" in text)
            assert f"{own.rules}:2: " in said and "cure" in said, said
            assert carol.told("news/x", f"payload {line}") == 0
            alice.expect([f"payload {line}"])
            assert carol.told("ops/x") == 0x87
        own.rules.unlink()
        reload(own, "not_reloaded")
        assert carol.told("news/x", "last-payload") == 0
        alice.expect(["last-payload"])
        for guest in (alice, carol):
            guest.close()
        own.rules.write_text(RULES)
        reload(own)


def away(own, version, name):
    """A session with messages that were queued for it by a subscription to news/#, and others."""
    reader = known(own.plain, "alice", name, version, durable=True)
    assert reader.subscribe("news/#", 1) == [1] and reader.subscribe("u/alice/#", 1) == [1]
    reader.close()
    carol = known(own.plain, "carol", "writes")
    for number in range(3):
        assert carol.told("news/x", f"news-payload-{number}") == 0
        assert carol.told("u/alice/inbox", f"inbox-payload-{number}") == 0
    carol.close()
    return reader


@scenario
def rules_hold_for_what_was_queued_before_them(broker):
    inbox = [f"inbox-payload-{number}" for number in range(3)]
    for version in VERSIONS:
        for crashes in (False, True):
            with another(broker) as own:
                reader = away(own, version, "was-away")
                rules = "deny subscribe account:alice news/#\n" + RULES
                if crashes:
                    own.rules.write_text(rules)
                    own.restart()
                else:
                    change(own, rules)
                reader.open()
                assert reader.session_present
                reader.expect(inbox)
                carol = known(own.plain, "carol", "writes")
                assert carol.told("news/x") == 0x10
                # And it does not come back with the permission.
                change(own, RULES)
                assert reader.subscribe("news/#", 1) == [1]
                assert carol.told("news/x", "new-payload") == 0
                reader.expect(["new-payload"])
                for guest in (reader, carol):
                    guest.close()


@scenario
def rules_hold_for_what_was_queued_also_if_the_client_leaves_or_the_broker_does(broker):
    """It comes back, loses its subscription, takes one message of its window of one, and acknowledges none. What is still queued is
    by a subscription that is no more."""
    for what in ("leaves", "stop", "crash"):
        with another(broker) as own:
            away(own, V5, "slow")
            change(own, "deny subscribe account:alice news/#\n" + RULES)
            slow = Guest(own.plain, "slow", V5, "alice", PASSWORDS["alice"], durable=True,
                         given={"ReceiveMaximum": 1}, acknowledges=False)
            slow.wait(lambda slow=slow: slow.messages, "the first message")
            assert slow.messages[0].payload == b"inbox-payload-0", (what, slow.messages[0].payload)
            slow.vanish()
            if what == "crash":
                own.restart()
            elif what == "stop":
                Broker.stop(own)
                own.start()
            reader = known(own.plain, "alice", "slow", durable=True)
            assert reader.session_present, what
            until(lambda reader=reader: any(message.payload == b"inbox-payload-2" for message in reader.messages), what)
            reader.expect([f"inbox-payload-{number}" for number in range(3)])
            reader.close()
