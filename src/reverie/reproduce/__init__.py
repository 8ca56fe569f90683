"""Published results, made again: each module has `run(out, seed=0, full=False)`.

A run writes a figure, `table.json` and `table.txt` (our number beside the published one, with how
that one is known) to the folder `out`, and returns the table.
"""
