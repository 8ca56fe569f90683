"""Do classifiers keep their order under a shift of the data? Dominance and linear trends.

A better model may still be wrong where a worse one is right; the probability of it is the
dominance zeta. Where it is small, accuracies before and after a shift lie near a line on probit
axes (Mania & Sra 2020, arXiv 2012.15483, read in its abstract). An identity holds for every pair
and every test set:

    acc_j - acc_i = P(j right, i wrong) - zeta_ij,    zeta_ij = P(i right, j wrong)

Here: scikit-learn classifiers on its digits, and on the same digits moved by a pixel.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from reverie.reproduce.tables import Row, panels, save_figure, write_table

TRAIN = 900


def clopper_pearson(hits: int, count: int, level: float = 0.95) -> tuple[float, float]:
    """Exact interval of a proportion; it covers at least `level` of the time."""
    found = stats.binomtest(hits, count).proportion_ci(level, method="exact")
    return float(found.low), float(found.high)


def dominance(right: np.ndarray) -> np.ndarray:
    """zeta (M, M): share of points where row i is right and row j is wrong; right (M, n) bool."""
    return (right[:, None] & ~right[None]).mean(2)


def excess_agreement(right: np.ndarray) -> np.ndarray:
    """(M, M): how much more often than by chance two models are right or wrong together."""
    accuracy = right.mean(1)
    together = (right[:, None] == right[None]).mean(2)
    return together - np.outer(accuracy, accuracy) - np.outer(1 - accuracy, 1 - accuracy)


def probit_line(before: np.ndarray, after: np.ndarray) -> tuple[float, float, float]:
    """Slope, offset and r^2 of the least-squares line through accuracies (M,) on probit axes."""
    fitted = stats.linregress(stats.norm.ppf(before), stats.norm.ppf(after))
    return float(fitted.slope), float(fitted.intercept), float(fitted.rvalue) ** 2  # type: ignore[union-attr]


def classifiers(seed: int) -> dict[str, Any]:
    """Classifiers of several kinds, from poor to good."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.naive_bayes import GaussianNB
    from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
    from sklearn.svm import SVC
    from sklearn.tree import DecisionTreeClassifier

    models: dict[str, Any] = {
        "naive Bayes": GaussianNB(var_smoothing=1e-2),
        "nearest centroid": NearestCentroid(),
        "linear discriminant": LinearDiscriminantAnalysis(),
        "SVM": SVC(),
    }
    models |= {f"tree, depth {k}": DecisionTreeClassifier(max_depth=k, random_state=seed)
               for k in (5, 8, 14)}  # fmt: skip
    models |= {f"{k} neighbours": KNeighborsClassifier(k) for k in (1, 10, 40)}
    models |= {f"forest of {k}": RandomForestClassifier(k, random_state=seed) for k in (5, 50)}
    models |= {f"logistic, C = {c:g}": LogisticRegression(C=c, max_iter=200) for c in (1e-4, 1e-2)}
    return models


def correctness(seed: int) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names (M,), and who is right (M, n) on held-out digits as they are and moved by a pixel."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(pixels))
    pixels, labels = pixels[order], labels[order]
    test, known = pixels[TRAIN:], labels[TRAIN:]
    moved = np.roll(test.reshape(-1, 8, 8), 1, axis=2).reshape(len(test), 64)
    models = classifiers(seed)
    right = []
    for model in models.values():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a solver short of its optimum is a classifier too
            model.fit(pixels[:TRAIN], labels[:TRAIN])
        right.append([model.predict(points) == known for points in (test, moved)])
    stacked = np.array(right)
    return list(models), stacked[:, 0], stacked[:, 1]


def run(out: Path, seed: int = 0, full: bool = False) -> dict[str, Any]:
    """Write the figure and the table; `full` changes nothing."""
    names, before, after = correctness(seed)
    accuracy, moved = before.mean(1), after.mean(1)
    zeta, gain = dominance(before), dominance(before).T
    broken = float(np.abs(accuracy[None] - accuracy[:, None] - (gain - zeta)).max())
    order = np.argsort(accuracy)
    worse, better = np.array([(order[i], order[j]) for j in range(len(order)) for i in range(j)]).T
    slope, offset, r2 = probit_line(accuracy, moved)
    figure, (left, right) = panels(2)
    z = stats.norm.ppf
    left.plot(z(accuracy), z(moved), "o", ms=4)
    span = np.array([z(accuracy).min(), z(accuracy).max()])
    left.plot(span, offset + slope * span, lw=1, label=f"slope {slope:.2f}, r^2 = {r2:.2f}")
    left.set(xlabel="accuracy on held-out digits", ylabel="accuracy when moved by a pixel")
    for axis, values in ((left.xaxis, (0.7, 0.8, 0.9, 0.95, 0.98)),
                         (left.yaxis, (0.2, 0.3, 0.4, 0.5, 0.6, 0.7))):  # fmt: skip
        axis.set_ticks(z(values), [f"{v:g}" for v in values])
    left.legend(frameon=False, title="probit axes")
    gaps = accuracy[better] - accuracy[worse]
    right.plot(gaps, zeta[worse, better], ".", label="as they are")
    right.plot(moved[better] - moved[worse], dominance(after)[worse, better], "x", ms=4,
               label="moved by a pixel")  # fmt: skip
    right.set(xlabel="accuracy of the better less the worse model",
              ylabel="dominance: worse right, better wrong")  # fmt: skip
    right.legend(frameon=False)
    save_figure(figure, out / "dominance.png")
    top = int(zeta[worse, better].argmax())
    i, j, count = int(worse[top]), int(better[top]), before.shape[1]
    hits = int((before[i] & ~before[j]).sum())
    low, high = clopper_pearson(hits, count)
    note = f"{names[i]} right, {names[j]} wrong: {hits} of {count}, 95% [{low:.4f}, {high:.4f}]"
    later = dominance(after)[worse, better]
    excess = excess_agreement(before)[worse, better]
    rows = [
        Row("largest error of acc_j - acc_i = P(j, not i) - zeta", broken, 0, "D"),
        Row("largest dominance of a pair", float(zeta[i, j]), note=note),
        Row("median dominance of a pair", float(np.median(zeta[worse, better]))),
        Row("median dominance of a pair, moved", float(np.median(later))),
        Row("median excess agreement of a pair", float(np.median(excess))),
        Row("slope on probit axes", slope),
        Row("r^2 on probit axes", r2),
        Row("rank correlation of accuracies", float(stats.spearmanr(accuracy, moved)[0])),  # type: ignore[arg-type]
        *(Row(f"accuracy, {name}", a) for name, a in zip(names, accuracy, strict=True)),
        *(Row(f"accuracy when moved, {name}", a) for name, a in zip(names, moved, strict=True)),
    ]
    settings = dict(train=TRAIN, test=count, models=len(names))
    title = "Dominance and linear trends (Mania & Sra 2020)"
    return write_table(out, title, rows, seed, settings)
