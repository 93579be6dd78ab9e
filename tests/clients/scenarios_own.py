"""What `ironpost pub` and `ironpost sub` see, and the tour of the README word for word."""

import os
import pathlib
import re
import subprocess
import tempfile

from broker import free_port
from scenario import peer_skips, scenario

ROOT = pathlib.Path(__file__).parent.parent.parent
WAIT_SECONDS = 30
STEP_SECONDS = 10

#: The command under test; set by run.py.
binary = None


def run(broker, *arguments, lines=None):
    """The lines that the command printed."""
    command = [str(binary), arguments[0], "-p", str(broker.port), *arguments[1:]]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, timeout=WAIT_SECONDS)
    assert done.returncode == 0, f"{command}: {done.returncode}: {done.stderr}"
    return done.stdout.splitlines()


@scenario
def own_client_drains_a_session_of_each_version_and_qos_after_a_crash(broker):
    numbers = [str(number) for number in range(500)]
    for version in ("3.1.1", "5"):
        for qos in ("1", "2"):
            topic, name = f"own/{version}/{qos}", f"own-{version}-{qos}"
            flags = ("-V", version, "-q", qos)
            session = ("sub", *flags, "-c", "-i", name, "-t", f"{topic}/#", "-v")
            assert run(broker, *session, "--count", "0") == []
            run(broker, "pub", *flags, "-t", f"{topic}/x", "-l", lines="".join(f"{n}\n" for n in numbers))
            broker.restart()
            wanted = [f"{topic}/x {number}" for number in numbers]
            for part in (wanted[:200], wanted[200:]):
                got = run(broker, *session, "--count", str(len(part)))
                assert got == part, f"got {got}, wanted {part}"


@scenario
def own_client_says_why_it_fails(broker):
    command = [str(binary), "pub", "-p", str(free_port()), "-t", "x", "-m", "x"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_SECONDS)
    assert done.returncode == 1 and "cure: start a broker" in done.stderr, done
    done = subprocess.run([str(binary), "pub", "-t", "a/#", "-m", "x"], capture_output=True, text=True)
    assert done.returncode == 2 and "no topic" in done.stderr, done


def tour():
    """The commands of the README's tour, each with the output it shows."""
    text = (ROOT / "README.md").read_text()
    block = re.search(r"```console\n(\$ .*?)```", text, re.DOTALL).group(1)
    steps = []
    for line in block.splitlines():
        if line.startswith("$ "):
            steps.append((line[2:], []))
        else:
            steps[-1][1].append(line)
    return steps


def shims(folder, port):
    """An `ironpost` for the path that differs from the real one in its default port, which may be taken here; and a
    `sleep` that goes on until somebody listens there, for the tour says how long a broker takes to start, and this
    host may be busier than the reader's."""
    real = pathlib.Path(binary).resolve()
    scripts = {
        "ironpost": 'verb=$1; shift; case $verb in\n'
                    f'serve) exec {real} serve --listen tcp://127.0.0.1:{port} "$@" ;;\n'
                    f'*) exec {real} $verb -p {port} "$@" ;;\nesac\n',
        "sleep": '/bin/sleep "$@"\nfor _ in {1..100}; do\n'
                 f'(: < /dev/tcp/127.0.0.1/{port}) 2> /dev/null && exit\n/bin/sleep 0.1\ndone\n',
    }
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/usr/bin/env bash\n{script}")
        (folder / name).chmod(0o755)


@scenario
def own_tour_of_the_readme_works_word_for_word(_broker):
    """Typed into bash, with a mark after each command to tell the outputs apart."""
    steps = tour()
    assert len(steps) >= 6, steps
    script = "".join(f"{command}\necho '--- mark'\n" for command, _ in steps)
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryDirectory() as path:
        shims(pathlib.Path(path), free_port())
        environment = {**os.environ, "PATH": f"{path}:{os.environ['PATH']}"}
        # A command that hangs is ended, so that the rest of the tour tells which it was.
        script = script.replace("ironpost sub", f"timeout {STEP_SECONDS} ironpost sub")
        script = script.replace("ironpost pub", f"timeout {STEP_SECONDS} ironpost pub")
        done = subprocess.run(["bash", "-c", script + "kill $(jobs -p)\nwait\n"], cwd=home, env=environment,
                              capture_output=True, text=True, timeout=WAIT_SECONDS + 3 * STEP_SECONDS)
        outputs = done.stdout.split("--- mark\n")
        log = (pathlib.Path(home) / "tour.log").read_text()
    for (command, wanted), got in zip(steps, outputs):
        assert got.splitlines() == wanted, f"$ {command}\ngot {got!r}, wanted {wanted}\n{done.stderr}\n{log}"


peer_skips.add("own_tour_of_the_readme_works_word_for_word")
