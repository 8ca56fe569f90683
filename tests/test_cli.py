import json
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import import_module
from inspect import signature
from pathlib import Path

import numpy as np
import pytest

import reverie
from reverie.auditing.finding import FINDINGS
from reverie.cli import main
from reverie.data.coders import EUCLIDEAN, SHARES, SHORT_NAMES, SYMBOLS
from reverie.plan import METHODS
from reverie.processes.registry import ENTRIES
from reverie.reproduce import RESULTS
from reverie.runs.config import NETWORKS, OBJECTIVES
from reverie.sampling import SAMPLERS
from reverie.sampling.samplers import NAMES

SMALL = ["--width", "16", "--depth", "1", "--steps", "40", "--check-every", "20", "--quiet"]


def call(*arguments):
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    return stop.value.code or 0


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "run"
    assert call("fit", "digits", "--out", path, "--n", "200", "--holdout", "300", *SMALL) == 0
    return path


def test_fit_writes_curves_and_says_what_next(tmp_path, capsys):
    assert call("fit", "wine", "--out", tmp_path / "w", *SMALL) == 0
    out = capsys.readouterr().out
    assert "leak:" in out
    assert "reverie audit" in out
    assert json.loads((tmp_path / "w" / "curves.json").read_text()).keys() >= {"train", "holdout"}
    assert list((tmp_path / "w" / "previews").glob("*.csv"))


def test_the_version_is_told(capsys):
    assert call("--version") == 0
    assert capsys.readouterr().out == f"reverie {reverie.__version__}\n"


def test_fit_twice_refuses_and_resume_of_a_finished_run_is_done(run, capsys):
    assert call("fit", "digits", "--out", run, *SMALL) == 2
    assert "--resume" in capsys.readouterr().err
    assert call("fit", "digits", "--out", run, "--resume", "--quiet") == 0


def test_sample_in_the_datas_own_form(run, tmp_path, capsys):
    out = tmp_path / "s.npy"
    assert call("sample", run, "--n", "7", "--steps", "5", "--out", out, "--quiet") == 0
    drawn = np.load(out)
    assert drawn.shape == (7, 8, 8)
    assert drawn.dtype == np.uint8
    assert drawn.max() <= 16
    first = drawn.copy()
    call("sample", run, "--n", "7", "--steps", "5", "--out", out, "--quiet")
    assert np.array_equal(np.load(out), first)
    folder = tmp_path / "pngs"
    assert call("sample", run, "--n", "3", "--steps", "4", "--out", folder, "--quiet") == 0
    assert len(list(folder.glob("*.png"))) == 3


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_from_the_command_line(run, tmp_path, sampler):
    if sampler == "ode":
        pytest.importorskip("torchdiffeq")
    out = tmp_path / "s.npy"
    assert call("sample", run, "--n", "2", "--steps", "4", "--sampler", sampler,
                "--out", out, "--quiet") == 0  # fmt: skip
    assert np.load(out).shape == (2, 8, 8)


def test_sample_can_refuse_copies(run, tmp_path, capsys):
    out = tmp_path / "s.npy"
    words = ["--n", "30", "--steps", "5", "--out", out, "--reject-copies", "--quiet"]
    assert call("sample", run, *words) == 0
    assert "near-copies of training rows were refused" in capsys.readouterr().out
    assert np.load(out).shape == (30, 8, 8)


