"""Everyone who can run this network on a CPU, one module each.

A module has `version()`, which raises ImportError where the peer is not installed; `prepare(source, folder)`, which writes what
the peer reads, from the checkpoint or from the bundle that its `SOURCE` names (once: a file that is there is kept); and
`load(source, mode, threads)`, which gives a function from texts, each ids `[tokens]` int64, to their vectors `[texts, hidden]`
float32. `contestants.py` names modules and modes.
"""
