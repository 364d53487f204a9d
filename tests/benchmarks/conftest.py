"""Lets these tests import `benchmarks`, which is not installed with the router.

The checkout goes to the end of the path: its `router/` has no extensions and must not
hide the built one.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))
