"""What audits say in fourteen scenarios, and whether they are right: ours beside its peers.

`python bench_verdicts.py [--out FILE] [--only 2,4] [--jobs 2] [--answers FILE]`; with
`--answers` it can be stopped and continued. Every tool sees the same tables (`scenarios`), 400
rows a side where the data have them, and every number is turned into an accusation by a rule that
is fixed here beforehand:

NewRow        SDMetrics NewRowSynthesis, defaults (numbers within 1% match), on 400 samples. Its
              documentation calls 0 "all the rows are copies" and 1 "all are new", and names no
              threshold: any matched row accuses.
DCR overfit   SDMetrics DCROverfittingProtection. Its documentation calls 1 the best score, which
              means that at most half of the samples are closer to training than to held-out rows:
              accuses when that share is over one half by more than its one-sided 95% error.
DCR baseline  SDMetrics DCRBaselineProtection: median distance to training rows over that of random
              rows. Its documentation names no threshold: accuses when the score is under half of
              what the held-out rows score in the samples' place.
single out 1, single out n, linkability, inference
              anonymeter's four attacks (Giomi, Boenisch, Wehmeyer, Tasnadi 2023; the package
              itself), 200 attacks, held-out rows as control, three columns for n, every second
              column for the two linked halves, the last category (else the last number) as the
              secret: accuses when the lower end of its own 95% interval of the risk beyond control
              is over 0.
C_T           Meehan, Chaudhuri, Dasgupta 2020, our implementation with its null deviation, on
              the coordinates of reverie's audit: accuses when p <= .05 towards copying.
reverie       its finding: `copies` accuses. In scenario 11 what `sample --reject-copies` says.

SDMetrics' overall scores measure likeness, which a copier has most of: they accuse nobody and have
no column. Where a tool does not take pictures it has no cell.

Right is: in 2 to 5 (and the copies of 12) the tool accuses; in 1, 7, 8, 13, 14 (and the fresh sets
of 12) it does not; in 9 and 10 it says that the comparison is unfair; in 6 it refuses what stands
in other units; in 11 it says that the hole tells the training rows.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits

from privacy_tools import Said, Tool, tools, versions
from reverie.files import write_json
from scenarios import TITLES, Case, every

RIGHT = {"copies": "accuses", "honest": "silent", "unfair": "unfair", "units": "refuses",
         "hole": "hole"}  # fmt: skip
WIDTH = 15


def is_right(case: Case, said: Said) -> bool:
    return said.word == RIGHT[case.truth]


def answers(case: Case) -> list[Said]:
    """What each tool says to one case, on one thread."""
    torch.set_num_threads(1)
    with threadpool_limits(1):
        return [tool(case) for tool in tools()]


def measured(cases: list[Case], jobs: int, kept: Path | None) -> dict[tuple[int, str], list]:
    """(scenario, tool) -> (case, what was said) of every case, `jobs` cases at a time.

    kept: a JSON file of answers; cases that it holds are not asked again.
    """
    known = json.loads(kept.read_text()) if kept and kept.exists() else {}
    left = [case for case in _in_turn(cases) if key(case) not in known]
    with ProcessPoolExecutor(jobs) as pool:
        for case, said in zip(left, pool.map(answers, left), strict=True):
            known[key(case)] = [[one.word, one.detail] for one in said]
            if kept:
                write_json(kept, known)
    found = defaultdict(list)
    for case in cases:
        for tool, words in zip(tools(), known[key(case)], strict=True):
            found[case.scenario, tool.name].append((case, Said(*words)))
    return found


def key(case: Case) -> str:
    return f"{case.scenario} {case.name}"


def _in_turn(cases: list[Case]) -> list[Case]:
    """The first case of every scenario, then the second: what is stopped holds some of each."""
    count: dict[int, int] = defaultdict(int)
    turn = []
    for case in cases:
        turn.append(count[case.scenario])
        count[case.scenario] += 1
    return [cases[k] for k in sorted(range(len(cases)), key=turn.__getitem__)]


def cell(results: list[tuple[Case, Said]]) -> str:
    """Right of all, `yes` where all are."""
    words = {said.word for _, said in results}
    if words <= {"not installed", "-"}:
        return words.pop()
    right = sum(is_right(case, said) for case, said in results)
    return f"{'yes' if right == len(results) else 'no'} {right}/{len(results)}"


def summary(found: dict, columns: list[Tool]) -> list[str]:
    """A row for each scenario, a column for each tool."""
    lines = [f"{'':48s}" + "".join(f"{tool.name:>{WIDTH}s}" for tool in columns)]
    numbers = sorted({number for number, _ in found})
    for number in numbers:
        cells = [cell(found[number, tool.name]) for tool in columns]
        lines.append(
            f"{number:2d}  {TITLES[number]:44s}" + "".join(f"{c:>{WIDTH}s}" for c in cells)
        )
    right = [
        sum(cell(found[number, tool.name]).startswith("yes") for number in numbers)
        for tool in columns
    ]
    total = [f"{count} of {len(numbers)}" for count in right]
    return [*lines, f"{'    scenarios all right':48s}" + "".join(f"{c:>{WIDTH}s}" for c in total)]


def details(found: dict, cases: list[Case], columns: list[Tool]) -> list[str]:
    """Every case: what is true, and what each tool says (* where that is wrong)."""
    lines, place = [], defaultdict(int)
    for case in cases:
        k = place[case.scenario]
        place[case.scenario] += 1
        lines.append(f"{case.scenario:2d}  {case.name}: {case.truth}")
        for tool in columns:
            said = found[case.scenario, tool.name][k][1]
            if said.word in ("not installed", "-"):
                continue
            mark = " " if is_right(case, said) else "*"
            lines.append(f"      {mark} {tool.name:13s} {said.word:9s} {said.detail}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description="Verdicts of several audits, and their truth.")
    parser.add_argument("--out", type=Path, help="write the table to this file too")
    parser.add_argument("--only", default="", help="numbers of scenarios, with commas")
    parser.add_argument("--jobs", type=int, default=1, help="processes of one thread each")
    parser.add_argument("--answers", type=Path, help="a JSON file to keep and continue from")
    told = parser.parse_args()
    chosen = {int(number) for number in told.only.split(",") if number}
    cases = list(every(0, sorted(chosen or TITLES)))
    columns = tools()
    found = measured(cases, told.jobs, told.answers)
    head = [
        "Is the audit right? `yes k/k`: in all k cases; `no j/k`: in j of k.",
        f"Tools: {', '.join(versions())}, and C_T of Meehan et al. (ours).",
        "Rules by which numbers become accusations: benchmarks/bench_verdicts.py.",
        "",
    ]
    text = [*head, *summary(found, columns), "", "Case by case (* wrong):", "",
            *details(found, cases, columns)]  # fmt: skip
    print("\n".join([*head, *summary(found, columns)]))
    if told.out:
        told.out.write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
