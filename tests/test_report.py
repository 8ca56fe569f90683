import html
import html.parser
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from reverie import fit
from reverie.cli import main
from reverie.cli.demo import describe, run_demo
from reverie.data import Dataset
from reverie.forecast import predict
from reverie.report import ModelReport, write_report
from reverie.report.forecasts import write_forecast
from reverie.report.glossary import GLOSSARY

VOID = {"meta", "img", "br", "path", "use", "link", "input"}


class Checker(html.parser.HTMLParser):
    """Collects addresses and checks that tags nest."""

    def __init__(self):
        super().__init__()
        self.open, self.addresses, self.tags = [], [], set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.addresses += [v for k, v in attrs if k in ("src", "href", "xlink:href") and v]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    run = fit("digits", n=100, steps=60, width=32, depth=1, check_every=30)
    first = describe(run, "first", samples=300, steps=6)
    reports = [first, replace(first, name="<b>second</b>")]
    write_report(folder, "report", "A & B", reports, ["reverie demo"])
    return folder


def test_page_is_self_contained_well_formed_and_escaped(page):
    text = (page / "report.html").read_text()
    checker = Checker()
    checker.feed(text)
    assert checker.open == []
    assert all(a.startswith(("data:", "#")) for a in checker.addresses)
    assert "script" not in checker.tags
    assert "<b>second" not in text
    assert "A &amp; B" in text
    assert "viewport" in text
    assert "@media print" in text


def test_json_holds_what_pipelines_rely_on(page):
    data = json.loads((page / "report.json").read_text())
    for model in data["models"]:
        assert {"name", "n", "finding", "p_value", "leak", "leak_level", "plan"} <= set(model)
    assert data["models"][0]["plan"]["steps"] == 6


def test_pages_of_tables_and_partial_reports(tmp_path):
    rng = np.random.default_rng(0)
    train, held, drawn = (
        Dataset(rng.standard_normal((60, 3)), "table", "x", columns=("a", "b", "<c>"))
        for _ in range(3)
    )
    from reverie.auditing import audit

    verdict = audit(train, held, drawn)
    report = ModelReport("t", verdict=verdict, train=train, holdout=held, samples=drawn.values)
    path, _ = write_report(tmp_path, "audit", "t", [report], ["again"])
    assert "&lt;c&gt;" in path.read_text()


