"""One thread that carries thousands of conversations: each is a coroutine, and waits for a descriptor or for a time.

The standard library's own loop does the same with a future, a handle and a callback for each wait; an attack has one core, and it is
to be spent on the broker. A coroutine waits by `await until(descriptor, events)` or `await pause(seconds)`; one that never has to
wait has to `await turn()` now and then.
"""

import collections
import heapq
import itertools
import select
import time
import types

READABLE, WRITABLE = select.EPOLLIN | select.EPOLLRDHUP, select.EPOLLOUT
EVENTS_MAX = 1_024


@types.coroutine
def until(descriptor, events):
    return (yield descriptor, events)


@types.coroutine
def pause(seconds):
    yield None, seconds


def turn():
    """Lets the others go on."""
    return pause(0)


class Loop:
    def __init__(self):
        self.poll = select.epoll()
        self.known, self.waiting = set(), {}
        self.times, self.order, self.ready = [], itertools.count(), collections.deque()
        self.stopping = False

    def start(self, coroutine):
        self.ready.append((coroutine, None))

    def forget(self, descriptor):
        """It is about to be closed, which takes it out of the kernel's set."""
        self.known.discard(descriptor)
        self.waiting.pop(descriptor, None)

    def run(self):
        """Until somebody sets `stopping`."""
        while not self.stopping:
            for _ in range(len(self.ready)):
                self.step(*self.ready.popleft())
            # No longer than this, because a signal that asks to stop does not interrupt the wait.
            wait = 0.05
            if self.ready:
                wait = 0
            elif self.times:
                wait = min(wait, max(0, self.times[0][0] - time.monotonic()))
            for descriptor, events in self.poll.poll(wait, EVENTS_MAX):
                coroutine = self.waiting.pop(descriptor, None)
                if coroutine is not None:
                    self.step(coroutine, events)
            now = time.monotonic()
            while self.times and self.times[0][0] <= now:
                self.ready.append((heapq.heappop(self.times)[2], None))

    def step(self, coroutine, value):
        """Until it waits again."""
        try:
            descriptor, wanted = coroutine.send(value)
        except StopIteration:
            return
        if descriptor is None:
            if wanted <= 0:
                self.ready.append((coroutine, None))
            else:
                heapq.heappush(self.times, (time.monotonic() + wanted, next(self.order), coroutine))
            return
        self.waiting[descriptor] = coroutine
        if descriptor in self.known:
            self.poll.modify(descriptor, wanted | select.EPOLLONESHOT)
        else:
            self.poll.register(descriptor, wanted | select.EPOLLONESHOT)
            self.known.add(descriptor)
