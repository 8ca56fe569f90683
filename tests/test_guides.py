"""README and the guides: what they tell a reader to type runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from reverie.report.glossary import GLOSSARY
from run_pages import BLOCK, run_page

ROOT = Path(__file__).resolve().parents[1]
GUIDES = sorted((ROOT / "docs").glob("guides/*.md")) + sorted((ROOT / "docs").glob("ideas/*.md"))
PAGES = [ROOT / "docs/start.md", ROOT / "docs/clusters.md", *GUIDES]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_runs_as_it_stands(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_page(page) == len(BLOCK.findall(page.read_text()))


def test_readme_is_short_and_runs(tmp_path, monkeypatch, capsys):
    page = ROOT / "README.md"
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    assert len(text.split()) < 700
    monkeypatch.chdir(tmp_path)
    assert run_page(page) >= 3


def test_every_page_is_reached_from_the_index():
    """Each file stands in a list of contents, by its name or by a pattern."""
    index = (ROOT / "docs/index.md").read_text()
    for page in (ROOT / "docs").rglob("*.md"):
        name = page.relative_to(ROOT / "docs").with_suffix("").as_posix()
        if name == "index" or name.startswith("_build"):
            continue
        folder = name.rpartition("/")[0]
        assert re.search(rf"^({re.escape(name)}|{re.escape(folder)}/\*)$", index, re.MULTILINE), (
            name
        )


def test_the_glossary_is_that_of_the_pages():
    text = (ROOT / "docs/glossary.md").read_text()
    assert dict(re.findall(r"^(\S.*)\n: (.*)$", text, re.MULTILINE)) == GLOSSARY
