"""`python -m benchmarks`: everything, one question after the other."""

from benchmarks.run import main

main()
