"""paho-mqtt as the scenarios use it: blocking calls with a bound, and a list of what arrived."""

import threading
import time

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

WAIT_SECONDS = 20
V311, V5 = paho.MQTTv311, paho.MQTTv5


def properties(packet, **values):
    """Properties of that packet type; names as in the standard without spaces."""
    result = Properties(getattr(PacketTypes, packet))
    for name, value in values.items():
        setattr(result, name, value)
    return result


class Client:
    """A connected client. `durable` keeps its session; `will` is (topic, payload, qos, retain)."""

    def __init__(self, broker, client_id, version=V311, durable=False, will=None, expiry=300, window=10):
        self.broker, self.version, self.durable, self.expiry = broker, version, durable, expiry
        self.window, self.published = window, 0
        self.changed = threading.Condition()
        self.messages, self.acknowledged, self.granted = [], set(), {}
        self.session_present = None
        self.connects, self.disconnects, self.told_to_leave = 0, 0, False
        session = {} if version == V5 else {"clean_session": not durable}
        carrier = "websockets" if broker.is_web else "tcp"
        self.client = paho.Client(
            paho.CallbackAPIVersion.VERSION2, client_id, protocol=version, transport=carrier, **session)
        self.client.max_inflight_messages_set(window)
        self.client.reconnect_delay_set(1, 1)
        self.client.on_connect, self.client.on_disconnect = self._on_connect, self._on_disconnect
        self.client.on_message, self.client.on_publish = self._on_message, self._on_publish
        self.client.on_subscribe = self._on_subscribe
        if broker.authority:
            chain, key = broker.shown or (None, None)
            self.client.tls_set(ca_certs=str(broker.authority), certfile=chain, keyfile=key)
        if will:
            self.client.will_set(*will)
        self.open()

    def open(self):
        connects = self.connects
        if self.version == V5:
            given = properties("CONNECT", SessionExpiryInterval=self.expiry) if self.durable else None
            self.client.connect("127.0.0.1", self.broker.port, 60, clean_start=not self.durable, properties=given)
        else:
            self.client.connect("127.0.0.1", self.broker.port, 60)
        self.client.loop_start()
        self.wait(lambda: self.connects > connects, "CONNACK")
        return self

    def close(self):
        """DISCONNECT; the session stays if it is durable."""
        ends = self.disconnects
        self.client.disconnect()
        # A loop that is stopped at once would keep acknowledgements to itself.
        self.wait(lambda: self.disconnects > ends, "the end of the connection")
        self.client.loop_stop()

    def vanish(self):
        """The connection ends without DISCONNECT, and nobody connects again."""
        self.client.on_disconnect = None
        client_socket = self.client.socket()
        client_socket = getattr(client_socket, "_socket", client_socket)
        self.client._thread_terminate = True  # keeps the loop from connecting again
        client_socket.shutdown(2)
        self.client.loop_stop()

    def subscribe(self, topic, qos=0, **given):
        """The reason codes (or granted QoS) of the SUBACK."""
        _, mid = self.client.subscribe(topic, **given) if given else self.client.subscribe(topic, qos)
        self.wait(lambda: mid in self.granted, f"SUBACK for {topic}")
        return self.granted[mid]

    def publish(self, topic, payload, qos=0, retain=False, **given):
        """Waits for the acknowledgement; QoS 0 for the write."""
        self.published += 1
        info = self.client.publish(topic, payload, qos, retain, **given)
        info.wait_for_publish(WAIT_SECONDS)
        assert info.is_published(), f"no acknowledgement for {topic}"

    def publish_all(self, topic, payloads, qos):
        """In order, at most a window unacknowledged, whatever was published before: what paho would have to queue
        itself, it does not send in order. Waits for none of the last; returns the payload by message id."""
        sent = {}
        for payload in payloads:
            self.wait(lambda: self.published - len(self.acknowledged) < self.window, "room", 60)
            self.published += 1
            sent[self.client.publish(topic, payload, qos).mid] = payload
        return sent

    def wait(self, condition, what, seconds=WAIT_SECONDS):
        with self.changed:
            assert self.changed.wait_for(condition, seconds), f"waited {seconds} s for {what}"

    def expect(self, payloads, seconds=WAIT_SECONDS):
        """Exactly these payloads, in this order, and nothing else shortly after. Takes them."""
        wanted = [payload.encode() if isinstance(payload, str) else payload for payload in payloads]
        with self.changed:
            self.changed.wait_for(lambda: len(self.messages) >= len(wanted), seconds)
        if not wanted:
            time.sleep(0.3)
        got = self.take()
        assert [message.payload for message in got] == wanted, \
            f"got {[message.payload for message in got]}, wanted {wanted}"
        return got

    def take(self):
        with self.changed:
            taken, self.messages = self.messages, []
            return taken

    def _note(self, action):
        with self.changed:
            action()
            self.changed.notify_all()

    def _on_connect(self, _client, _data, flags, reason, _properties):
        def action():
            assert not reason.is_failure, f"refused: {reason}"
            self.session_present = flags.session_present
            self.connects += 1
        self._note(action)

    def _on_disconnect(self, _client, _data, flags, _reason, _properties):
        def action():
            self.disconnects += 1
            self.told_to_leave |= flags.is_disconnect_packet_from_server
        self._note(action)

    def _on_message(self, _client, _data, message):
        self._note(lambda: self.messages.append(message))

    def _on_publish(self, _client, _data, mid, _reason, _properties):
        self._note(lambda: self.acknowledged.add(mid))

    def _on_subscribe(self, _client, _data, mid, reasons, _properties):
        self._note(lambda: self.granted.__setitem__(mid, [reason.value for reason in reasons]))
