"""Mixed tables: Adult (UCI) drawn by reverie, a Gaussian copula, CTGAN and TVAE, in one run.

    python bench_tables.py --minutes 8

Every model is given the same training rows (adult.data) and the same minutes of one
processor's time. Compared are

    TV             total variation between the laws of a category, the mean over columns
    Wasserstein    between the laws of a number, in the training column's deviations, the mean
    association    mean absolute error over pairs of columns: correlation of two numbers, Cramer's
                   V of two categories, correlation ratio of one of each
    AUC            of gradient-boosted trees that predict income, fitted on the samples and tested
                   on adult.test, beside those fitted on as many training rows: 10,000 of these are
                   worth .7 points less than all of them, so that samples are as many by default
    finding        reverie's audit of 2,000 samples against training and test rows

and, as the floor that sampling noise sets, rows of adult.test in the place of samples (which have
no AUC and no audit: they are what both are tested on). reverie and
the copula are its own code; CTGAN and TVAE are those of the package `ctgan` (sdv's), with its
published settings but for the epochs, which are cut to the same minutes and printed. Data: the
folder named by REVERIE_DATA, with adult/adult.data.gz and adult/adult.test.gz in it.
"""

import argparse
import csv
import gzip
import os
import time
from pathlib import Path

import numpy as np
import torch
from scipy.stats import norm, wasserstein_distance
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

from reverie import audit, fit
from reverie.data import TableCoder, load
from reverie.denoisers.networks.choice import network_for
from reverie.processes import process_on

NAMES = ("age", "workclass", "fnlwgt", "education", "education-num", "marital-status",
         "occupation", "relationship", "race", "sex", "capital-gain", "capital-loss",
         "hours-per-week", "native-country", "income")  # fmt: skip
BATCH, RATE = 256, 3e-3  # the rate by the label's law on training rows that were held out
AUDITED = 2000
PUBLISHED_EPOCHS = 300


def adult(folder: Path, out: Path) -> tuple:
    """Training and test rows as one Dataset each, of the same columns and categories."""
    rows = []
    for name in ("adult.data.gz", "adult.test.gz"):
        with gzip.open(folder / "adult" / name, "rt") as file:
            found = [row for row in csv.reader(file, skipinitialspace=True) if len(row) == 15]
        rows.append([[*row[:14], row[14].rstrip(".")] for row in found])
    with out.open("w", newline="") as file:
        csv.writer(file).writerows([NAMES, *rows[0], *rows[1]])
    data = load(out, mixed=True)
    count = len(rows[0])
    return data.take(np.arange(count)), data.take(np.arange(count, len(data)))


# --- how far samples are -------------------------------------------------------------------------


def category_columns(data) -> np.ndarray:
    return np.array([field.kind == "categorical" for field in data.fields])


def filled(values: np.ndarray, is_category: np.ndarray) -> np.ndarray:
    """Missing categories as one more code, at the end."""
    return np.where(np.isnan(values) & is_category, np.nanmax(values, 0) + 1, values)


def shares(codes: np.ndarray, size: int) -> np.ndarray:
    return np.bincount(codes.astype(int), minlength=size) / len(codes)


def association(values: np.ndarray, is_category: np.ndarray) -> np.ndarray:
    """Strength of dependence (d, d) between the columns of values (n, d)."""
    count = values.shape[1]
    found = np.zeros((count, count))
    for i in range(count):
        for j in range(i):
            pair = (values[:, i], values[:, j])
            if is_category[i] and is_category[j]:
                found[i, j] = cramers_v(*pair)
            elif is_category[i] or is_category[j]:
                found[i, j] = correlation_ratio(*(pair if is_category[i] else pair[::-1]))
            else:
                found[i, j] = np.corrcoef(*pair)[0, 1] if min(map(np.std, pair)) > 0 else 0.0
    return found


def cramers_v(first: np.ndarray, second: np.ndarray) -> float:
    a, b = (np.unique(v, return_inverse=True)[1] for v in (first, second))
    size = (a.max() + 1, b.max() + 1)
    table = np.bincount(a * size[1] + b, minlength=size[0] * size[1]).reshape(size)
    wanted = table.sum(1, keepdims=True) * table.sum(0) / len(first)
    chi = ((table - wanted) ** 2 / np.maximum(wanted, 1e-12)).sum()
    return float(np.sqrt(chi / len(first) / max(min(size) - 1, 1)))


def correlation_ratio(codes: np.ndarray, numbers: np.ndarray) -> float:
    place = np.unique(codes, return_inverse=True)[1]
    size = np.bincount(place)
    mean = np.bincount(place, numbers) / size
    total = numbers.var()
    between = (size * (mean - numbers.mean()) ** 2).sum() / len(numbers)
    return float(np.sqrt(between / total)) if total else 0.0