def test_audit_of_a_run_writes_page_and_json(run, capsys):
    assert call("audit", run, "--n", "300", "--steps", "5", "--quiet") == 0
    assert "finding" in capsys.readouterr().out
    data = json.loads((run / "audit.json").read_text())
    model = data["models"][0]
    assert {"name", "n", "finding", "p_value", "leak", "leak_level", "plan"} <= set(model)
    page = (run / "audit.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "held-out row stands in the training set" in page
    clean = run.parent / "clean"
    assert call("audit", run, "--n", "50", "--steps", "3", "--write-clean", clean, "--quiet") == 0
    assert np.load(clean / "train.npy").shape == (200, 8, 8)


def test_audit_of_three_files_fails_on_copies(tmp_path, capsys):
    rng = np.random.default_rng(0)
    train, holdout = rng.standard_normal((2, 200, 5))
    for name, values in (("t", train), ("h", holdout), ("g", train)):
        header = "a,b,c,d,e"
        np.savetxt(tmp_path / f"{name}.csv", values, delimiter=",", header=header, comments="")
    sets = ["--train", tmp_path / "t.csv", "--holdout", tmp_path / "h.csv"]
    sets += ["--samples", tmp_path / "g.csv", "--out", tmp_path / "audit"]
    assert call("audit", *sets, "--quiet") == 0
    assert call("audit", *sets, "--fail-on", "copies", "--quiet") == 1
    assert call("audit", *sets, "--fail-on", "dependence", "--quiet") == 0
    assert call("audit", *sets, "--fail-on", "theft", "--quiet") == 2
    text = (tmp_path / "audit" / "audit.html").read_text()
    assert "training row" in text


def test_plan_prints_every_schedule(run, capsys):
    assert call("plan", run, "--steps", "6", "--quiet") == 0
    out = capsys.readouterr().out
    for name in ("loss-adaptive", "karras", "cosine", "entropic", "log-snr", "align-your-steps",
                 "score-optimal", "step-optimised", "ays-sd"):  # fmt: skip
        assert name in out
    assert (run / "plan.html").exists()
    assert call("plan", run, "--steps", "6", "--json") == 0
    plan = json.loads(capsys.readouterr().out)["plans"][0]
    # the default is what one sees; the least path KL on request
    assert plan["clock"] == "samples"
    assert plan["excess_nats"] == plan["rivals"]["loss-adaptive in the samples clock"]
    assert call("plan", run, "--steps", "6", "--clock", "nats", "--json") == 0
    data = json.loads(capsys.readouterr().out)
    plan = data["plans"][0]
    assert plan["excess_nats"] == min(plan["rivals"].values())
    assert data["trust"]["guard"]["sentences"]
    assert data["trust"]["initialisation"]["saved"] >= 0
    assert 0 <= data["area_error_nats"] < data["area_nats"]


def test_plan_of_several_numbers_of_steps(run, tmp_path, capsys):
    out = tmp_path / "plans"
    arguments = ["--steps", "3, 6", "--budget", "40", "--out", out, "--quiet"]
    assert call("plan", run, *arguments) == 0
    text = capsys.readouterr().out
    for word in ("K = 3", "K = 6", "certificates", "geometric grid", "at most 40 nats"):
        assert word in text
    data = json.loads((out / "plan.json").read_text())
    assert [plan["steps"] for plan in data["plans"]] == [3, 6]
    needed = data["steps_needed"]
    assert f"{needed} steps of the loss-adaptive plan" in text
    assert set(data["plans"][0]["charges_of_rivals"]["karras"]) == {"nats", "samples"}
    assert "<svg" in (out / "plan.html").read_text()
    for plan in data["plans"]:
        file = out / f"plan-{plan['steps']}.txt"
        assert file.read_text().splitlines()[0] == "# t sigma alpha log_snr"
        t, sigma, alpha, log_snr = np.loadtxt(file, unpack=True)
        assert np.allclose(t, plan["t"])
        assert np.allclose(np.exp(log_snr), plan["u"], rtol=1e-6)
        assert np.allclose(2 * np.log(alpha / sigma), log_snr, atol=1e-6)


def test_plan_tells_steps_by_drawing_and_ends(run, tmp_path, capsys):
    arguments = ("--steps", "4", "--draw", "24", "--sampler", "ancestral,ddim", "--ends")
    assert call("plan", run, *arguments, "--out", tmp_path, "--no-calibrate", "--quiet") == 0
    text = capsys.readouterr().out
    assert "steps by drawing, ancestral" in text
    assert "steps by drawing, ddim" in text
    assert "sigma_max" in text
    data = json.loads((tmp_path / "plan.json").read_text())
    assert [found["sampler"] for found in data["steps_by_drawing"]] == ["ancestral", "ddim"]
    assert data["ends"]["sigma_min"] < data["ends"]["sigma_max"]
    assert "Before the plan" in (tmp_path / "plan.html").read_text()


def test_plan_for_a_deterministic_sampler(run, tmp_path, capsys):
    """No certificate, and never the plan of the stochastic sampler unasked."""
    assert (
        call("plan", run, "--steps", "4", "--sampler", "ddim", "--out", tmp_path, "--quiet") == 0
    )
    text = capsys.readouterr().out
    assert "no KL certificate for ddim" in text
    assert "* loss-adaptive in the samples clock" in text


def test_compare_two_runs(run, tmp_path, capsys):
    other = tmp_path / "other"
    call("fit", "digits", "--out", other, "--n", "200", "--holdout", "300", *SMALL, "--lr", "1e-5")
    capsys.readouterr()
    assert call("compare", run, other, "--quiet") == 0
    assert "paired" in capsys.readouterr().out
    third = tmp_path / "third"
    call("fit", "digits", "--out", third, "--n", "100", "--seed", "4", *SMALL)
    assert call("compare", run, third, "--quiet") == 2


def test_predict_and_its_network(run, tmp_path, capsys):
    out = tmp_path / "p"
    assert call("predict", "digits", "--n", "200", "--run", run, "--out", out, "--quiet") == 0
    text = capsys.readouterr().out
    assert "weight decay" in text
    assert "given network" in text
    data = json.loads((out / "predict.json").read_text())
    assert data["n"] == 200
    assert "network holdout" in data["curves"]
    assert "<svg" in (out / "predict.html").read_text()


def test_reproduce_names_its_results(tmp_path, capsys):
    assert call("reproduce", "alchemy", "--quiet") == 2
    assert "dynamical-regimes" in capsys.readouterr().err


def bad_sets(tmp_path):
    rng = np.random.default_rng(0)
    good = tmp_path / "good.npy"
    np.save(good, rng.standard_normal((60, 3)))
    other = tmp_path / "other.npy"
    np.save(other, rng.standard_normal((60, 4)))
    nan = tmp_path / "nan.npy"
    np.save(nan, np.full((60, 3), np.nan))
    text = tmp_path / "text.csv"
    text.write_text("a,b\n1,x\n2,y\n")
    empty = tmp_path / "empty.csv"
    empty.write_text("")
    one = tmp_path / "one.npy"
    np.save(one, np.zeros((1, 3)))
    constant = tmp_path / "constant.npy"
    np.save(constant, np.ones((60, 3)))
    return locals()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fit", "{nan}", "--out", "{tmp_path}/r"], "row 0, column 0 is not a finite number"),
        (
            ["fit", "{text}", "--space", "euclidean", "--out", "{tmp_path}/r"],
            "line 2, column 'b' is 'x', not a number",
        ),
        (["fit", "{empty}", "--out", "{tmp_path}/r"], "is empty"),
        (["fit", "{one}", "--out", "{tmp_path}/r"], "1 row"),
        (["fit", "{constant}", "--out", "{tmp_path}/r"], "constant"),
        (["fit", "{good}", "--out", "{good}/r"], "cannot write"),
        (["fit", "missing.npy", "--out", "{tmp_path}/r"], "does not exist"),
        (["fit"], "needs DATA"),
        (["fit", "digits", "--out", "{tmp_path}/r", "--n", "5000"], "1 to 1796"),
        (["audit"], "needs a run"),
        (["audit", "{tmp_path}"], "is not a run"),
        (["audit", "--train", "{good}", "--holdout", "{good}", "--samples", "{good}"], "verbatim"),
        (["audit", "--train", "{good}", "--holdout", "{other}", "--samples", "{good}"], "shape"),
        (["predict", "{nan}"], "row 0, column 0 is not a finite number"),
        (["predict", "digits", "--budget", "0"], "budget"),
        (["predict", "digits", "--n", "2"], "at least 3 rows"),
        (["sample", "{tmp_path}"], "is not a run"),
        (["plan", "{tmp_path}"], "is not a run"),
        (["plan", "{tmp_path}", "--steps", "5;6"], "give one number"),
        (["plan", "{tmp_path}", "--sampler", "magic"], "no sampler is called"),
        (["plan", "{tmp_path}", "--data", "rows.npy"], "goes with a diffusers directory"),
        (["compare", "{tmp_path}", "{tmp_path}"], "is not a run"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_two(words, message, tmp_path, capsys):
    names = bad_sets(tmp_path)
    assert call(*[w.format(**names) for w in words], "--quiet") == 2
    err = capsys.readouterr().err.strip()
    assert message in err
    assert err.startswith("reverie: ")
    assert "Traceback" not in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--steps", "0"], "whole number"),
        (["--plan", "best"], "choose one of"),
        (["--sampler", "euler"], "choose"),
        (["--out", "a.xls"], "written as"),
        (["--n", "0"], "at least 1"),
    ],
)
def test_bad_sampling_is_one_sentence(run, extra, message, capsys):
    assert call("sample", run, *extra, "--quiet") == 2
    assert message in capsys.readouterr().err


