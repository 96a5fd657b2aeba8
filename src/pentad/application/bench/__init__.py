"""`pentad bench`: how fast the engine, the server and its peers are on this machine.

`engine` drives the engine in this process, `load` and `serving` a server over HTTP, `agents` runs of
several turns, `peers` other engines on the same file. docs/benchmarks.md says how to read the numbers.
"""
