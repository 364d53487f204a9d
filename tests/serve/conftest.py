"""Lets these tests use the client with no manners that the system tests have."""

import sys
from pathlib import Path

SYSTEM = str(Path(__file__).resolve().parents[1] / "system")
if SYSTEM not in sys.path:
    sys.path.append(SYSTEM)
