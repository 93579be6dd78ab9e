"""What paho-mqtt sees, in 3.1.1 and 5: the promises of the protocol one by one, and streams through crashes."""

import time

from paho.mqtt.subscribeoptions import SubscribeOptions

from paho_client import V5, V311, Client, properties
from scenario import peer_skips, scenario

#: How long a stream with a crash in the middle is; set by run.py.
stream_messages = 10_000


def versions():
    return [("v311", V311), ("v5", V5)]


@scenario
def paho_messages_of_each_qos_come_back_in_order(broker):
    for name, version in versions():
        client = Client(broker, f"paho-echo-{name}", version)
        assert client.subscribe(f"paho/echo/{name}/+", 2) == [2]
        for qos in (0, 1, 2):
            payloads = [f"{qos}-{number}" for number in range(100)]
            client.publish_all(f"paho/echo/{name}/{qos}", payloads, qos)
            assert {message.qos for message in client.expect(payloads)} == {qos}
        client.publish(f"paho/echo/{name}/empty", "", 1)
        client.publish(f"paho/echo/{name}/large", b"x" * 900_000, 1)
        client.expect([b"", b"x" * 900_000])
        client.close()


@scenario
def paho_a_session_queues_while_it_is_away_and_through_a_crash(broker):
    for name, version in versions():
        topic = f"paho/queue/{name}"
        reader = Client(broker, f"paho-queue-{name}", version, durable=True)
        assert not reader.session_present
        reader.subscribe(topic, 2)
        reader.close()
        writer = Client(broker, f"paho-queue-writer-{name}", version)
        payloads = [str(number) for number in range(100)]
        for payload in payloads:
            writer.publish(topic, payload, 1)
        for payload in payloads:
            writer.publish(topic, f"exactly {payload}", 2)
        payloads += [f"exactly {payload}" for payload in payloads]
        writer.close()
        broker.restart()
        reader.open()
        assert reader.session_present
        reader.expect(payloads)
        reader.close()
        if broker.is_peer:
            time.sleep(0.5)  # it keeps only what it has read
        broker.restart()
        reader.open()
        time.sleep(0.5)
        # An acknowledgement of QoS 1 may be lost with the crash; what was released at QoS 2 never comes back.
        again = [message.payload for message in reader.take() if message.payload.startswith(b"exactly")]
        assert not again, f"{len(again)} messages came twice, first {again[0]}"
        reader.close()


@scenario
def paho_a_new_subscription_gets_the_retained_message_until_it_is_cleared(broker):
    for name, version in versions():
        topic = f"paho/retained/{name}"
        client = Client(broker, f"paho-retained-{name}", version)
        client.publish(topic, "first", 1, retain=True)
        client.publish(topic, "second", 1, retain=True)
        client.subscribe(topic, 1)
        assert client.expect(["second"])[0].retain
        client.publish(topic, "live", 1, retain=True)
        assert not client.expect(["live"])[0].retain
        client.close()
        broker.restart()
        client = Client(broker, f"paho-retained-{name}", version)
        client.subscribe(f"paho/retained/{name}/#", 1)
        assert client.expect(["live"])[0].retain
        client.publish(topic, "", 1, retain=True)
        client.expect([""])
        client.subscribe(topic, 1)
        client.expect([])
        client.close()


@scenario
def paho_a_will_is_published_when_the_client_vanishes_and_only_then(broker):
    for name, version in versions():
        watcher = Client(broker, f"paho-will-watcher-{name}", version)
        watcher.subscribe(f"paho/will/{name}", 1)
        will = (f"paho/will/{name}", "gone", 1, False)
        Client(broker, f"paho-will-polite-{name}", version, will=will).close()
        watcher.expect([])
        Client(broker, f"paho-will-{name}", version, will=will).vanish()
        watcher.expect(["gone"])
        watcher.close()


@scenario
def paho_members_of_a_shared_subscription_split_the_messages(broker):
    members = [Client(broker, f"paho-shared-{number}", V5) for number in range(3)]
    for member in members:
        member.subscribe("$share/group/paho/shared/+", 1)
    writer = Client(broker, "paho-shared-writer", V5)
    for number in range(300):
        writer.publish(f"paho/shared/{number % 7}", str(number), 1)
    deadline = time.monotonic() + 20
    while sum(len(member.messages) for member in members) < 300 and time.monotonic() < deadline:
        time.sleep(0.05)
    parts = [[int(message.payload) for message in member.take()] for member in members]
    assert sorted(sum(parts, [])) == list(range(300)), f"{sum(map(len, parts))} of 300 arrived"
    assert all(parts), f"a member got nothing: {[len(part) for part in parts]}"
    for client in (*members, writer):
        client.close()


@scenario
def paho_the_second_connection_takes_the_session_over(broker):
    first = Client(broker, "paho-takeover", V5, durable=True)
    first.subscribe("paho/takeover", 1)
    first.client._reconnect_on_failure = False  # else the two would take turns
    second = Client(broker, "paho-takeover", V5, durable=True)
    assert second.session_present
    first.wait(lambda: first.disconnects, "the end of the first connection")
    # Which reason it gave, paho does not say: it reads no reason unless properties follow it. MQTT.js does.
    assert first.told_to_leave, "the connection ended without a DISCONNECT"
    first.client.loop_stop()
    second.publish("paho/takeover", "to the second", 1)
    second.expect(["to the second"])
    second.close()


