"""What has to be so after each attack, and how soon. Each finding is a sentence; none is what is wanted."""

import time

from victims import visit, visit_guarded

#: Descriptors and memory are back within this.
BACK_SECONDS = 20
#: Descriptors that the broker may have opened meanwhile for itself: segments of the journal, a timer.
DESCRIPTORS_MORE_MAX = 12
#: The smallest segment of the journal, which is a file that stays open.
SEGMENT_BYTES_MIN = 8 << 20
#: What the allocator may keep, in MB, beside what an attack left because it may.
KEPT_MB_MAX = 32
#: The same as a part of the most that there was: pages of which a little is still in use.
KEPT_PART_MAX = 0.25


class Before:
    """A reading that the aftermath is held against."""

    def __init__(self, target):
        self.pid, self.descriptors, self.resident = target.process.pid, target.open_descriptors(), target.resident()
        self.log_bytes, self.data_bytes = target.log_bytes(), target.data_bytes()
        target.forget_greatest()


def judge(target, before, attack):
    """What is wrong, and figures."""
    if target.process.poll() is not None:
        return [f"the broker ended with {target.process.returncode}: {target.log_tail()[-1_500:]}"], {}
    wrong = [] if target.process.pid == before.pid else ["it is another process"]
    greatest = target.greatest()
    wrong += fresh(target)
    kept_mb_max = KEPT_MB_MAX + attack.keeps_mb + KEPT_PART_MAX * (greatest - before.resident) / 1e6
    descriptors_max = DESCRIPTORS_MORE_MAX + max(0, target.data_bytes() - before.data_bytes) // SEGMENT_BYTES_MIN
    begin = time.monotonic()
    while True:
        descriptors, kept_mb = target.open_descriptors() - before.descriptors, (target.resident() - before.resident) / 1e6
        is_back = descriptors <= descriptors_max and kept_mb <= kept_mb_max
        if is_back or time.monotonic() - begin > BACK_SECONDS:
            break
        time.sleep(0.1)
    if descriptors > descriptors_max:
        wrong.append(f"{descriptors} more descriptors than before are open after {BACK_SECONDS} s")
    if kept_mb > kept_mb_max:
        wrong.append(f"{kept_mb:.0f} MB more than before are resident after {BACK_SECONDS} s, {kept_mb_max:.0f} may be")
    wrong += [f"a name has become a file: {path}" for path in target.traces()]
    wrong += [f"the log complains: {line[:300]}" for line in target.complaints(before.log_bytes)[:3]]
    figures = {"peak_mb": (greatest - before.resident) / 1e6, "kept_mb": kept_mb, "descriptors_more": descriptors,
               "back_s": time.monotonic() - begin, "log_bytes": target.log_bytes() - before.log_bytes,
               "data_bytes": target.data_bytes() - before.data_bytes}
    return wrong, figures


def fresh(target):
    """Somebody new comes in and gets a message: where nothing is asked for, and through TLS with a token."""
    wrong = []
    for come in (visit, visit_guarded):
        try:
            come(target, f"afterwards-{time.monotonic_ns()}")
        except Exception as error:  # noqa: BLE001  any way not to be let in is a finding
            wrong.append(f"a fresh client got no message ({come.__name__}): {type(error).__name__} {error}")
    return wrong
