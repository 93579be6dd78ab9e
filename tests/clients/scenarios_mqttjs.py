"""What MQTT.js sees: the scenarios are in mqttjs.mjs, the crash between two of them is here."""

import os
import pathlib
import subprocess

from scenario import scenario

HERE = pathlib.Path(__file__).parent
MODULES = HERE.parent.parent / "target" / "clients" / "node_modules"


def node(broker, name, version):
    command = ["node", str(HERE / "mqttjs.mjs"), name, str(broker.port), str(version)]
    scheme = {"tcp": "mqtt", "tls": "mqtts", "mtls": "mqtts"}.get(broker.transport, broker.transport)
    environment = {**os.environ, "SCHEME": scheme, "MQTTJS": str(MODULES / "mqtt" / "build" / "index.js")}
    if broker.authority:
        environment["AUTHORITY"] = str(broker.authority)
    if broker.shown:
        environment["CERTIFICATE"], environment["KEY"] = map(str, broker.shown)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=40)
    assert done.returncode == 0, f"{name} (version {version}): {done.stdout[-1000:]} {done.stderr[-1000:]}"


@scenario
def mqttjs_messages_of_each_qos_come_back_in_order(broker):
    for version in (4, 5):
        node(broker, "echo", version)


@scenario
def mqttjs_a_session_queues_while_it_is_away_and_through_a_crash(broker):
    for version in (4, 5):
        node(broker, "leave", version)
        broker.restart()
        node(broker, "find", version)


@scenario
def mqttjs_topic_aliases_and_properties_of_version_5_work(broker):
    node(broker, "aliases", 5)


@scenario
def mqttjs_the_second_connection_takes_the_session_over_and_the_first_is_told_so(broker):
    node(broker, "takeover", 5)
