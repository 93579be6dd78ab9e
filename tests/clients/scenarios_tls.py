"""What OpenSSL sees of a listener with TLS, and what an operator does with its certificates."""

import shutil
import signal
import socket
import subprocess

from paho_client import V5, Client
from scenario import scenario, until

WAIT_SECONDS = 20


def s_client(broker, *flags, session=b""):
    """The exit code and words of an `openssl s_client` that says that and hangs up."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{broker.port}", "-CAfile", str(broker.authority),
               "-verify_return_error", *flags]
    if broker.shown:
        command += ["-cert", str(broker.shown[0]), "-key", str(broker.shown[1])]
    done = subprocess.run(command, input=session, capture_output=True, timeout=WAIT_SECONDS)
    return done.returncode, (done.stdout + done.stderr).decode(errors="replace")


def fingerprint(broker, *flags):
    """Of the certificate that is presented."""
    _, words = s_client(broker, *flags)
    begin, end = words.index("-----BEGIN CERTIFICATE"), words.index("-----END CERTIFICATE-----")
    return fingerprint_of(words[begin:end] + "-----END CERTIFICATE-----\n")


def fingerprint_of(pem):
    command = ["openssl", "x509", "-noout", "-fingerprint", "-sha256"]
    return subprocess.run(command, input=pem, text=True, capture_output=True, check=True).stdout


@scenario
def tls_has_what_is_safe_and_nothing_else(broker):
    for flags, protocol in ((["-tls1_3"], "TLSv1.3"), (["-tls1_2"], "TLSv1.2")):
        code, words = s_client(broker, *flags, "-alpn", "mqtt")
        assert code == 0 and "Verify return code: 0" in words, words
        assert protocol in words and "ALPN protocol: mqtt" in words, words
    weak = "DEFAULT:@SECLEVEL=0"
    for flags in (["-tls1_1", "-cipher", weak], ["-tls1", "-cipher", weak],
                  ["-tls1_2", "-cipher", "AES128-GCM-SHA256"], ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA256"],
                  ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA"]):
        code, words = s_client(broker, *flags)
        assert code != 0 and "Cipher is (NONE)" in words, f"{flags}: {words}"
    # Nothing in common with the kind of our key is no refusal of the client.
    code, words = s_client(broker, "-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256")
    assert code != 0 and "alert handshake failure" in words, words
    for version in ("-tls1_2", "-tls1_3"):
        code, words = s_client(broker, version, "-alpn", "h2")
        assert code != 0 and "alert no application protocol" in words, words


@scenario
def tls_shows_each_name_its_certificate(broker):
    default, other = fingerprint(broker, "-noservername"), fingerprint(broker, "-servername", "other.example")
    assert default == fingerprint_of(broker.chain.read_text()), default
    assert other == fingerprint_of(broker.other_chain.read_text()), other
    assert fingerprint(broker, "-servername", "localhost") == default
    assert fingerprint(broker, "-servername", "unknown.example") == default


@scenario
def tls_sessions_are_resumed(broker):
    saved = broker.folder / "session"
    for version in ("-tls1_2", "-tls1_3"):
        # TLS 1.3 tickets come behind the handshake, so there has to be a conversation: PINGREQ before CONNECT ends it.
        s_client(broker, version, "-sess_out", str(saved), "-ign_eof", session=b"\xc0\x00")
        _, words = s_client(broker, version, "-sess_in", str(saved))
        assert "Reused, TLSv1." in words, f"{version}: {words}"
        saved.unlink()


@scenario
def tls_certificates_are_exchanged_and_nobody_is_dropped(broker):
    client = Client(broker, "stays", V5)
    client.subscribe("stays", 1)
    before = fingerprint(broker)
    key, chain = broker.server_certificate("renewed", "DNS:localhost,IP:127.0.0.1")
    shutil.copy(key, broker.key)
    shutil.copy(chain, broker.chain)
    assert fingerprint(broker) == before, "nobody has said so"
    broker.process.send_signal(signal.SIGHUP)
    until(lambda: fingerprint(broker) == fingerprint_of(chain.read_text()), "the new certificate")
    broker.chain.write_text("no certificate\n")
    broker.process.send_signal(signal.SIGHUP)
    until(lambda: "not_reloaded" in broker.log_tail(), "the complaint")
    assert str(broker.chain) in broker.log_tail(), broker.log_tail()
    assert fingerprint(broker) == fingerprint_of(chain.read_text()), "the last good one"
    client.publish("stays", "still here", 1)
    client.expect(["still here"])
    client.close()
    shutil.copy(chain, broker.chain)
    broker.restart()


@scenario
def tls_is_not_answered_with_packets(broker):
    with socket.create_connection(("127.0.0.1", broker.port), timeout=WAIT_SECONDS) as peer:
        peer.sendall(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00")
        heard = b""
        while more := peer.recv(100):
            heard += more
        # An alert, level fatal.
        assert heard[:1] == b"\x15" and heard[5] == 2, heard
    code, words = s_client(broker)
    assert code == 0, words
