"""paho-mqtt, and the others, as clients that say who they are and are told what they may not."""

import atexit
import functools
import json
import os
import pathlib
import ssl
import subprocess

import paho.mqtt.client as paho
from paho_client import V5, WAIT_SECONDS, Client, properties
from proofs import PASSWORDS, plant
from scenarios_mqttjs import HERE, MODULES

#: The connection ended without a word.
CLOSED = "closed"
#: paho has the reasons of version 5 for both; these are the return codes of 3.1.1 [MQTT-3.2.2-6].
RETURN_CODES = {0x84: 1, 0x85: 2, 0x88: 3, 0x86: 4, 0x87: 5}
SCRAM = {"AuthenticationMethod": "SCRAM-SHA-256"}


class Refused(Exception):
    """By that code of CONNACK, or CLOSED."""


class Guest(Client):
    """Connected as somebody; `Refused` is raised if it may not. Connects once, and never again by itself."""

    def __init__(self, door, client_id, version=V5, username=None, password=None, source="", given=None,
                 acknowledges=True, **rest):
        self.username, self.password, self.source, self.given = username, password, source, given or {}
        self.acknowledges = acknowledges
        self.answer, self.reasons = None, {}
        super().__init__(door, client_id, version, **rest)

    def open(self):
        self.answer = None
        self.client.username_pw_set(self.username, self.password)
        self.client.manual_ack_set(not self.acknowledges)
        session = {}
        if self.version == V5:
            given = {**({"SessionExpiryInterval": self.expiry} if self.durable else {}), **self.given}
            session = {"clean_start": not self.durable, "properties": properties("CONNECT", **given) if given else None}
        try:
            self.client.connect(self.broker.host, self.broker.port, 60, self.source, **session)
        except (ssl.SSLError, ConnectionError) as error:
            raise Refused(CLOSED) from error
        self.client.loop_start()
        self.wait(lambda: self.answer is not None, "CONNACK, or the end of the connection")
        if self.answer != 0:
            self.client.loop_stop()
            raise Refused(self.answer)
        return self

    def told(self, topic, payload="plover-payload", qos=1, **given):
        """Publishes, and returns the reason in the acknowledgement."""
        mid = self.client.publish(topic, plant(payload) if payload else payload, qos, **given).mid
        self.wait(lambda: mid in self.reasons, f"an acknowledgement for {topic}")
        return self.reasons[mid]

    def ends(self, seconds=WAIT_SECONDS):
        """Waits for the broker to end the connection. Whether it says so; what paho makes of a short DISCONNECT is no reason."""
        self.wait(lambda: self.disconnects >= self.connects, "the end of the connection", seconds)
        self.client.loop_stop()
        return self.told_to_leave

    def _on_connect(self, client, data, flags, reason, given):
        code = reason.value if self.version == V5 else RETURN_CODES.get(reason.value, reason.value)
        if code == 0:
            super()._on_connect(client, data, flags, reason, given)
        self._note(lambda: setattr(self, "answer", code))

    def _on_disconnect(self, client, data, flags, reason, given):
        self.client._thread_terminate = True  # keeps the loop from connecting again
        if self.answer is None:
            self.answer = CLOSED
        super()._on_disconnect(client, data, flags, reason, given)

    def _on_publish(self, client, data, mid, reason, given):
        self._note(lambda: self.reasons.__setitem__(mid, reason.value))
        super()._on_publish(client, data, mid, reason, given)


def known(door, name, client_id=None, version=V5, **rest):
    """A guest with its right password."""
    return Guest(door, client_id or name, version, name, PASSWORDS[name], **rest)


def answer(door, version=V5, username=None, password=None, client_id="anybody", **rest):
    """The code in CONNACK, or CLOSED."""
    if password is not None:
        plant(password)
    try:
        Guest(door, client_id, version, username, password, **rest).close()
    except Refused as refused:
        return refused.args[0]
    return 0


def over_socket(path, name, password, version=V5):
    """The same through a Unix socket, with paho alone."""
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, "over-socket", protocol=version, transport="unix")
    codes = []
    client.on_connect = lambda _c, _d, _f, reason, _p: (codes.append(reason.value), client.disconnect())
    client.username_pw_set(name, plant(password))
    client.connect(str(path), 1883)
    client.loop_forever(retry_first_connection=False)
    return codes[0] if version == V5 else RETURN_CODES.get(codes[0], codes[0])


def mosquitto(program, door, version, *flags, username=None, password=None):
    """The exit code, which is that of CONNACK, and what was said. `door` is a path for a Unix socket."""
    if isinstance(door, pathlib.Path):
        where = ["--unix", str(door)]
    else:
        where = ["-h", "localhost" if door.authority else door.host, "-p", str(door.port)]
        where += ["--cafile", str(door.authority)] if door.authority else []
        where += ["--cert", str(door.shown[0]), "--key", str(door.shown[1])] if door.shown else []
    shown = (["-u", username] if username else []) + (["-P", plant(password)] if password else [])
    command = [program, *where, "-V", "mqttv5" if version == V5 else "mqttv311", *shown, *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_SECONDS)
    return done.returncode, done.stdout + done.stderr


@functools.cache
def conversing():
    """MQTT.js, which takes half a second to start, and so is started once."""
    environment = {**os.environ, "MQTTJS": str(MODULES / "mqtt" / "build" / "index.js")}
    process = subprocess.Popen(["node", str(HERE / "mqttjs_access.mjs")], env=environment, text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    # At the end of its input it ends by itself.
    atexit.register(process.stdin.close)
    return process


def node(conversation, door, version=V5, **options):
    """What a conversation in mqttjs_access.mjs came to."""
    for secret in (options.get("password"), options.get("secret"), *(one[2] for one in options.get("publish", ()))):
        if secret:
            plant(secret)
    files = {"ca": door.authority, **dict(zip(("cert", "key"), door.shown or (), strict=False))}
    asked = {"conversation": conversation, "url": door.url, "protocolVersion": 5 if version == V5 else 4,
             "files": {name: str(path) for name, path in files.items() if path}, **options}
    process = conversing()
    process.stdin.write(f"{json.dumps(asked)}\n")
    process.stdin.flush()
    answered = process.stdout.readline()
    if not answered:
        conversing.cache_clear()
        raise AssertionError(f"MQTT.js ended in {conversation} with {process.wait()}")
    return json.loads(answered)
