"""What clients prove who they are with: passwords, tokens and certificates, made once for all brokers of a run.

All of it is secret, and none of it may appear in a log: whatever is made here is in `planted`.
"""

import atexit
import base64
import hashlib
import hmac
import json
import pathlib
import shutil
import subprocess
import tempfile
import time

import jwt
from broker import certificate
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

ISSUER, AUDIENCE = "https://issuer.example", "ironpost"
PASSWORDS = {name: f"{word}-7f3a9c" for name, word in
             [("alice", "heron"), ("bob", "marten"), ("carol", "plover"), ("dave", "siskin"), ("watcher", "bittern")]}

#: Every secret text that any client or file has had.
planted = set(PASSWORDS.values())


def plant(text):
    planted.add(text)
    return text


class Proofs:
    """Files for the broker, and what clients show it."""

    def __init__(self, binary):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="ironpost-proofs-"))
        atexit.register(shutil.rmtree, self.folder, ignore_errors=True)
        self.password_file, self.hook_secret_file = self.folder / "passwords", self.folder / "hook-secret"
        for name, password in PASSWORDS.items():
            command = [binary, "passwd", str(self.password_file), name, "--stdin", "--scram"]
            subprocess.run(command, input=f"{password}\n", text=True, check=True, capture_output=True)
        self.hook_secret = plant("wryneck-5521dd")
        self.hook_secret_file.write_text(f"{self.hook_secret}\n")
        self.make_keys()
        self.make_certificates()

    def make_keys(self):
        self.keys = {"EdDSA": ed25519.Ed25519PrivateKey.generate(), "ES256": ec.generate_private_key(ec.SECP256R1()),
                     "RS256": rsa.generate_private_key(65537, 2048)}
        self.public_pem = self.keys["EdDSA"].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        self.pem_file, self.jwks_file = self.folder / "issuer.pem", self.folder / "issuer.jwks"
        self.pem_file.write_bytes(self.public_pem)
        sets = [{**json.loads(kind.to_jwk(self.keys[name].public_key())), "kid": name, "use": "sig"}
                for kind, name in ((ECAlgorithm, "ES256"), (RSAAlgorithm, "RS256"))]
        self.jwks_file.write_text(json.dumps({"keys": sets}))

    def token(self, algorithm="EdDSA", key=None, without=(), **claims):
        """Of the issuer, for `sub`, good for five minutes; unless the claims say otherwise."""
        claims = {"iss": ISSUER, "aud": AUDIENCE, "exp": int(time.time()) + 300, **claims}
        claims = {name: value for name, value in claims.items() if name not in without}
        named = {"kid": algorithm} if algorithm in ("ES256", "RS256") else None
        return plant(jwt.encode(claims, key or self.keys.get(algorithm), algorithm=algorithm, headers=named))

    def token_by_public_key(self, name):
        """HS256 whose secret is the public key, which everybody has. PyJWT refuses to make one."""
        def part(value):
            return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
        claims = {"iss": ISSUER, "aud": AUDIENCE, "exp": int(time.time()) + 300, "sub": name}
        signed = ".".join(part(json.dumps(one).encode()) for one in ({"alg": "HS256", "typ": "JWT"}, claims))
        return plant(f"{signed}.{part(hmac.new(self.public_pem, signed.encode(), hashlib.sha256).digest())}")

    def make_certificates(self):
        self.authority_key, self.authority = certificate(self.folder, "authority")
        vouched = ["-CA", str(self.authority), "-CAkey", str(self.authority_key), "-addext", "basicConstraints=CA:FALSE"]
        self.server_key, self.server_chain = certificate(
            self.folder, "server", *vouched, "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
        client = [*vouched, "-addext", "extendedKeyUsage=clientAuth"]
        self.shown = {name: certificate(self.folder, name, *client)[::-1] for name in ("alice", "bob", "revoked", "late")}
        other = self.folder / "other"
        other.mkdir()
        key, chain = certificate(other, "other-authority")
        vouched = ["-CA", str(chain), "-CAkey", str(key), "-addext", "basicConstraints=CA:FALSE"]
        self.stranger = certificate(other, "alice", *vouched, "-addext", "extendedKeyUsage=clientAuth")[::-1]

    def revocations(self, folder, *names):
        """A list of the authority with these certificates, in a file of that folder, as `openssl ca` makes it."""
        (folder / "index.txt").write_text("")
        (folder / "crlnumber").write_text(f"{int(time.time()):014x}\n")
        settings, made = folder / "ca.cnf", folder / "revoked.crl"
        settings.write_text(
            f"[ca]\ndefault_ca = own\n[own]\ndatabase = {folder}/index.txt\ncrlnumber = {folder}/crlnumber\n"
            f"default_md = sha256\ndefault_crl_days = 2\ncertificate = {self.authority}\n"
            f"private_key = {self.authority_key}\ncrl_extensions = own_crl\n"
            "[own_crl]\nauthorityKeyIdentifier = keyid:always\n")
        command = ["openssl", "ca", "-config", str(settings)]
        for name in names:
            subprocess.run([*command, "-revoke", str(self.shown[name][0])], check=True, capture_output=True)
        subprocess.run([*command, "-gencrl", "-out", str(made)], check=True, capture_output=True)
        return made


def forms(secret):
    """How it could stand in a text: as it is, in base64, in hexadecimal, or byte by byte."""
    raw = secret.encode()
    listed = ", ".join(str(byte) for byte in raw)
    return [secret, base64.b64encode(raw).rstrip(b"=").decode(), raw.hex(), listed]


def secrets_in(text):
    """Those of `planted` that appear in it, in any form. Of a token its signature is enough."""
    parts = planted | {token.rsplit(".", 1)[1] for token in planted if token.count(".") == 2 and not token.endswith(".")}
    return sorted(part for part in parts if any(form in text for form in forms(part)))
