"""What the control plane says of itself to metrics, as values."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RenewalStatus:
    """A version that is or was away, or has certificates of its own; how it fares."""

    model: str
    version: int
    is_absent: bool
    retries: int
    has_tls: bool = False
    is_tls_current: bool = True
    """Whether the newest files are those in use."""
    expires_at_s: float = 0.0
    """When our own certificate expires; 0 without one."""