def auc(values: np.ndarray, test: np.ndarray, is_category: np.ndarray, seed: int = 0) -> float:
    """Of trees fitted on rows that predict the last column, on the test rows."""
    target = values[:, -1]
    if len(np.unique(target)) < 2:
        return 0.5
    trees = HistGradientBoostingClassifier(
        categorical_features=is_category[:-1], random_state=seed, max_iter=200, early_stopping=True
    )
    trees.fit(values[:, :-1], target)
    return float(roc_auc_score(test[:, -1], trees.predict_proba(test[:, :-1])[:, 1]))


def figures(train, test, drawn: np.ndarray) -> dict[str, float | str]:
    is_category = category_columns(train)
    everything = np.concatenate([train.values, test.values, drawn])
    parts = np.split(filled(everything, is_category),
                     [len(train), len(train) + len(test)])  # fmt: skip
    real, held, made = parts
    sizes = np.nanmax(np.concatenate(parts), 0).astype(int) + 1
    spread = real.std(0)
    tv, distance = [], []
    for j in range(real.shape[1]):
        if is_category[j]:
            gap = shares(real[:, j], sizes[j]) - shares(made[:, j], sizes[j])
            tv.append(0.5 * np.abs(gap).sum())
        else:
            distance.append(wasserstein_distance(real[:, j], made[:, j]) / spread[j])
    pairs = np.tril_indices(real.shape[1], -1)
    gap = association(made, is_category)[pairs] - association(real, is_category)[pairs]
    if np.array_equal(made, held[: len(made)]):
        return marginal(tv, distance, gap) | {"AUC": float("nan"), "finding": "-"}
    pick = np.random.default_rng(0).permutation(len(drawn))[:AUDITED]
    verdict = audit(train, test, train.with_values(drawn[pick], "samples"), power=False)
    return marginal(tv, distance, gap) | {
        "AUC": auc(made, held, is_category), "finding": verdict.finding,
    }  # fmt: skip


def marginal(tv: list[float], distance: list[float], gap: np.ndarray) -> dict[str, float | str]:
    return {
        "TV": float(np.mean(tv)),
        "Wasserstein": float(np.mean(distance)),
        "association": float(np.abs(gap).mean()),
    }


# --- the models ----------------------------------------------------------------------------------


def seconds_a_step(data, width: int, depth: int) -> float:
    """Of a training step here and now, so that a budget of minutes becomes one of steps."""
    coder = TableCoder.fit(data)
    points = coder.to_model(data.values)
    process = process_on(coder.space, "product")
    network = network_for(process, coder.point_shape, width=width, depth=depth, train=points)
    optimiser = torch.optim.AdamW(network.parameters(), fused=True)
    start = 0.0
    for step in range(25):
        start = time.process_time() if step == 5 else start
        t = torch.linspace(*process.t_range, BATCH, dtype=torch.float64)
        network.losses(torch.arange(BATCH), points[:BATCH], t).mean().backward()
        optimiser.step()
        optimiser.zero_grad()
    return (time.process_time() - start) / 20


