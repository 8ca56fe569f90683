"""Signs of stored rows against closed forms: divergence, basins, tokens; and without rows."""

import math

import numpy as np
import pytest
import torch

from reverie.auditing.model.membership import membership_rocs, step_length
from reverie.auditing.model.scores import score
from reverie.auditing.model.stored import (
    TOKENS,
    basin_roc,
    basin_volume,
    samples_line,
    samples_roc,
    token_rocs,
    token_rows,
    token_scores,
)
from reverie.calibration.references import SiteMarginals
from reverie.denoisers import Denoiser, Memoriser
from reverie.errors import InputError
from reverie.processes import EDM, Brownian, Masking, Uniform
from reverie.spaces import Sphere


def normal(n, d=8, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


class Normal(Denoiser):
    """The exact guess of N(0, I)."""

    def __init__(self, process):
        super().__init__()
        self.process = process

    def forward(self, state, t, condition=None):
        alpha, sigma = self.process.scales(t, state)
        return alpha * state / (alpha**2 + sigma**2)


def words(n, seed=0, sites=8):
    draw = torch.Generator().manual_seed(seed)
    rows = torch.unique(torch.randint(3, (n, sites), generator=draw), dim=0)
    return rows[torch.randperm(len(rows), generator=draw)]


def test_divergence_in_closed_form(generator):
    """-s^2 / (1 + s^2) for N(0, I), wherever the row is; -1 at a row that stands alone."""
    process, rows = EDM(0.01, 20), normal(20)
    for spread in (0.1, 1.0):
        found = score("divergence", Normal(process), rows, spread, generator, radius=0.3)
        assert found.numpy() == pytest.approx(-(spread**2) / (1 + spread**2), abs=1e-4)
    found = score("divergence", Memoriser(process, rows), rows, 0.1, generator, radius=0.05)
    assert found.numpy() == pytest.approx(-1, abs=1e-3)


def test_the_step_is_a_share_of_the_median_distance():
    line = torch.tensor([[0.0], [1.0], [3.0], [7.0]])  # nearest: 1, 1, 2, 4
    assert step_length(line) == pytest.approx(0.075 * 1.5)
    assert step_length(torch.zeros(4, 2)) is None


def test_stored_rows_are_told_without_training_rows():
    process, train, held = EDM(0.01, 20), normal(150), normal(150, seed=1)
    copies = train[torch.randint(150, (150,), generator=torch.Generator().manual_seed(2))]
    stored = samples_roc(Memoriser(process, train), copies, held)
    assert stored.auc > 0.75
    fresh = samples_roc(Normal(process), normal(150, seed=3), held)
    assert fresh.interval[0] < 0.5 < fresh.interval[1]
    line = samples_line(stored)
    assert line.p_value is None
    assert line.value == stored.auc


def test_divergence_in_the_table_knows_members_and_only_them():
    process, train, held = EDM(0.01, 20), normal(150), normal(150, seed=1)
    found = membership_rocs(Memoriser(process, train), train, held, names=("divergence",))
    assert found["divergence"].auc > 0.85
    null = membership_rocs(
        Memoriser(process, normal(150, seed=3)), train, held, names=("divergence",)
    )["divergence"]
    assert null.interval[0] < 0.5 < null.interval[1]


def test_basins_end_where_another_row_is_nearer(generator):
    """Two rows: copies come back while noise rarely passes the middle, and not beyond."""
    process = EDM(0.01, 20)
    rows = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
    low, high = (float(process.time(torch.tensor([s**-2.0]))[0]) for s in (0.2, 5.0))
    model = Memoriser(process, rows)
    assert basin_volume(model, rows, [low], 0.2, generator=generator).tolist() == [1, 1]
    volume = basin_volume(model, rows, [low, high], 0.2, generator=generator)
    assert (volume < 2).all()
    far = basin_volume(model, rows + 3, [low], 0.2, generator=generator)
    assert far.tolist() == [0, 0]


@pytest.mark.parametrize("process", [EDM(0.01, 20), Masking(3, 8), Brownian(Sphere(2))])
def test_basins_tell_members_on_every_space(process):
    if process.gaussian is not None:
        rows = normal(80)
    elif hasattr(process, "symbols"):
        rows = words(90)[:80]
    else:
        rows = process.space.uniform(80, generator=torch.Generator().manual_seed(0))
    half = len(rows) // 2
    found = basin_roc(Memoriser(process, rows[:half]), rows[:half], rows[half:], rows=30)
    assert found.auc > 0.9


def test_token_scores_in_closed_form(generator):
    """Independent sites: -log of the symbol's frequency, whatever else is shown."""
    process = Masking(3, 400)
    table = torch.tensor([0.5, 0.3, 0.2]).expand(400, 3)
    model = SiteMarginals(process, table)
    rows = torch.multinomial(table, 20, replacement=True, generator=generator).T.contiguous()
    found = token_scores(model, rows, 0.5, generator=generator)
    surprise = -table.log()[0][rows].mean(1).numpy()
    assert found["token loss"] == pytest.approx(surprise, abs=0.06)
    assert found["token recovery"] == pytest.approx(-(rows == 0).double().mean(1), abs=0.1)
    entropy = -(0.5 * math.log(0.5) + 0.3 * math.log(0.3) + 0.2 * math.log(0.2))
    assert found["conditional entropy"] == pytest.approx(entropy, abs=1e-6)


@pytest.mark.parametrize("process", [Masking(3, 8), Uniform(3, 8)])
def test_tokens_tell_members_and_only_them(process):
    rows = words(200)
    train, held, other = rows[:60], rows[60:120], rows[120:180]
    found = token_rocs(Memoriser(process, train), train, held)
    assert found["token loss"].auc > 0.9
    assert found["token recovery"].auc > 0.9
    lines = token_rows(Memoriser(process, other), train, held)
    assert [line.section for line in lines] == ["membership"] * 3
    assert min(line.p_value for line in lines) > 0.01
    with pytest.raises(InputError, match="for symbols"):
        token_scores(Memoriser(EDM(0.1, 10), normal(5)), normal(5), 0.5)


def test_a_run_on_symbols_has_the_lines():
    from reverie.auditing.judging import Judging
    from reverie.data import coder_for, load
    from reverie.runs import FitConfig, fit

    rows = words(120).numpy()
    assert coder_for("symbols", load(rows))
    config = FitConfig(n=60, holdout=50, steps=10, width=16, space="symbols")
    run = fit(rows, config=config)
    verdict = run.audit(40, judging=Judging(power=False, metrics=False), cycles=2)
    names = [row.statistic for row in verdict.table]
    assert "membership by token loss (AUC)" in names
    assert "membership by basin volume (AUC)" in names
    assert all(row.p_joint is not None for row in verdict.table if "token" in row.statistic)
    assert np.isfinite(verdict.p_joint)


@pytest.mark.slow
def test_tokens_tell_500_names_and_not_20_000_stopped(real_data):
    """The same network and number of steps at most; 500 rows of either side are asked.

    At 500 names all three scores tell surely (and token recovery by over 5 points); at 20,000,
    at the best held-out curve, none does surely.
    """
    from reverie.runs import FitConfig, fit

    names, found = real_data("text/names.txt"), {}
    for n in (500, 20_000):
        config = FitConfig(n=n, holdout=1000, steps=2500, check_every=500, stop_on_leak=n > 500,
                           patience=1, width=128)  # fmt: skip
        run = fit(names, config=config)
        found[n] = token_rocs(run.denoiser, run.train_points(), run.holdout_points())
    for name in TOKENS:
        assert found[500][name].interval[0] > 0.5, name
        assert found[20_000][name].interval[0] < 0.5, name
    assert found[500]["token recovery"].auc > 0.55