@scenario
def paho_an_expired_message_is_not_delivered_and_the_other_says_what_remains(broker):
    reader = Client(broker, "paho-expiry", V5, durable=True)
    reader.subscribe("paho/expiry", 1)
    reader.close()
    writer = Client(broker, "paho-expiry-writer", V5)
    writer.publish("paho/expiry", "short", 1, properties=properties("PUBLISH", MessageExpiryInterval=1))
    writer.publish("paho/expiry", "long", 1, properties=properties("PUBLISH", MessageExpiryInterval=100))
    writer.close()
    time.sleep(2.2)
    broker.restart()
    reader.open()
    (message,) = reader.expect(["long"])
    assert 50 <= message.properties.MessageExpiryInterval <= 98, message.properties
    reader.close()


@scenario
def paho_properties_pass_through_unchanged(broker):
    reader = Client(broker, "paho-properties", V5, durable=True)
    reader.subscribe("paho/properties", 1)
    given = properties(
        "PUBLISH", PayloadFormatIndicator=1, ContentType="text/plain", ResponseTopic="answer/here",
        CorrelationData=b"\x00\x01\xff", UserProperty=[("a", "1"), ("b", "2"), ("a", "3")])
    reader.publish("paho/properties", "live", 1, properties=given)
    live = reader.expect(["live"])[0]
    reader.close()
    writer = Client(broker, "paho-properties-writer", V5)
    writer.publish("paho/properties", "stored", 1, properties=given)
    writer.close()
    broker.restart()
    reader.open()
    for message in (live, reader.expect(["stored"])[0]):
        got = message.properties
        assert got.UserProperty == [("a", "1"), ("b", "2"), ("a", "3")], got
        assert (got.PayloadFormatIndicator, got.ContentType) == (1, "text/plain"), got
        assert (got.ResponseTopic, got.CorrelationData) == ("answer/here", b"\x00\x01\xff"), got
    reader.close()


@scenario
def paho_subscription_options_of_version_5_are_kept(broker):
    client = Client(broker, "paho-options", V5)
    client.publish("paho/options/kept", "kept", 1, retain=True)
    client.subscribe("paho/options/own", options=SubscribeOptions(qos=1, noLocal=True))
    client.publish("paho/options/own", "mine", 1)
    client.expect([])
    client.subscribe("paho/options/kept", options=SubscribeOptions(qos=1, retainHandling=2))
    client.expect([])
    client.subscribe("paho/options/as/+", options=SubscribeOptions(qos=1, retainAsPublished=True))
    client.publish("paho/options/as/published", "flag", 1, retain=True)
    assert client.expect(["flag"])[0].retain
    given = properties("SUBSCRIBE", SubscriptionIdentifier=77)
    client.subscribe("paho/options/id", options=SubscribeOptions(qos=1), properties=given)
    client.publish("paho/options/id", "named", 1)
    assert client.expect(["named"])[0].properties.SubscriptionIdentifier == [77]
    for topic in ("paho/options/kept", "paho/options/as/published"):
        client.publish(topic, "", 1, retain=True)
    client.close()


@scenario
def paho_wildcards_match_what_they_should(broker):
    for name, version in versions():
        client = Client(broker, f"paho-wildcards-{name}", version)
        base = f"paho-wildcards-{name}"
        client.subscribe([(f"{base}/+/end", 1), (f"{base}/tree/#", 1)])
        for topic in ("a/end", "a/b/end", "tree", "tree/x/y", "other", "/end"):
            client.publish(f"{base}/{topic}", topic, 1)
        client.expect(["a/end", "tree", "tree/x/y", "/end"])
        client.client.unsubscribe(f"{base}/tree/#")
        client.publish(f"{base}/last/end", "last/end", 1)
        client.expect(["last/end"])
        client.close()


def stream_through_a_crash(broker, qos, version, name):
    """Every message that was acknowledged, in order, while the broker is killed in the middle."""
    topic = f"paho/stream/{name}"
    reader = Client(broker, f"paho-stream-reader-{name}", version, durable=True)
    reader.subscribe(topic, qos)
    writer = Client(broker, f"paho-stream-writer-{name}", version, durable=True, window=100)
    payloads = [str(number) for number in range(stream_messages)]
    half = stream_messages // 2
    sent = writer.publish_all(topic, payloads[:half], qos)
    broker.restart()  # with a window of messages on the way
    # What is published while it connects again, paho sends ahead of what it repeats.
    writer.wait(lambda: len(writer.acknowledged) == half, "the acknowledgements of what was on the way", 60)
    sent.update(writer.publish_all(topic, payloads[half:], qos))
    writer.wait(lambda: len(writer.acknowledged) == stream_messages, "all acknowledgements", 60)
    acknowledged = {int(sent[mid]) for mid in writer.acknowledged}
    seen = lambda: {message.payload for message in reader.messages}
    deadline = time.monotonic() + 60
    while len(seen()) < len(acknowledged) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.3)  # whatever would come twice
    got = [int(message.payload) for message in reader.take()]
    lost = acknowledged - set(got)
    assert not lost, f"{len(lost)} acknowledged messages lost, first {min(lost)}"
    first_times = list(dict.fromkeys(got))
    assert first_times == sorted(first_times), "out of order"
    if qos == 2:
        assert len(got) == len(set(got)), f"{len(got) - len(set(got))} duplicates"
    writer.close()
    reader.close()


@scenario
def paho_a_stream_of_qos_1_survives_a_crash(broker):
    stream_through_a_crash(broker, 1, V311, "one-v311")
    stream_through_a_crash(broker, 1, V5, "one-v5")


@scenario
def paho_a_stream_of_qos_2_survives_a_crash_without_duplicates(broker):
    stream_through_a_crash(broker, 2, V5, "two-v5")
    stream_through_a_crash(broker, 2, V311, "two-v311")


peer_skips.add("paho_a_stream_of_qos_2_survives_a_crash_without_duplicates")
