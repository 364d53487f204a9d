"""Chooses the build under test, for this process and for the servers it starts.

ROUTER_BUILD names it, `checked` by default. The source tree holds no extensions, so a
test that imported from there by accident would fail in a confusing way; hence the path
is set here, before any test module is imported.
"""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VARIANT = os.environ.setdefault("ROUTER_BUILD", "checked")
BUILD = ROOT / "build" / VARIANT

if not BUILD.is_dir():
    sys.exit(f"build/{VARIANT} is missing: run scripts/setup {VARIANT} test")

sys.path[:] = [str(BUILD), *(p for p in sys.path if p not in (str(BUILD), str(ROOT)))]
os.environ["PYTHONPATH"] = str(BUILD)
