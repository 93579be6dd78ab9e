"""A broker that lets in who can prove who it is: a listener for each way to, and rules."""

import contextlib
import functools
import socket

from broker import Broker, bind_free
from hook import Service
from proofs import AUDIENCE, ISSUER, Proofs, secrets_in

#: What everybody may, unless a scenario has rules of its own.
RULES = """\
group watchers watcher
group operators
allow subscribe         group:watchers    $SYS/#
deny  subscribe         everyone          $SYS/#
allow publish           everyone          u/+/inbox
allow all               group:operators   ops/#
deny  all               everyone          ops/#
default allow
"""

proofs = functools.cache(Proofs)


def free_ports(count, host="127.0.0.1"):
    """All of them at once, so that none is given twice."""
    with contextlib.ExitStack() as open_ones:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        probes = [open_ones.enter_context(socket.socket(family)) for _ in range(count)]
        return [bind_free(probe, host) for probe in probes]


class Door:
    """One listener, or a proxy in front of it, as a client sees it."""

    def __init__(self, port, host="127.0.0.1", scheme="mqtt", authority=None, shown=None):
        self.port, self.host, self.scheme = port, host, scheme
        self.authority, self.shown = authority, shown
        self.is_web = scheme == "ws"

    @property
    def url(self):
        return f"{self.scheme}://{self.host}:{self.port}"

    def showing(self, shown):
        """The same, for a client with that certificate and key; None: without."""
        return Door(self.port, self.host, self.scheme, self.authority, shown)


class Guarded(Broker):
    """Accounts are user names. `rules` None: without a file of rules."""

    def __init__(self, binary, reactor, shards, transport="guarded", rules=RULES):
        super().__init__(binary, reactor, shards, transport)
        self.proofs = proofs(binary)
        self.rules = self.folder / "rules"
        self.has_rules = rules is not None
        self.rules.write_text(rules or "")
        self.revoked = self.proofs.revocations(self.folder, "revoked")
        scram, hook, tls, web, proxied, strange, plain, service = free_ports(8)
        self.scram, self.hooked, self.proxied, self.strange = Door(scram), Door(hook), Door(proxied), Door(strange)
        self.tls = Door(tls, scheme="mqtts", authority=self.proofs.authority)
        self.web = Door(web, scheme="ws")
        self.six = Door(free_ports(1, "::1")[0], "::1")
        self.plain = Door(plain)
        self.socket = self.folder / "mqtt.sock"
        # They are opened in the order of their names: when the last one is there, all are.
        self.port = self.web.port
        self.hook = Service(service)
        self.hook.start()

    def command(self):
        settings = self.folder / "ironpost.toml"
        settings.write_text(self.settings())
        return [self.binary, "serve", "--config", str(settings), "--data", str(self.folder / "data"),
                "--shards", str(self.shards), "--reactor", self.reactor]

    def settings(self):
        made = self.proofs
        rules = f'[authorization]\nrules = "{self.rules}"\n' if self.has_rules else ""
        head = (
            f'account = "username"\naccount_topic_pattern = "u/{{account}}/#"\n'
            f'[broker]\nsys_interval_s = 1\n[log]\nlevel = "trace"\n{rules}'
            f'[authentication]\npassword_file = "{made.password_file}"\n'
            f'token_keys = ["{made.pem_file}", "{made.jwks_file}"]\n'
            f'token_issuer = "{ISSUER}"\ntoken_audience = "{AUDIENCE}"\n'
            f'hook_url = "http://127.0.0.1:{self.hook.port}/may"\nhook_secret_file = "{made.hook_secret_file}"\n'
        )
        return head + "".join(
            f'[listener.{name}]\naddress = "{address}"\nauthentication = [{methods}]\n{more}'
            for name, address, methods, more in self.listeners())

    def listeners(self):
        made = self.proofs
        certificates = (
            f'certificates = ["{made.server_chain}"]\nkeys = ["{made.server_key}"]\n'
            f'client_authorities = ["{made.authority}"]\nclient_revoked = ["{self.revoked}"]\n')
        here = "tcp://127.0.0.1"
        return [
            ("scram", f"{here}:{self.scram.port}", '"scram"', ""),
            ("hook", f"{here}:{self.hooked.port}", '"hook"', ""),
            ("tls", f"tls://127.0.0.1:{self.tls.port}", '"certificate"', certificates),
            ("socket", f"unix://{self.socket}", '"password"', 'mode = "660"\n'),
            ("proxied", f"{here}:{self.proxied.port}", '"password"', 'proxy_from = ["127.0.0.1"]\n'),
            ("strange", f"{here}:{self.strange.port}", '"password"', 'proxy_from = ["192.0.2.0/24", "::1"]\n'),
            ("six", f"tcp://[::1]:{self.six.port}", '"password"', ""),
            ("web", f"ws://127.0.0.1:{self.web.port}", '"token", "password"', ""),
            ("plain", f"{here}:{self.plain.port}", '"token", "password"', ""),
        ]

    def stop(self):
        super().stop()
        self.hook.stop()

    def remove(self):
        self.hook.stop()
        super().remove()

    def log_text(self):
        return self.log.read_text(errors="replace")

    def check_log(self):
        """It says who was turned away and why, and nothing that is secret."""
        found = secrets_in(self.log_text())
        assert not found, f"the log has {found}"


@contextlib.contextmanager
def another(broker, **given):
    """A broker of its own for a scenario with many wrong proofs or other rules: all come from one address."""
    own = Guarded(broker.binary, broker.reactor, broker.shards, **given)
    try:
        own.start()
        try:
            yield own
        except Exception as error:
            error.add_note(f"--- the log of its own broker:\n{own.log_tail()}\n---")
            raise
        own.stop()
        own.check_log()
    finally:
        own.remove()
