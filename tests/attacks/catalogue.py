"""The catalogue: importing a family adds its attacks, in this order."""

import attacks_tls  # noqa: F401
import attacks_bytes  # noqa: F401
import attacks_topics  # noqa: F401
import attacks_sessions  # noqa: F401
import attacks_messages  # noqa: F401
import attacks_text  # noqa: F401
import attacks_proofs  # noqa: F401
import attacks_accounts  # noqa: F401
import attacks_web  # noqa: F401
import attacks_connections  # noqa: F401
import controls  # noqa: F401
from siege import attacks  # noqa: F401
