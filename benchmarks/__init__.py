"""One question a file, each asked beside a reference in the same run.

`python -m benchmarks.run` asks all of them. Nothing here is imported by the router, and
nothing here imports it: servers are started as their users would start them.
"""
