"""This checkout beside an earlier commit: the same bits, and no slower?

    python benchmarks/compare_versions.py COMMIT [--starts 5] [--only measure ...] [--of COMMIT]

--of: what stands beside it, instead of this checkout. --starts 0: compare results alone.

Two processes, one on each version's sources, do the same work in turn (`versions.py`), so that a
drifting machine moves both; CPU seconds of one thread, a workload of a few milliseconds many times
in a row. Where a process lies in memory can move a workload by a third for as long as it lives, so
pairs of processes are started afresh, and the least time of each start is compared. Then the
results of the same seeds are compared bit for bit.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
MOST = 1.03  # of the other's time
LEAST_SECONDS = 0.3  # a round of a short workload


class Version:
    """One checkout's sources at work in a process of their own."""

    def __init__(self, sources: Path) -> None:
        ours = {"PYTHONPATH": str(sources), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "versions.py")], env=os.environ | ours, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def ask(self, word: str) -> Any:
        """The answer to a line; SystemExit with the other side's own words where it fails."""
        process = self.process
        if process.stdin is None or process.stdout is None or process.stderr is None:
            sys.exit("a version was started without pipes")
        process.stdin.write(word + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            sys.exit(process.stderr.read())
        return json.loads(line)


def sources_of(commit: str, folder: str) -> Path:
    """The sources of a commit, unpacked."""
    packed = subprocess.run(
        ["git", "archive", commit, "src"], cwd=HERE.parent, check=True, capture_output=True
    )
    subprocess.run(["tar", "-x", "-C", folder], input=packed.stdout, check=True)
    return Path(folder) / "src"


def start(sources: list[Path]) -> list[Version]:
    return [Version(path) for path in sources]


def stop(versions: list[Version]) -> None:
    for version in versions:
        version.process.kill()


def least(versions: list[Version], names: list[str]) -> dict[str, list[float]]:
    """Least seconds of each workload on both versions, asked in turn."""
    found = {}
    for name in names:
        first = max(float(v.ask(name)) for v in versions)
        rounds = min(max(3, round(LEAST_SECONDS / max(first, 1e-4))), 60)
        taken = [[float(v.ask(name)) for v in versions] for _ in range(rounds)]
        found[name] = np.min(taken, 0).tolist()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("commit")
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--of", help="another commit instead of this checkout")
    parser.add_argument("--only", nargs="*", help="names of the workloads to time")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as other:
        here = sources_of(asked.of, other) if asked.of else HERE.parent / "src"
        sources = [here, sources_of(asked.commit, folder)]
        versions = start(sources)
        names = asked.only or list(versions[0].ask("names"))
        ours, theirs = (v.ask("results") for v in versions)
        stop(versions)
        rounds = []
        for count in range(asked.starts):
            versions = start(sources)
            rounds.append(least(versions, names))
            stop(versions)
            print(f"started {count + 1} of {asked.starts}", file=sys.stderr)
    for name in names if rounds else []:
        seconds = np.array([found[name] for found in rounds])
        ratio = seconds[:, 0] / seconds[:, 1]
        word = "" if np.median(ratio) <= MOST else "   SLOWER"
        print(
            f"{name:<20} {np.median(seconds[:, 0]) * 1e3:9.2f} ms, before "
            f"{np.median(seconds[:, 1]) * 1e3:9.2f}   ratio {np.median(ratio):.3f} "
            f"[{ratio.min():.3f}, {ratio.max():.3f}]{word}"
        )
    apart = [name for name in ours if ours[name] != theirs.get(name)]
    print(f"{len(ours) - len(apart)} of {len(ours)} results are the same bits")
    for name in apart:
        print(f"  not the same: {name}")


if __name__ == "__main__":
    main()
