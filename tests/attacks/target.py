"""The broker under attack: one listener that asks for nothing, on loopback, for the well-behaved; and one for each way to be kept out.

Decides its configuration, what attackers are told of it (`doors`), and which CPU it has. Processes, passwords, tokens and certificates
are those of `tests/clients`, which `run.py` puts on the path.
"""

import json
import os
import pathlib
import secrets
import subprocess
import sys
import time

from broker import Broker
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from guarded import free_ports
from proofs import AUDIENCE, ISSUER, Proofs

#: The account of the attackers.
MALLORY = {"mallory": "shrike-7f3a9c"}

RULES = "deny subscribe everyone $SYS/#\ndefault allow\n"

#: Name, scheme, what is asked for. They are opened in the order of their names: when the last one is there, all are.
LISTENERS = (("guarded", "tcp", ["token", "password"]), ("mtls", "tls", ["certificate"]), ("plain", "tcp", []),
             ("proxied", "tcp", ["password"]), ("scram", "tcp", ["scram"]), ("tls", "tls", ["token", "password"]),
             ("web", "ws", []), ("wss", "wss", ["token", "password"]))


def cpus():
    """The broker's and the load's, as the instrument would choose them, and that of the attackers."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[0], allowed[min(1, len(allowed) - 1)], allowed[2] if len(allowed) > 2 else allowed[0]


def go_first(thread=0):
    """Whenever this thread can run, it does, at once, as if who shares its CPU were on another machine. The ordinary class lets even
    an idle-class thread finish its slice, of 3 ms, when the other has lately had a little more than its share."""
    try:
        os.sched_setscheduler(thread, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        print("latencies: nothing may go first here, so they are the scheduler's too", file=sys.stderr)


class Evidence:
    """What there is to show, made once for all brokers of a run: the right and the wrong."""

    def __init__(self, binary):
        self.made = Proofs(binary)
        for name, password in MALLORY.items():
            command = [binary, "passwd", str(self.made.password_file), name, "--stdin", "--scram"]
            subprocess.run(command, input=f"{password}\n", text=True, check=True, capture_output=True)
        self.revoked = self.made.revocations(self.made.folder, "revoked")

    def forged_tokens(self):
        made, now = self.made, int(time.time())
        right = made.token(sub="bob")
        head, payload, signature = right.split(".")
        changed = made.token(sub="carol").split(".")[1]
        return {
            "expired": made.token(sub="bob", exp=now - 60),
            "without an end": made.token(sub="bob", without=["exp"]),
            "not yet valid": made.token(sub="bob", nbf=now + 3_600),
            "another issuer": made.token(sub="bob", iss="https://other.example"),
            "another audience": made.token(sub="bob", aud=["others"]),
            "of nobody": made.token(),
            "alg none": made.token("none", sub="bob"),
            "its signature taken off": f"{head}.{payload}.",
            "changed": f"{head}.{changed}.{signature}",
            "another head": f"{made.token('ES256', sub='bob').split('.')[0]}.{payload}.{signature}",
            "a bit of its signature": f"{head}.{payload}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}",
            "HS256 by the public key": made.token_by_public_key("bob"),
            "another key": made.token(sub="bob", key=ed25519.Ed25519PrivateKey.generate()),
            "another key under that name": made.token("ES256", sub="bob", key=ec.generate_private_key(ec.SECP256R1())),
        }


class Target(Broker):
    def __init__(self, binary, evidence, descriptors=None, opening=None, reactor="auto", shards=1):
        super().__init__(binary, reactor, shards, "guarded")
        self.evidence, self.descriptors, self.opening = evidence, descriptors, opening
        self.ports = dict(zip((name for name, _, _ in LISTENERS), free_ports(len(LISTENERS)), strict=True))
        self.port = self.ports[LISTENERS[-1][0]]
        #: In every payload that only bob may have; in everything that attackers write; in every name that is a path.
        self.secret = f"secret-{secrets.token_hex(8)}"
        self.mark, self.file_mark = f"hostile-{secrets.token_hex(4)}", f"traversal-{secrets.token_hex(4)}"
        self.rules = self.folder / "rules"
        self.rules.write_text(RULES)

    def command(self):
        settings = self.folder / "ironpost.toml"
        text = self.settings()
        settings.write_text(self.opening.applied(text, self.evidence) if self.opening else text)
        # Each becomes the next: it is the broker's process that is started here.
        limit = ["prlimit", f"--nofile={self.descriptors}"] if self.descriptors else []
        # Of one shard it is the first, and whatever is not a shard keeps to the other.
        places = cpus()[:2] if self.shards == 1 else cpus()[:1]
        return ["taskset", "--cpu-list", ",".join(map(str, places)), *limit, self.binary, "serve", "--config", str(settings),
                "--data", str(self.folder / "data"), "--shards", str(self.shards), "--reactor", self.reactor]

    def settings(self):
        made = self.evidence.made
        head = (f'account = "username"\naccount_topic_pattern = "u/{{account}}/#"\n'
                f'[log]\nformat = "json"\n[authorization]\nrules = "{self.rules}"\n'
                f'[authentication]\npassword_file = "{made.password_file}"\n'
                f'token_keys = ["{made.pem_file}", "{made.jwks_file}"]\n'
                f'token_issuer = "{ISSUER}"\ntoken_audience = "{AUDIENCE}"\n')
        return head + "".join(self.listener(*one) for one in LISTENERS)

    def listener(self, name, scheme, methods):
        made = self.evidence.made
        text = f'[listener.{name}]\naddress = "{scheme}://127.0.0.1:{self.ports[name]}"\nauthentication = {json.dumps(methods)}\n'
        if scheme in ("tls", "wss"):
            text += f'certificates = ["{made.server_chain}"]\nkeys = ["{made.server_key}"]\n'
        if name == "mtls":
            text += f'client_authorities = ["{made.authority}"]\nclient_revoked = ["{self.evidence.revoked}"]\n'
        if name == "proxied":
            text += 'proxy_from = ["192.0.2.0/24"]\n'
        return text

    def doors(self):
        """For attackers, in a file: what they know, what they have, and what they must not see."""
        made = self.evidence.made
        doors = {name: {"host": "127.0.0.1", "port": self.ports[name], "tls": scheme in ("tls", "wss"), "web": scheme in ("ws", "wss")}
                 for name, scheme, _ in LISTENERS}
        certificates = {"of a stranger": made.stranger, "revoked": made.shown["revoked"]}
        known = {
            "doors": doors, "secret": self.secret, "mark": self.mark, "file_mark": self.file_mark, "authority": str(made.authority),
            "certificates": {name: [str(path) for path in shown] for name, shown in certificates.items()},
            "passwords": MALLORY, "own_token": made.token(sub="mallory", exp=int(time.time()) + 7_200),
            "forged_tokens": self.evidence.forged_tokens(),
        }
        path = self.folder / "doors.json"
        path.write_text(json.dumps(known))
        return path

    def start(self):
        super().start()
        if cpus()[2] == cpus()[0]:
            for task in pathlib.Path(f"/proc/{self.process.pid}/task").iterdir():
                if (task / "comm").read_text().startswith("shard-"):
                    go_first(int(task.name))

    # --- What it is ---

    def status(self, name):
        """A line of /proc/PID/status that is in kB, in bytes."""
        text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.split(f"{name}:")[1].split()[0]) * 1_024

    def resident(self):
        return self.status("VmRSS")

    def greatest(self):
        """What was resident at most, since it was forgotten."""
        return self.status("VmHWM")

    def forget_greatest(self):
        pathlib.Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def open_descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def log_bytes(self):
        return self.log.stat().st_size

    def complaints(self, since):
        """What the log has at level error, behind that byte."""
        with self.log.open("rb") as log:
            log.seek(since)
            lines = log.read().decode(errors="replace").splitlines()
        return [line for line in lines if '"level":"error"' in line.replace(": ", ":").lower() or "panicked" in line]

    def data_bytes(self):
        return sum(path.stat().st_size for path in (self.folder / "data").rglob("*") if path.is_file())

    def traces(self):
        """Files that a name of an attacker has become."""
        found = [path for path in self.folder.rglob(f"*{self.file_mark}*")]
        places = {pathlib.Path(place).expanduser().resolve() for place in ("/", "/tmp", "/etc", "/dev/shm", "~", ".", "..", "../..")}
        places |= {self.folder.parent, self.folder.parent.parent}
        return found + [path for place in places for path in place.glob(f"*{self.file_mark}*")]
