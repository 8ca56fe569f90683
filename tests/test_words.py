"""No sentence of a verdict says more than was checked."""

import re
from pathlib import Path

import numpy as np
import pytest

import reverie
from reverie.auditing import audit

SOURCE = Path(reverie.__file__).parent
SENTENCE = re.compile(r"[^.!?]*would have been seen.*?(?:\.(?=\s|$)|$)", re.S)
SHARE = re.compile(r"at 0?\.\d+ of the samples|at 1 of the samples")
KIND = re.compile(
    r"verbatim|noise of \S+ (of|deviations)|one cell|brightened|mirrored|noise of 25 of 255"
)


def gauss(rng, shift=0.0):
    return [rng.standard_normal((n, 8)) + s for n, s in ((1000, 0), (1000, shift), (2000, 0))]


def told(kind):
    """Sets that end in one finding each."""
    rng = np.random.default_rng(0)
    train, holdout, samples = gauss(rng, 1.0 if kind == "unfair" else 0.0)
    if kind == "copies":
        samples[:60] = train[:60]
    elif kind == "one copy":  # not beyond chance on a table of few distinct rows
        train, holdout, samples = (rng.integers(0, 3, (n, 4)) for n in (300, 300, 600))
    elif kind == "few":
        train, holdout, samples = train[:12], holdout[:12], samples[:12]
    elif kind == "leans":
        chosen = train[rng.integers(0, 1000, 2000)]
        samples = chosen + 0.7 * rng.standard_normal((2000, 8))
    return audit(train, holdout, samples, metrics=False)


@pytest.fixture(scope="module")
def verdicts():
    kinds = "fresh", "unfair", "copies", "one copy", "few", "leans"
    return {kind: told(kind) for kind in kinds}


def test_the_sets_end_in_many_findings(verdicts):
    found = {kind: verdict.finding for kind, verdict in verdicts.items()}
    assert (found["fresh"], found["unfair"], found["copies"]) == ("none", "unfair", "copies")
    assert len(set(found.values())) >= 4


def test_no_copies_only_where_every_count_is_0(verdicts):
    said = set()
    for verdict in verdicts.values():
        text = f"{verdict.summary()} {verdict.to_html()}".lower()
        nothing = all(fact.samples == 0 for fact in verdict.facts.facts)
        assert ("no copies were found" in text) <= nothing
        said.add("no copies were found" in text)
    assert said == {True, False}


def test_what_would_have_been_seen_names_kind_noise_and_share(verdicts):
    stated = 0
    for verdict in verdicts.values():
        for line in verdict.sentences():
            for sentence in SENTENCE.findall(line):
                if "not known what would have been seen" in sentence:
                    continue
                stated += 1
                assert SHARE.search(sentence), sentence
                assert KIND.search(sentence), sentence
    assert stated


def test_nothing_is_said_of_every_model():
    """In no page and no string that a verdict is made of."""
    rooms = SOURCE / "auditing", SOURCE / "auditing" / "facts"
    paths = [path for room in rooms for path in room.glob("*.py")]
    for path in [*paths, *SOURCE.rglob("*.html")]:
        assert "every model" not in path.read_text().lower(), path
