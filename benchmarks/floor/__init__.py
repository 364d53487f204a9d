"""The echo server that every other server is measured against, and its build."""
