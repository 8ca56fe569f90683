import html.parser
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from reverie import fit
from reverie.cli.demo import describe, run_demo
from reverie.data import Dataset
from reverie.report import ModelReport, write_report

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


def test_a_browser_draws_the_page(page, tmp_path):
    """Headless Chromium: the page is drawn, and not blank."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    picture, narrow = tmp_path / "page.png", tmp_path / "narrow.html"
    flags = (
        "--headless --no-sandbox --disable-gpu --no-first-run --disable-sync "
        "--disable-background-networking --disable-component-update --window-size=420,1600"
    )
    told = "document.title = document.documentElement.scrollWidth + ' of ' + innerWidth"
    html = (page / "report.html").read_text()
    narrow.write_text(html.replace("</body>", f"<script>{told}</script></body>"))

    def browse(path, flag):
        return subprocess.run(
            [browser, *flags.split(), f"--user-data-dir={tmp_path / 'profile'}", flag,
             path.as_uri()],
            check=True, capture_output=True, timeout=120, text=True,
        ).stdout  # fmt: skip

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
