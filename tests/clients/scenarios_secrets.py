"""Runs behind all others with proofs: what they showed, and what they sent, is nowhere to be read."""

from guest import answer, known
from paho_client import V5
from proofs import secrets_in
from scenario import scenario, until


@scenario
def secrets_are_in_no_log_and_in_no_figure(broker):
    watcher = known(broker.plain, "watcher")
    assert watcher.subscribe("$SYS/#", 0) == [0]
    until(lambda: len(watcher.messages) > 20, "figures")
    figures = "".join(f"{message.topic} {message.payload.decode()}\n" for message in watcher.take())
    watcher.close()
    assert "$SYS/broker/messages/unauthorized" in figures, figures
    assert not secrets_in(figures), figures
    assert answer(broker.plain, V5, "alice", "heron-7f3a9d") == 0x86
    assert "a wrong password" in broker.log_text(), "it is not this log in which they would be found"
    broker.check_log()