def test_corrupted_checkpoint_loses_nothing(run, tmp_path, capsys):
    broken = tmp_path / "broken"
    shutil.copytree(run, broken)
    (broken / "ema.safetensors").write_bytes(b"garbage")
    assert call("sample", broken, "--quiet") == 2
    assert "is damaged" in capsys.readouterr().err
    before = sorted(p.name for p in run.iterdir())
    assert before == sorted(p.name for p in broken.iterdir())


@pytest.mark.parametrize(
    ("verb", "names"),
    [
        ("sample", NAMES), ("sample", METHODS), ("fit", ENTRIES), ("fit", NETWORKS),
        ("fit", OBJECTIVES), ("fit", SHORT_NAMES), ("fit", (SYMBOLS, SHARES, EUCLIDEAN)),
        ("reproduce", RESULTS), ("audit", SHORT_NAMES),
        ("audit", FINDINGS),
    ],
)  # fmt: skip
def test_help_lists_all_there_is(capsys, verb, names):
    """Texts that stand in a file are held to the tables that they tell of."""
    call(verb, "--help")
    words = set(re.split(r"[^\w+-]+", capsys.readouterr().out))
    assert [name for name in names if name not in words] == []


def test_reproductions_are_the_modules_that_run():
    for name in RESULTS:
        module = import_module(f"reverie.reproduce.{name.replace('-', '_')}")
        assert list(signature(module.run).parameters)[:3] == ["out", "seed", "full"]


