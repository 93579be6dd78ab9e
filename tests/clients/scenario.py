"""The list of scenarios: functions of a broker that raise if it does not do what it should."""

import time

#: In the order in which they run.
scenarios = []

#: Names of those that the peer is known to fail, so that a run against it can be green.
peer_skips = set()


def scenario(function):
    scenarios.append(function)
    return function


def until(condition, what, seconds=20):
    """Polls; for what has no event to wait for."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.02)
