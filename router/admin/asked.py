"""Who asks, as the commands want it: checked, bounded, and not taken on trust.

Where the listener knows its peer (a client certificate), that name is the actor,
whatever the request says. A Unix socket is open to its owner only, so there the request
may name the person.
"""

from typing import Any

from router.control.commands import Asked
from router.ops.methods import Code, MethodError

# Bytes of what is stored with every record.
LIMITS = {"actor": 256, "reason": 2_000, "request_id": 128}
NOBODY = "unknown"


def asked_of(request: Any, peer: str) -> Asked:
    """The `Asked` of a request; MethodError when a part of it is too long."""
    said = request.asked
    for name, limit in LIMITS.items():
        if len(getattr(said, name).encode()) > limit:
            raise MethodError(
                Code.INVALID_ARGUMENT, f"asked.{name}: at most {limit} bytes"
            )
    return Asked(peer or said.actor or NOBODY, said.reason, said.request_id)
