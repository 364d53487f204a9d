"""The short form that continuous integration runs: every question, few short rounds.

Fails on a lost call or a wrong answer, never on a slow machine.
"""

from benchmarks.run import main

if __name__ == "__main__":
    main(["--short"])
