"""The client's side of SCRAM-SHA-256 (RFC 5802, RFC 7677), so that an exchange can be recorded."""

import base64
import hashlib
import hmac

METHOD = "SCRAM-SHA-256"


def first(name, nonce):
    return f"n,,n={name},r={nonce}".encode()


def final(client_first, server_first, password):
    """What proves the password, for what the server said."""
    nonce, salt, rounds = (part[2:] for part in server_first.decode().split(","))
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(salt), int(rounds))
    without_proof = f"c=biws,r={nonce}"
    signed = ",".join((client_first.decode().removeprefix("n,,"), server_first.decode(), without_proof)).encode()
    key = mac(salted, b"Client Key")
    signature = mac(hashlib.sha256(key).digest(), signed)
    proof = bytes(one ^ other for one, other in zip(key, signature, strict=True))
    return f"{without_proof},p={base64.b64encode(proof).decode()}".encode()


def mac(key, text):
    return hmac.new(key, text, hashlib.sha256).digest()