@pytest.fixture(scope="module")
def browse(tmp_path_factory):
    """Open a page in headless Chromium, 420 pixels wide; returns what it prints."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    profile = tmp_path_factory.mktemp("profile")
    flags = (
        "--headless --no-sandbox --disable-gpu --no-first-run --disable-sync "
        "--disable-background-networking --disable-component-update --window-size=420,1600"
    )

    def open_page(path, *more):
        return subprocess.run(
            [browser, *flags.split(), f"--user-data-dir={profile}", *more, path.as_uri()],
            check=True, capture_output=True, timeout=120, text=True,
        ).stdout  # fmt: skip

    return open_page


def test_a_browser_draws_the_page(page, browse, tmp_path):
    """The page is drawn, not blank, and no wider than a small screen."""
    picture, narrow = tmp_path / "page.png", tmp_path / "narrow.html"
    told = "document.title = document.documentElement.scrollWidth + ' of ' + innerWidth"
    text = (page / "report.html").read_text()
    narrow.write_text(text.replace("</body>", f"<script>{told}</script></body>"))
    browse(page / "report.html", f"--screenshot={picture}")
    found = re.search(r"<title>(\d+) of (\d+)</title>", browse(narrow, "--dump-dom"))
    assert found is not None
    assert int(found[1]) <= int(found[2]) <= 600  # nothing is wider than a small screen
    from PIL import Image

    pixels = np.asarray(Image.open(picture).convert("L"))
    assert pixels.std() > 10
    assert (pixels < 100).mean() > 0.005


@pytest.mark.slow
def test_demo_tells_the_three_models_apart(tmp_path):
    """One copies, one exposes, and the one within a budget no more than leans, with the same JSON
    from the same seed."""
    for name in ("a", "b"):
        command = [sys.executable, "-m", "reverie", "demo", "--out", str(tmp_path / name)]
        subprocess.run([*command, "--quiet"], check=True)
    one, two = ((tmp_path / n / "report.json").read_text() for n in ("a", "b"))
    assert one == two
    findings = [m["finding"] for m in json.loads(one)["models"]]
    assert findings[:2] == ["copies", "exposes"]
    assert findings[2] in ("leans", "none")


@pytest.mark.slow
def test_a_small_demo_reproduces_itself(tmp_path, monkeypatch):
    """Two of its models, the first and the one that stops; the latter once more, by itself and
    without figures."""
    from reverie.cli import demo

    small = dict(steps=30, check_every=15, width=16, depth=1, holdout=100)
    tiny = tuple(
        (name, about, settings | small | dict(n=min(settings["n"], 200)))
        for name, about, settings in demo.MODELS[::2]
    )
    monkeypatch.setattr(demo, "MODELS", tiny)
    run_demo(tmp_path / "a", samples=100, steps=5)
    monkeypatch.setattr("reverie.report.page.svg", lambda *_, **__: "")
    monkeypatch.setattr(demo, "curves_picture", lambda *_: None)
    monkeypatch.setattr(demo, "MODELS", tiny[1:])
    run_demo(tmp_path / "b", samples=100, steps=5)
    one, two = (json.loads((tmp_path / n / "report.json").read_text())["models"] for n in "ab")
    assert len(one) == 2
    assert one[1] == two[0]


def violations(browse, path, tmp_path):
    """What axe-core finds in a page, its folded parts open: (impact, rule, first element)."""
    axe = pytest.importorskip(
        "axe_core_python", reason="needs axe-core (pip install reverie[dev])"
    )
    source = (Path(axe.__file__).parent / "axe.min.js").read_text()
    asked = (
        "document.querySelectorAll('details').forEach(d => d.open = true);"
        "axe.run().then(r => { const p = document.createElement('pre'); p.id = 'axe';"
        "p.textContent = JSON.stringify(r.violations.map(v => [v.impact, v.id, v.nodes[0].html]));"
        "document.body.append(p) })"
    )
    asking = tmp_path / f"axe-{path.name}"
    scripts = f"<script>{source}</script><script>{asked}</script></body>"
    asking.write_text(path.read_text().replace("</body>", scripts))
    drawn = browse(asking, "--dump-dom", "--virtual-time-budget=20000")
    found = re.search(r'<pre id="axe">(.*?)</pre>', drawn, re.DOTALL)
    assert found is not None, "axe-core did not answer"
    return json.loads(html.unescape(found[1]))


def serious(browse, path, tmp_path):
    return [f for f in violations(browse, path, tmp_path) if f[0] in ("serious", "critical")]


@pytest.mark.slow
def test_a_report_has_no_serious_fault_of_access(page, browse, tmp_path):
    assert serious(browse, page / "report.html", tmp_path) == []
    assert (page / "report.html").stat().st_size < 1_500_000


@pytest.mark.slow
def test_other_pages_have_no_serious_fault_of_access(browse, tmp_path):
    run = fit("wine", steps=3, width=8, out=tmp_path / "run")
    write_forecast(tmp_path, predict(run.train_values, n=50), "reverie predict wine")
    with pytest.raises(SystemExit):
        main(["plan", str(run.path), "--steps", "3", "--quiet"])
    for path in (tmp_path / "predict.html", tmp_path / "run/plan.html"):
        assert serious(browse, path, tmp_path) == []


def test_words_on_a_page_are_those_that_it_uses(page):
    text = (page / "report.html").read_text()
    told = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", text)
    assert {"leak", "nat", "memoriser", "null"} <= {html.unescape(word) for word, _ in told}
    body = html.unescape(text[: text.index('<details class="words">')]).lower()
    assert all(html.unescape(word) in body for word, _ in told)
    assert all(len(meaning.split()) < 30 for meaning in GLOSSARY.values())