def ours(train, test, minutes: float, n: int, steps: int) -> tuple[np.ndarray, str]:
    width, depth = 256, 3
    count = max(100, int(60 * minutes / seconds_a_step(train, width, depth)))
    whole = train.with_values(np.concatenate([train.values, test.values]), "adult")
    rows = np.arange(len(train)), len(train) + np.arange(len(test))
    run = fit(
        whole, space="table", rows=rows, steps=count, check_every=count, batch_size=BATCH,
        width=width, depth=depth, ema=min(0.999, 1 - 20 / count), warmup=min(200, count // 10),
        lr=RATE,
    )  # fmt: skip
    return run.sample(n, steps), f"{count} steps of {BATCH} rows, {steps} heun steps a sample"


def copula(train, n: int, seed: int = 0) -> tuple[np.ndarray, str]:
    """Normal scores of all columns, categories by frequency; Gaussian, back by empirical law."""
    rng, values = np.random.default_rng(seed), train.values
    is_category = category_columns(train)
    whole = filled(values, is_category)
    scores, orders = np.empty(whole.shape), []
    for j in range(whole.shape[1]):
        code = whole[:, j]
        if is_category[j]:  # the most frequent first
            known, counts = np.unique(code, return_counts=True)
            rank = np.empty(int(known.max()) + 1)
            rank[known[np.argsort(-counts)].astype(int)] = np.arange(len(known))
            code = rank[code.astype(int)]
        order = np.argsort(code + 1e-9 * rng.random(len(code)), kind="stable")
        scores[order, j] = norm.ppf((np.arange(len(code)) + 0.5) / len(code))
        orders.append(whole[order, j])
    drawn = norm.cdf(rng.multivariate_normal(np.zeros(whole.shape[1]), np.corrcoef(scores.T), n))
    made = np.stack([orders[j][(drawn[:, j] * len(whole)).astype(int).clip(max=len(whole) - 1)]
                     for j in range(whole.shape[1])], 1)  # fmt: skip
    missing = is_category & (made == np.nanmax(whole, 0)) & np.isnan(values).any(0)
    return np.where(missing, np.nan, made), "categories in order of frequency"


def epochs_in(kind, table, discrete: list[str], minutes: float) -> int:
    """How many epochs the minutes hold, by two short fits: what both do first is told apart."""
    took = []
    for epochs in (1, 2):
        start = time.process_time()
        kind(epochs=epochs).fit(table, discrete)
        took.append(time.process_time() - start)
    epoch = max(took[1] - took[0], 1e-3)
    return max(1, min(PUBLISHED_EPOCHS, int((60 * minutes - took[0] + epoch) / epoch)))


def of_ctgan(
    name: str, train, minutes: float, n: int, epochs: int
) -> tuple[np.ndarray, str] | None:
    """CTGAN or TVAE at its published settings but for the epochs; 0: what the minutes hold."""
    try:
        import ctgan
        import pandas
    except ImportError:
        return None
    is_category = category_columns(train)
    table = pandas.DataFrame(filled(train.values, is_category), columns=list(NAMES))
    discrete = [name for name, known in zip(NAMES, is_category, strict=True) if known]
    table[discrete] = table[discrete].astype(int).astype(str)
    kind = getattr(ctgan, name)
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002, which ctgan draws from
    epochs = epochs or epochs_in(kind, table, discrete, minutes)
    model = kind(epochs=epochs)
    model.fit(table, discrete)
    made = model.sample(n)
    made[discrete] = made[discrete].astype(float)
    values = made[list(NAMES)].to_numpy(float)
    top = np.nanmax(filled(train.values, is_category), 0)
    gone = is_category & (values == top) & np.isnan(train.values).any(0)
    values[:, ~is_category] = np.round(values[:, ~is_category])  # all numbers of Adult are whole
    return np.where(gone, np.nan, values), f"{epochs} epochs (published: {PUBLISHED_EPOCHS})"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=2.0, help="of processor, to train each")
    parser.add_argument("--n", type=int, default=0, help="samples of each; 0: as training rows")
    parser.add_argument("--steps", type=int, default=25, help="of our sampler")
    parser.add_argument("--epochs", type=int, default=0, help="of CTGAN and TVAE, not the minutes")
    parser.add_argument("--only", default="", help="models, by commas")
    chosen = parser.parse_args()
    folder = os.environ.get("REVERIE_DATA", "")
    if not folder or not (Path(folder) / "adult" / "adult.test.gz").exists():
        print("skipped: REVERIE_DATA names no folder with adult/adult.data.gz and adult.test.gz")
        return
    out = Path(os.environ.get("TMPDIR", "/tmp")) / f"adult-{os.getpid()}.csv"
    train, test = adult(Path(folder), out)
    out.unlink()
    n, minutes = chosen.n or len(train), chosen.minutes
    is_category = category_columns(train)
    parts = np.split(
        filled(np.concatenate([train.values, test.values]), is_category), [len(train)]
    )
    some = np.random.default_rng(0).permutation(len(train))[:n]
    print(f"trees fitted on {len(some):,} training rows: AUC "
          f"{auc(parts[0][some], parts[1], is_category):.4f}", flush=True)  # fmt: skip
    models = {
        "test rows": lambda: (test.values[:n], "the floor of sampling noise"),
        "reverie": lambda: ours(train, test, minutes, n, chosen.steps),
        "copula": lambda: copula(train, n),
        "CTGAN": lambda: of_ctgan("CTGAN", train, minutes, n, chosen.epochs),
        "TVAE": lambda: of_ctgan("TVAE", train, minutes, n, chosen.epochs),
    }
    only = chosen.only.split(",") if chosen.only else list(models)
    print(f"{'':10} {'TV':>8} {'Wasserst':>9} {'associat':>9} {'AUC':>7}  {'finding':12} settings")
    for name in only:
        start = time.process_time()
        made = models[name]()
        if made is None:
            print(f"{name:10} skipped: the package ctgan is not installed")
            continue
        found = figures(train, test, made[0])
        took = time.process_time() - start
        print(f"{name:10} {found['TV']:8.4f} {found['Wasserstein']:9.4f} "
              f"{found['association']:9.4f} {found['AUC']:7.4f}  {found['finding']:12} "
              f"{made[1]}; {took / 60:.1f} minutes of processor in all", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
