"""A file's fingerprint: its versions are loaded here and asked."""

from router.clock import SystemClock
from router.lab.bay import everything
from router.lab.fingerprint import Fingerprint, fingerprint_of
from router.lab.preview import read_file
from router.lab.recording import read_replay


def survey(
    path: str, environment: str = "", recording: str | None = None
) -> Fingerprint:
    """The fingerprint of every version that a configuration file serves."""
    config = read_file(path, environment=environment)
    recorded = () if recording is None else read_replay(recording)
    return fingerprint_of(everything(config), SystemClock(), environment, recorded)
