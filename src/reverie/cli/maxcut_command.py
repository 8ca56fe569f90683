"""`reverie maxcut`: a certified bound of the maximum cut, and a cut."""

from __future__ import annotations

from reverie.cli import flags
from reverie.cli.console import Console
from reverie.files import write_json
from reverie.targets.maxcut import maxcut as cut_of


def maxcut(command: flags.MaxCut, console: Console) -> int:
    found = cut_of(
        command.graph, rank=command.rank, accuracy=command.accuracy,
        roundings=command.roundings, seed=command.seed, progress=console.ticker("maxcut"),
    )  # fmt: skip
    lines = [f"{found.graph.nodes:,} nodes, {found.graph.edges:,} edges.", *found.sentences()]
    if command.out is not None:
        lines.append(str(write_json(command.out, found.to_json())))
    flags.print_result(command, "\n".join(lines), found.to_json())
    return 0
