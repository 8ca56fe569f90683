"""Reading a CSV of 1,000,000 x 20 against pandas' own reader (pip install pandas).

Seconds are of processor time, of all threads together.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from reverie.data import load
from timing import paired

ROWS, COLUMNS, SHARE = 1_000_000, 20, 1.5


def numbers(path, rows):
    """Half of the columns whole numbers, half with five digits after the point."""
    rng = np.random.default_rng(0)
    columns = [rng.integers(0, 10_000, rows) for _ in range(COLUMNS // 2)]
    columns += [rng.standard_normal(rows) for _ in range(COLUMNS // 2)]
    form = ",".join(["%d"] * (COLUMNS // 2) + ["%.5f"] * (COLUMNS // 2))
    with path.open("w") as file:
        file.write(",".join(f"x{j}" for j in range(COLUMNS)) + "\n")
        for start in range(0, rows, 50_000):
            part = zip(*(c[start : start + 50_000].tolist() for c in columns), strict=True)
            file.write("".join(form % row + "\n" for row in part))


def mixed(path, rows):
    """Dates, categories, truths, gaps and numbers."""
    rng = np.random.default_rng(1)
    days = np.datetime64("2015-01-01") + rng.integers(0, 3000, rows)
    words = np.array(["red", "green", "blue", ""])[rng.integers(0, 4, rows)]
    truths = np.array(["True", "False"])[rng.integers(0, 2, rows)]
    values = rng.gamma(2.0, 50.0, (rows, 4)).round(2)
    with path.open("w") as file:
        file.write("day,colour,paid,a,b,c,d\n")
        for row in zip(days.astype(str), words, truths, *values.T.tolist(), strict=True):
            file.write(",".join(map(str, row)) + "\n")


def main():
    try:
        import pandas
    except ImportError:
        print("pandas is not installed: nothing to compare with")
        return
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    with tempfile.TemporaryDirectory() as folder:
        for make, name, count in ((numbers, "numbers", rows), (mixed, "mixed", rows // 5)):
            path = Path(folder) / f"{name}.csv"
            make(path, count)
            pair = paired(
                lambda p=path: load(p, mixed=True), lambda p=path: pandas.read_csv(p), repeats=3,
                warmup=1, clock=time.process_time,
            )  # fmt: skip
            print(f"{name}, {count:,} rows, limit {SHARE}   {pair}")


if __name__ == "__main__":
    main()