def test_help_teaches_with_an_example(capsys):
    verbs = ("fit", "sample", "audit", "plan", "compare", "predict", "demo", "reproduce", "bridge")
    for verb in verbs:
        assert call(verb, "--help") == 0
        assert "Example: reverie" in capsys.readouterr().out


def test_ctrl_c_says_how_to_resume(tmp_path):
    """SIGINT in the middle of a fit: saved, exit 130, one sentence that says how to go on."""
    import signal
    import time

    out = tmp_path / "run"
    command = [sys.executable, "-m", "reverie", "fit", "digits", "--out", str(out)]
    child = subprocess.Popen([*command, "--steps", "100000", "--width", "16", "--quiet"],
                             stderr=subprocess.PIPE, text=True)  # fmt: skip
    while not (out / "state.safetensors").exists():
        time.sleep(0.05)
    time.sleep(0.2)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "--resume" in err
    assert (out / "state.safetensors").exists()
    assert "Traceback" not in err


def test_import_is_light():
    """`import reverie` adds under .3 s to `import torch`, and none of the extras."""
    code = (
        "import time, torch, sys; start = time.perf_counter(); import reverie; "
        "print(time.perf_counter() - start); "
        "extras = ('diffusers', 'pyarrow', 'sklearn', 'matplotlib', 'ray'); "
        "print(any(m in sys.modules for m in extras))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, extras = out.stdout.split()
    assert float(seconds) < 0.3
    assert extras == "False"


def test_faults_of_the_program_are_not_findings(run, monkeypatch, capsys):
    """An unforeseen exception exits with 3, never with the 1 of --fail-on."""
    from reverie.cli import sample_command

    def fail(*_, **__):
        raise ZeroDivisionError("boom")

    monkeypatch.setattr(sample_command, "draw_told", fail)
    assert call("sample", run, "--quiet") == 3
    assert "boom" in capsys.readouterr().err
    assert call("fit", "digits", "--seed", "-1", "--quiet") == 2
    assert call("audit", run, "--n", "-3", "--quiet") == 2
    assert call("fit", "digits", "--lr", "nan", "--quiet") == 2


def test_wheel_holds_the_templates(tmp_path):
    """The package data named in pyproject.toml cover every file that is not Python."""
    root = Path(__file__).parents[1]
    named = tomllib.loads((root / "pyproject.toml").read_text())
    patterns = named["tool"]["setuptools"]["package-data"]["reverie"]
    package = root / "src" / "reverie"
    covered = {p for pattern in patterns for p in package.glob(pattern)}
    others = {p for p in package.rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")}
    assert others <= covered


def test_the_installed_command_names_a_function():
    """What `pip install` writes into the script, which an older install would hide."""
    root = Path(__file__).resolve().parents[1]
    named = tomllib.loads((root / "pyproject.toml").read_text())
    module, function = named["project"]["scripts"]["reverie"].split(":")
    assert getattr(import_module(module), function) is main


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_every_command(shell, capsys):
    with pytest.raises(SystemExit) as left:
        main(["completion", shell])
    script = capsys.readouterr().out
    assert left.value.code in (0, None)
    assert all(name in script for name in ("audit", "predict", "doctor", "--fail-on"))


def test_doctor_tells_versions_and_what_is_missing(capsys, monkeypatch):
    from importlib import metadata

    from reverie.cli import doctor

    known = metadata.version

    def without(name):
        if name == "pyarrow":
            raise metadata.PackageNotFoundError(name)
        return known(name)

    monkeypatch.setattr(doctor.metadata, "version", without)
    with pytest.raises(SystemExit) as left:
        main(["doctor"])
    said = capsys.readouterr().out
    assert left.value.code == 0
    assert f"torch           {known('torch')}" in said
    assert "pyarrow         missing" in said
    assert re.search(r"pip install 'reverie\[\S*tables", said)
    with pytest.raises(SystemExit):
        main(["doctor", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["packages"]["tables"] == {"pyarrow": None}
    assert found["devices"][0] == "cpu"
