"""A new prediction-id key in the control log that a configuration names."""

import secrets

from router.clock import SystemClock
from router.control.labels import rotate_key_in
from router.lab.preview import read_file


def rotate_key_of(path: str) -> int:
    """The number of the key that was made."""
    config = read_file(path, has_models=False)
    return rotate_key_in(config.server.state, secrets.token_bytes, SystemClock())
