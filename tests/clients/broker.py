"""One broker process of a test run: start, crash, restart, stop, on a free port with its own data directory."""

import errno
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time

READY_SECONDS = 20
STOP_SECONDS = 20


#: Below those that the kernel gives to whoever connects: one of these would take what is free until the broker listens there.
PORTS = range(12_000, 32_000)


def bind_free(probe, host="127.0.0.1"):
    """Binds to a port that nobody has, by chance: others look for one at the same time."""
    for _ in range(1_000):
        port = random.choice(PORTS)
        try:
            probe.bind((host, port))
            return port
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    raise AssertionError(f"a thousand ports of {host} are taken")


def free_port():
    with socket.socket() as probe:
        return bind_free(probe)


def certificate(folder, name, *flags):
    """An authority, or a server's certificate that it vouches for, as an operator would make them."""
    key, chain = folder / f"{name}.key", folder / f"{name}.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
               "-subj", f"/CN={name}", "-keyout", str(key), "-out", str(chain), *flags]
    subprocess.run(command, check=True, capture_output=True)
    return key, chain


class Broker:
    """Ironpost, or the peer against which the scenarios themselves are checked."""

    def __init__(self, binary, reactor, shards, transport="tcp"):
        self.binary, self.reactor, self.shards = binary, reactor, shards
        self.is_peer = binary == "mosquitto"
        self.port = free_port()
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="ironpost-clients-"))
        self.log = self.folder / "log"
        self.process = None
        self.transport = transport
        #: What clients have to trust, in a file; None: they speak without TLS.
        self.authority = None
        #: What they have to show: a certificate and its key; None: nothing.
        self.shown = None
        if transport in ("tls", "mtls", "wss"):
            key, self.authority = certificate(self.folder, "authority")
            self.vouched = ["-CA", str(self.authority), "-CAkey", str(key), "-addext", "basicConstraints=CA:FALSE"]
            self.key, self.chain = self.server_certificate("server", "DNS:localhost,IP:127.0.0.1")
            self.other_key, self.other_chain = self.server_certificate("other", "DNS:other.example")
        if transport == "mtls":
            key, chain = self.client_certificate("everybody")
            self.shown = (chain, key)

    @property
    def is_web(self):
        return self.transport in ("ws", "wss")

    def server_certificate(self, name, names):
        return certificate(self.folder, name, *self.vouched, "-addext", f"subjectAltName={names}")

    def client_certificate(self, name):
        return certificate(self.folder, name, *self.vouched, "-addext", "extendedKeyUsage=clientAuth")

    def command(self):
        if not self.is_peer:
            listen = ["--listen", f"{self.transport}://127.0.0.1:{self.port}"]
            if self.authority:
                settings = self.folder / "ironpost.toml"
                scheme = "tls" if self.shown else self.transport
                text = (
                    f'[listener.clients]\naddress = "{scheme}://127.0.0.1:{self.port}"\n'
                    f'certificates = ["{self.chain}", "{self.other_chain}"]\n'
                    f'keys = ["{self.key}", "{self.other_key}"]\n'
                )
                if self.shown:
                    # All of them are devices of one account.
                    text = 'account = "username"\n' + text + (
                        f'client_authorities = ["{self.authority}"]\nauthentication = ["certificate"]\n')
                settings.write_text(text)
                listen = ["--config", str(settings)]
            return [self.binary, "serve", *listen, "--data", str(self.folder / "data"), "--shards",
                    str(self.shards), "--reactor", self.reactor]
        settings = self.folder / "mosquitto.conf"
        settings.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence true\nautosave_interval 0\n"
            f"persistence_location {self.folder}/\nmax_queued_messages 0\nmax_queued_bytes 0\nuser root\n"
        )
        return [shutil.which("mosquitto") or "/usr/sbin/mosquitto", "-c", str(settings)]

    def start(self):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"the broker ended with {self.process.returncode}:\n{self.log_tail()}")
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise AssertionError(f"the broker did not listen within {READY_SECONDS} s:\n{self.log_tail()}")

    def crash(self):
        """kill -9. The peer keeps its state in memory until it is asked to stop, so it is asked."""
        self.process.send_signal(signal.SIGTERM if self.is_peer else signal.SIGKILL)
        self.process.wait(STOP_SECONDS)

    def restart(self):
        self.crash()
        self.start()

    def stop(self):
        """SIGTERM, and an exit code of 0 within the bound."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the broker did not stop within {STOP_SECONDS} s:\n{self.log_tail()}") from None
        assert code == 0, f"the broker stopped with exit code {code}:\n{self.log_tail()}"

    def remove(self):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def log_tail(self):
        return self.log.read_text(errors="replace")[-4000:]
