"""Fit, sample, audit and plan where data are symbols or points of a manifold."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from reverie import Run, audit, fit
from reverie.cli import main
from reverie.cli.demo import describe
from reverie.data import ManifoldCoder, SymbolCoder, coder_for, coder_from_json, load, save
from reverie.errors import InputError
from reverie.processes import PROCESSES, Brownian, Masking, RateMatrix, name_of, process_on
from reverie.processes.heat import heat_kernel
from reverie.report import write_report
from reverie.runs.config import FitConfig
from reverie.runs.readings import draw, sampling_plan, standard_curves
from reverie.spaces import FiniteSet, Hyperbolic, Rotations, Sphere, Torus

RNG = np.random.default_rng(0)
NAMES = ["ann", "bob", "carl", "dora", "emma", "fred", "gina", "hans", "ida", "john"] * 8


def places(n: int, seed: int = 0) -> np.ndarray:
    """Latitude and longitude in degrees, around two centres."""
    rng = np.random.default_rng(seed)
    centres = np.array([[10.0, 40.0], [-30.0, 170.0]])[rng.integers(2, size=n)]
    return np.round(centres + rng.normal(size=(n, 2)) * 8, 3)


def rotations(n: int) -> np.ndarray:
    generator = torch.Generator().manual_seed(0)
    return Rotations(3).uniform(n, generator=generator).numpy()


# --- coders --------------------------------------------------------------------------------------


def test_degrees_become_unit_vectors_and_come_back() -> None:
    data = load(places(50))
    coder = coder_for("sphere", data)
    assert isinstance(coder, ManifoldCoder)
    points = coder.to_model(data.values)
    assert coder.point_shape == (3,)
    assert float((points.norm(dim=1) - 1).abs().max()) < 1e-6  # float32
    off = np.abs(coder.to_user(points) - data.values)
    assert np.minimum(off, 360 - off).max() < 1e-4  # degrees: float32 of a unit vector
    again = coder_from_json(json.loads(json.dumps(coder.to_json())))
    assert again == coder


def test_angles_keep_the_range_and_the_units_of_the_data() -> None:
    radians = RNG.uniform(0, 2 * math.pi, (40, 3))
    for values, units in ((radians, "radians"), (np.rad2deg(radians), "degrees")):
        coder = coder_for("torus", load(values))
        assert isinstance(coder, ManifoldCoder)
        assert coder.units == units
        assert coder.space.dim == 3
        back = coder.to_user(coder.to_model(values))
        turn = 2 * math.pi if units == "radians" else 360
        assert (back >= 0).all()
        assert (back < turn).all()
        off = np.abs(back - values)
        assert np.minimum(off, turn - off).max() < 1e-4 * turn


def test_distances_in_the_embedding_rank_as_geodesic_ones() -> None:
    for coder, values in (
        (coder_for("sphere", load(places(40))), places(40)),
        (coder_for("rotations", load(rotations(40))), rotations(40)),
    ):
        assert isinstance(coder, ManifoldCoder)
        points = coder.to_model(values).double()
        geodesic = coder.space.distances(points[:1], points)[0, 1:]
        flat = np.linalg.norm(coder.embed(values)[1:] - coder.embed(values)[0], axis=1)
        assert (np.argsort(flat) == np.argsort(geodesic.numpy())).all()


def test_symbols_are_counted_from_zero_and_come_back() -> None:
    values = np.array([[5, 7, 7], [7, 9, 5], [9, 9, 9]], np.int16)
    coder = coder_for("symbols", load(values))
    assert isinstance(coder, SymbolCoder)
    assert coder.space.symbols == 5  # 5 to 9: integers that fill half of their range
    codes = coder.to_model(values)
    assert codes.dtype == torch.int64
    assert codes.min() == 0
    assert (coder.to_user(codes) == values).all()
    assert coder.to_user(codes).dtype == np.int16
    different = (values[0] != values[1]).sum()  # the embedding counts the sites that differ
    gap = coder.embed(values)[0] - coder.embed(values)[1]
    assert abs(np.square(gap).sum() - different) < 1e-12


def test_columns_of_a_table_have_alphabets_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("colour,size\n" + "red,1\nblue,3\nred,3\nblue,1\ngreen,1\n" * 4)
    data = load(str(path), mixed=True)
    coder = coder_for("symbols", data)
    assert coder.space.symbols == 3
    assert (coder.to_user(coder.to_model(data.values)) == data.values).all()
    save(tmp_path / "back.csv", data.values, coder)
    assert (tmp_path / "back.csv").read_text() == path.read_text()


def test_text_is_read_line_by_line_and_written_back(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("\n".join(NAMES) + "\n\n")
    data = load(str(path))
    assert data.kind == "text"
    assert data.values.shape == (len(NAMES), 4)
    assert data.text(data.values[2]) == ["carl"]
    save(tmp_path / "back.txt", data.values, coder_for("symbols", data))
    assert (tmp_path / "back.txt").read_text().split() == NAMES
    longer = tmp_path / "longer.txt"
    longer.write_text("\n".join(["alexander", *NAMES]))
    verdict = audit(path, longer, longer)  # other lengths and letters are brought together
    assert verdict.sizes["holdout"] == len(NAMES) + 1


@pytest.mark.parametrize(
    ("space", "values", "sentence"),
    [
        ("sphere", np.array([[10.0, 20.0], [95.0, 20.0]]), "row 1 has 95 in column 0"),
        ("sphere", np.array([[1.0, 0, 0], [1.0, 1, 0]]), "row 1 is not on Sphere(2)"),
        ("rotations", np.stack([np.eye(3), 2 * np.eye(3)]), "row 1 is not on Rotations(3)"),
        ("rotations", np.ones((3, 5)), "rotations are matrices"),
        ("hyperbolic", np.array([[1.0, 0, 0], [1.0, 1, 0]]), "row 1 is not on Hyperbolic(2)"),
        ("Sphere(3)", np.ones((2, 3)), "those of Sphere(3) have (4,)"),
        ("nowhere", np.ones((2, 3)), "no space is called 'nowhere'"),
        ("symbols", RNG.normal(size=(600, 2)), "different values"),
        ("symbols", np.ones((5, 2)), "one symbol only"),
    ],
)
def test_rows_that_do_not_belong_are_named(space: str, values: np.ndarray, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence.replace("(", r"\(").replace(")", r"\)")):
        coder_for(space, load(values))


def test_an_unknown_symbol_is_named() -> None:
    coder = coder_for("symbols", load(np.array([[0, 1], [1, 1]])))
    with pytest.raises(InputError, match=r"row 1 holds 4, which is none of the 2 symbols"):
        coder.to_model(np.array([[0, 1], [4, 1]]))


# --- processes by name ---------------------------------------------------------------------------


def test_every_process_is_made_again_from_its_name() -> None:
    ring = torch.roll(torch.eye(3), 1, 0) + torch.roll(torch.eye(3), -1, 0) - 2 * torch.eye(3)
    space = FiniteSet(3, 4)
    for process in (
        Masking(3, 4),
        process_on(space, "uniform"),
        process_on(space, "ordinal:reach=2,sigma_min=0.01,sigma_max=5"),
        RateMatrix(ring, 4),
        Brownian(Sphere(2), 1e-3),
        Brownian(Torus(2)),
    ):
        again = process_on(process.space, name_of(process))
        t = torch.tensor([0.1, 0.7], dtype=torch.float64)
        assert type(again) is type(process)
        assert torch.allclose(again.clock(t), process.clock(t), rtol=1e-12)


@pytest.mark.parametrize(
    ("space", "spec", "sentence"),
    [
        (FiniteSet(3, 4), "edm", "no process on symbols is called 'edm'"),
        (FiniteSet(3, 4), "ordinal:reech=1", "has no setting reech"),
        (FiniteSet(3, 4), "rates:[[-1, 2], [1, -1]]", "row 0 of the rate matrix sums to 1"),
        (FiniteSet(3, 4), "rates:nothing.npy", "write a rate matrix"),
        (Sphere(2), "edm", "choose one of brownian"),
    ],
)
def test_a_wrong_process_gets_a_sentence(
    space: FiniteSet | Sphere, spec: str, sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        process_on(space, spec)


# --- a table of the heat kernel ------------------------------------------------------------------


@pytest.mark.parametrize("space", [Sphere(2), Sphere(3), Rotations(3)], ids=repr)
@pytest.mark.parametrize("tau", [1e-3, 0.05, 0.5, 4.0])
def test_many_pairs_of_one_level_agree_with_few(space: Sphere | Rotations, tau: float) -> None:
    generator = torch.Generator().manual_seed(1)
    x, y = (space.uniform(n, generator=generator) for n in (400, 100))
    heat = heat_kernel(space)
    level = torch.full((100,), tau, dtype=torch.float64)
    weights = heat.log_density(y, x, level).softmax(1)
    many = heat.log_density(y, x, level), heat.mean_score(weights, y, x, level)
    few = [
        (heat.log_density(y[i : i + 1], x, level[:1]),
         heat.mean_score(weights[i : i + 1], y[i : i + 1], x, level[:1]))
        for i in range(100)
    ]  # fmt: skip
    exact = torch.cat([p for p, _ in few])
    seen = exact > exact.amax(1, keepdim=True) - 40  # what a softmax can tell from 0
    # 1e-6 but within .001 of the antipode, where the value at that distance is taken
    assert float((many[0] - exact)[seen].abs().max()) < 1e-4
    scores = torch.cat([s for _, s in few])
    assert float((many[1] - scores).norm() / scores.norm()) < 1e-5


# --- the four verbs ------------------------------------------------------------------------------

SMALL = dict(steps=4, check_every=4, width=16, depth=1, holdout=40, batch_size=32)
CASES = {
    "sphere": (places(100), dict(space="sphere"), "brownian"),
    "kernel": (places(100), dict(space="sphere", network="kernel"), "brownian"),
    "torus": (RNG.normal(size=(100, 2)) % 6, dict(space="torus"), "brownian"),
    "rotations": (rotations(80), dict(space="rotations"), "brownian"),
    "masking": (RNG.integers(0, 3, (100, 5)), dict(space="symbols"), "masking"),
    "uniform": (RNG.integers(0, 3, (100, 5)), dict(process="uniform"), "uniform"),
    "transformer": (RNG.integers(0, 3, (100, 5)),
                    dict(space="symbols", network="transformer"), "masking"),
    "images": (RNG.integers(0, 2, (100, 1, 4, 4)).astype(np.uint8),
               dict(process="ordinal"), "ordinal"),
    "damped": (RNG.normal(size=(100, 8)), dict(process="damped"), "damped"),
    "modes": (RNG.normal(size=(100, 8)),
              dict(process="modes:basis=haar,speed=1/1.1/1.2/1.3"), "modes"),
    "functions": (RNG.normal(size=(100, 8)).cumsum(1),
                  dict(process="functions:kernel=matern-3/2,length=0.2", network="fno"),
                  "functions"),
} | {
    name: (RNG.normal(size=(80, 2)), dict(process=name), name) for name in PROCESSES
}  # fmt: skip


@pytest.mark.parametrize("name", list(CASES))
def test_fit_sample_plan_and_audit(name: str, tmp_path: Path) -> None:
    values, settings, process = CASES[name]
    run = fit(values, out=tmp_path / "run", config=FitConfig(**SMALL), **settings)
    saved = json.loads((tmp_path / "run" / "config.json").read_text())
    assert saved["process"].startswith(process)
    loaded = Run.load(tmp_path / "run")
    for one, two in zip(run.denoiser.parameters(), loaded.denoiser.parameters(), strict=True):
        assert torch.equal(one, two)
    standard_curves(loaded, levels=6, rows=20)
    drawn, plan = draw(loaded, 30, 3)
    assert plan.steps == 3
    loaded.scaler.to_model(drawn)  # every sample lies in the space of the data
    assert drawn.dtype == values.dtype
    assert loaded.process.steps_measured == (name in ("uniform", "images"))
    report = describe(loaded, name, samples=30, sampling_steps=3)
    assert report.verdict is not None
    assert report.verdict.leak is not None
    if name in PROCESSES and name != "vp":
        return  # one page of Gaussian noise on vectors is like another, and figures cost most
    html, _ = write_report(tmp_path, "audit", name, [report], [])
    assert loaded.process.clock_label.split()[0] in html.read_text()


def test_a_killed_fit_on_symbols_resumes_to_the_same_weights(tmp_path: Path) -> None:
    values = RNG.integers(0, 3, (100, 5))

    def stop(event: object, trainer: object) -> None:
        if getattr(event, "step", 0) == 2:
            raise KeyboardInterrupt

    config = FitConfig(**SMALL, space="symbols")
    whole = fit(values, config=config)
    with pytest.raises(KeyboardInterrupt):
        fit(values, config=config, out=tmp_path / "run", on_event=stop)
    resumed = fit(out=tmp_path / "run", resume=True)
    for one, two in zip(whole.denoiser.parameters(), resumed.denoiser.parameters(), strict=True):
        assert torch.equal(one, two)


def test_a_rate_matrix_in_a_file_is_kept_in_the_run(tmp_path: Path) -> None:
    np.save(tmp_path / "q.npy", np.array([[-1.0, 1, 0], [0.5, -1, 0.5], [0, 1, -1]]))
    fit(RNG.integers(0, 3, (100, 5)), config=FitConfig(**SMALL), out=tmp_path / "run",
        process=f"rates:{tmp_path / 'q.npy'}")  # fmt: skip
    (tmp_path / "q.npy").unlink()
    process = Run.load(tmp_path / "run").process
    assert isinstance(process, RateMatrix)
    assert sampling_plan(Run.load(tmp_path / "run"), 4).steps == 4


def test_the_default_plan_of_a_run_on_the_sphere_reaches_the_data() -> None:
    """An untrained `kernel` network is the kernel estimate: its samples lie at the rows.

    The rate is nearly 0 at the uniform end; a plan that took that for free would jump over all.
    """
    values = places(200)
    config = FitConfig(**(SMALL | dict(steps=1)), space="sphere", network="kernel")
    run = fit(values, config=config)
    standard_curves(run, levels=24, rows=40)
    drawn, plan = draw(run, 200, 20)
    assert plan.t is not None
    assert (np.diff(plan.t) < -1e-3).all()
    space, rows = run.scaler.space, run.train_points().double()
    far = space.distances(run.scaler.to_model(drawn).double(), rows).amin(1)  # type: ignore
    assert float(far.quantile(0.9)) < 0.1  # radians; the centres are 15 degrees wide


@pytest.mark.slow
def test_a_space_without_a_kernel_has_no_memoriser_and_fits() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = Rotations(5).uniform(80, generator=generator).numpy()
    run = fit(rows, space="rotations", config=FitConfig(**SMALL))
    assert not run.process.has_kernel
    curves = standard_curves(run, levels=6, rows=20)
    assert set(curves) == {"train", "holdout"}
    assert "approximate" in str(curves["train"].leak(curves["holdout"]))
    drawn, _ = draw(run, 5, 3)
    run.scaler.to_model(drawn)


def test_copies_on_the_sphere_are_called_copies() -> None:
    train, held, fresh = (places(400, seed) for seed in (1, 2, 3))
    near = np.random.default_rng(4)
    copies = train[:200] + near.normal(size=(200, 2)) * 1e-3
    copied = audit(train, held, np.concatenate([copies, fresh[:200]]), space="sphere")
    assert copied.finding == "copies"
    assert audit(train, held, fresh, space="sphere").finding in ("none", "inconclusive")


def test_the_date_line_is_no_border() -> None:
    """A sample at longitude -179.9 copies a row at 179.9: 0.2 degrees apart, not 359.8."""
    rng = np.random.default_rng(5)
    train, held, fresh = (
        np.column_stack([rng.normal(size=n) * 20, 180 + rng.normal(size=n) * 20])
        for n in (300, 300, 300)
    )
    wrapped = [np.column_stack([a[:, 0], (a[:, 1] + 180) % 360 - 180]) for a in (train, held)]
    copies = train + rng.normal(size=train.shape) * 1e-3
    copies[:, 1] = np.where(copies[:, 1] < 180, copies[:, 1], copies[:, 1] - 360)
    verdict = audit(*wrapped, np.concatenate([copies, fresh]), space="sphere")
    assert verdict.finding == "copies"


# --- the command line ----------------------------------------------------------------------------


def run_cli(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exit_:
        main(list(arguments))
    return int(exit_.value.code or 0)


@pytest.mark.slow
def test_the_command_line_on_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "names.txt", tmp_path / "run"
    path.write_text("\n".join(NAMES))
    small = ["--steps", "3", "--width", "16", "--depth", "1", "--quiet"]
    assert run_cli("fit", str(path), "--out", str(out), *small) == 0
    for sampler in ("ancestral", "first-hitting", "tau-leaping"):
        drawn = tmp_path / f"{sampler}.txt"
        assert run_cli("sample", str(out), "--n", "5", "--steps", "3", "--sampler", sampler,
                       "--out", str(drawn), "--quiet") == 0  # fmt: skip
        assert len(drawn.read_text().split("\n")) == 6
    assert run_cli("plan", str(out), "--steps", "3", "--quiet") == 0
    assert run_cli("audit", str(out), "--n", "20", "--steps", "3", "--quiet") == 0
    assert "shown" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--space", "sphere"], "is text: its space is symbols"),
        (["--process", "edm"], "no process on symbols is called 'edm'"),
        (["--network", "unet"], "network 'unet' is not for symbols"),
        (["--objective", "gap"], "the objective gap is for Gaussian noise"),
        (["--augment", "flip"], "augment=flip is for images"),
    ],
)
def test_wrong_settings_for_text_exit_with_2(
    arguments: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "names.txt"
    path.write_text("\n".join(NAMES))
    assert run_cli("fit", str(path), "--out", str(tmp_path / "run"), *arguments) == 2
    assert sentence in capsys.readouterr().err


def test_gaussian_commands_refuse_other_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "run")
    fit(CASES["masking"][0], out=out, space="symbols", config=FitConfig(**SMALL))
    assert run_cli("audit", out, "--retrain", "2", "--quiet") == 2
    assert run_cli("compare", out, out, "--quiet") == 2
    assert run_cli("sample", out, "--sampler", "ddim", "--out", str(tmp_path / "s.npy")) == 2
    assert "Gaussian" in capsys.readouterr().err


def test_hyperbolic_points_are_fitted() -> None:
    space = Hyperbolic(2)
    generator = torch.Generator().manual_seed(0)
    start = space.origin().expand(80, -1)
    rows = Brownian(space).corrupt(start, 0.6, generator=generator).numpy()
    run = fit(rows, space="hyperbolic", config=FitConfig(**SMALL))
    standard_curves(run, levels=6, rows=20)
    drawn, _ = draw(run, 10, 3)
    assert float(space.residual(torch.from_numpy(drawn)).max()) < 1e-3
