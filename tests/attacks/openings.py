"""Brokers that are left open, each in one way, and the attacks that have to find it: `run.py --prove` sees whether they do.

What is replaced is text of the configuration. The last one is no way in: it loses what a victim was to have.
"""


class Opening:
    def __init__(self, name, replaced, attacks):
        self.name, self.replaced, self.attacks = name, replaced, attacks

    def applied(self, settings, evidence):
        for old, new in self.replaced:
            new = new.format(stranger=evidence.made.folder / "other" / "other-authority.pem")
            assert old in settings, f"nothing in the configuration is {old!r}"
            settings = settings.replace(old, new)
        return settings


openings = (
    Opening("topics belong to nobody", [('account_topic_pattern = "u/{account}/#"', "")],
            ("accounts-subscribe", "accounts-publish", "accounts-will")),
    Opening("tokens of any issuer", [('token_issuer = "https://issuer.example"', 'token_issuer = ""')], ("tokens-forged",)),
    Opening("no revocation list", [("client_revoked = ", "#")], ("certificate-revoked",)),
    Opening("another authority is trusted", [('client_authorities = ["', 'client_authorities = ["{stranger}", "'), ("client_revoked = ", "#")],
            ("certificate-of-another-authority",)),
    Opening("certificates are optional", [('authentication = ["certificate"]', 'authentication = []\nclient_certificates = "optional"')],
            ("certificate-none",)),
    Opening("everybody is a proxy", [('proxy_from = ["192.0.2.0/24"]', 'proxy_from = ["127.0.0.0/8"]')], ("proxy-header-untrusted",)),
    Opening("a queue of eight messages", [("[log]", "[broker]\nqueue_messages_max = 8\n[log]")], ("tls-garbage",)),
)
