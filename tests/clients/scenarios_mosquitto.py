"""What Debian's mosquitto_pub and mosquitto_sub see."""

import subprocess

from scenario import peer_skips, scenario

WAIT_SECONDS = 20
VERSIONS = ("mqttv311", "mqttv5")


def where(broker):
    """How to reach it."""
    tls = ["-h", "localhost", "--cafile", str(broker.authority)] if broker.authority else []
    if broker.shown:
        tls += ["--cert", str(broker.shown[0]), "--key", str(broker.shown[1])]
    return ["-p", str(broker.port), *tls]


def subscriber(broker, client_id, topic, version, *flags):
    """A mosquitto_sub that has begun; its output is lines."""
    command = ["mosquitto_sub", *where(broker), "-i", client_id, "-V", version, "-t", topic,
               "-W", str(WAIT_SECONDS), *flags]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def output(process):
    out, error = process.communicate(timeout=WAIT_SECONDS + 5)
    assert process.returncode == 0, f"mosquitto_sub: {process.returncode}: {out[-300:]} {error[-300:]}"
    return out.splitlines()


def publish(broker, topic, version, lines, *flags):
    command = ["mosquitto_pub", *where(broker), "-V", version, "-t", topic, "-l", *flags]
    done = subprocess.run(command, input="".join(f"{line}\n" for line in lines), text=True,
                          capture_output=True, timeout=WAIT_SECONDS)
    assert done.returncode == 0, f"mosquitto_pub: {done.returncode}: {done.stderr}"


def durable(version):
    return ("-c", "-x", "300") if version == "mqttv5" else ("-c",)


@scenario
def mosquitto_messages_of_each_qos_arrive(broker):
    for version in VERSIONS:
        for qos in ("0", "1", "2"):
            topic = f"mosquitto/echo/{version}/{qos}"
            lines = [f"{version} {qos} {number}" for number in range(50)]
            reader = subscriber(broker, f"m-echo-{version}-{qos}", f"{topic}/#", version, "-q", qos, "-C", "51")
            # A retained greeting: once it is printed the subscription exists.
            publish(broker, f"{topic}/greeting", version, ["ready"], "-q", "1", "-r")
            assert reader.stdout.readline() == "ready\n"
            publish(broker, topic, version, lines, "-q", qos)
            got = output(reader)
            assert got == lines, f"got {got}"


@scenario
def mosquitto_a_session_queues_while_it_is_away_and_through_a_crash(broker):
    for version in VERSIONS:
        for qos in ("1", "2"):
            topic = f"mosquitto/queue/{version}/{qos}"
            client_id = f"m-queue-{version}-{qos}"
            flags = ("-q", qos, *durable(version))
            output(subscriber(broker, client_id, topic, version, "-E", *flags))
            lines = [f"line {number}" for number in range(200)]
            publish(broker, topic, version, lines, "-q", qos)
            broker.restart()
            assert output(subscriber(broker, client_id, topic, version, "-C", "200", *flags)) == lines


# Version 2.0.11 sends more than the receive maximum when it drains QoS 2 to version 5.
peer_skips.add("mosquitto_a_session_queues_while_it_is_away_and_through_a_crash")


@scenario
def mosquitto_a_retained_message_survives_a_crash(broker):
    for version in VERSIONS:
        topic = f"mosquitto/retained/{version}"
        publish(broker, topic, version, ["kept"], "-q", "1", "-r")
        broker.restart()
        reader = subscriber(broker, f"m-retained-{version}", topic, version, "-q", "1", "-C", "1", "-F", "%r %p")
        assert output(reader) == ["1 kept"]


@scenario
def mosquitto_a_will_is_published_when_the_client_is_killed(broker):
    for version in VERSIONS:
        topic = f"mosquitto/will/{version}"
        flags = ("-q", "1", *durable(version))
        output(subscriber(broker, f"m-watcher-{version}", topic, version, "-E", *flags))
        victim = subscriber(broker, f"m-victim-{version}", f"mosquitto/will-ready/{version}", version, "-q", "1",
                            "--will-topic", topic, "--will-payload", "gone", "--will-qos", "1")
        publish(broker, f"mosquitto/will-ready/{version}", version, ["ready"], "-q", "1", "-r")
        assert victim.stdout.readline() == "ready\n"
        victim.kill()
        victim.communicate()
        assert output(subscriber(broker, f"m-watcher-{version}", topic, version, "-C", "1", *flags)) == ["gone"]
