"""The words of the pages, a line each; docs/glossary.md is this list."""

from __future__ import annotations

GLOSSARY = {
    "adjusted p": "the p-value of one record among many; naming all up to .1 names at most one in "
    "ten by mistake, on average",
    "area": "nats under a loss curve between two noise levels",
    "audit": "the comparison of samples with training rows and with rows that were held out",
    "bias": "how many more samples than chance lie nearest to a training row, in points",
    "calibration": "mixing a model's guess with the linear guess, level by level, so that it is "
    "nowhere worse than either",
    "cell counts": "on a table of few distinct rows, the part of the training table's accidental "
    "counts that the samples repeat",
    "charge": "what one sampling step costs, in nats",
    "clock": "the scale that noise levels are counted on; for Gaussian noise the signal-to-noise "
    "ratio",
    "denoiser": "a model that guesses the clean point from a noised one",
    "e-fold": "a factor of 2.72",
    "effect": "how much nearer the samples are to training rows than chance allows, with its "
    "interval",
    "excess": "the nats that a plan of finitely many steps adds to the path KL",
    "fact": "something counted, not tested: equal rows, rows with a few cells changed, crowds",
    "finding": "the verdict in a word: unfair, copies, exposes, leans, none or inconclusive",
    "held-out rows": "rows of the same law as the training rows that the model has not seen",
    "leak": "how many nats better a model knows its training rows than held-out ones, up to a "
    "noise level that is always printed",
    "linear optimum": "the best guess from means and covariances alone",
    "loss curve": "what the denoiser's guess costs at each noise level, in nats per unit of the "
    "clock",
    "memoriser": "the exact optimum of the training loss: it knows the training rows and nothing "
    "else",
    "nat": "the unit of information of natural logarithms; 1.44 bits",
    "near-copies": "training rows with a sample within a third of the way to their nearest row",
    "null": "what a test supposes: here that training and held-out labels may be swapped",
    "p joint": "a p-value corrected for all the questions asked on the page (Holm)",
    "path KL": "how far the law of a sampler's whole path is from the true reversal's, in nats",
    "plan": "the noise levels that a sampler of K steps visits",
    "power": "how often copies that were planted on purpose would have been seen",
    "process": "how noise enters, from clean data to a law that is known",
    "rate": "the height of the loss curve, in nats per unit of the clock",
    "share": "how many samples have a training row as their nearest",
    "signal-to-noise": "the variance left of the data over that of the noise, 1 / sigma squared "
    "in units of the data",
    "spike": "many samples around one record",
    "staircase": "what K steps cost on a loss curve: the sum of step widths times heights",
    "tail": "training and held-out rows in the order in which samples come close to them; a model "
    "that copies puts training rows first",
    "twins": "rows that are equal or nearly so",
    "1/3-ratio": "samples whose nearest training row is under a third as far as the second "
    "nearest (Gu et al. 2023)",
}


def words_of(text: str) -> dict[str, str]:
    """The entries whose word stands in `text` (any case), in the order of the list."""
    lower = text.lower()
    return {word: meaning for word, meaning in GLOSSARY.items() if word in lower}
