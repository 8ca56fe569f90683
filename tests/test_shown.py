"""Results show themselves: a sentence and a short table where printed, a card in a notebook."""

from html.parser import HTMLParser

import numpy as np
import pytest

from reverie import LossCurve, audit, fit, plan_steps
from reverie.forecast import predict
from reverie.templates import Card


class Tags(HTMLParser):
    """Open tags, and the text outside of pictures."""

    def __init__(self, text):
        super().__init__()
        self.open, self.text, self.seen = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        self.open.append(tag)

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:  # elements of SVG that close themselves
            pass

    def handle_data(self, data):
        if "svg" not in self.open:
            self.text.append(data)


def halving():
    u = np.geomspace(0.01, 100, 30)
    return LossCurve(u, 1 / (1 + u), label="<b>held out</b>", count=7)


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(300, 3))
    out = tmp_path_factory.mktemp("shown") / "run"
    return {
        "curve": halving(),
        "plan": plan_steps(halving(), steps=20),
        "verdict": audit(rows[:150], rows[150:], rows[:150] + 0.0, metrics=False),
        "forecast": predict(rows, n=100),
        "run": fit(rows, out=out, steps=3, width=8),
    }


@pytest.mark.parametrize("name", ["curve", "plan", "verdict", "forecast", "run"])
def test_text_is_short_and_the_card_is_whole(shown, name):
    result = shown[name]
    text, html = repr(result), result._repr_html_()
    assert text == str(result) or name == "curve"
    assert len(text.splitlines()) <= 12
    assert max(map(len, text.splitlines()[1:]), default=0) < 120
    page = Tags(html)
    assert page.open == []
    assert "script" not in page.seen
    assert result.card().answer in "".join(page.text)
    assert len(html) < 200_000


def test_figures_of_a_card_are_those_of_the_result(shown):
    assert f"{shown['curve'].area():.4g} nats" in repr(shown["curve"])
    assert f"{shown['plan'].excess:.4g} nats" in repr(shown["plan"])
    assert repr(shown["verdict"]).startswith("copies: ")
    assert "150 of 150 samples" in repr(shown["verdict"])


def test_names_and_labels_are_escaped(shown):
    assert "<b>" not in shown["curve"]._repr_html_()
    assert "<i>" not in Card("x", ("a",), [("<i>",)]).html()


def test_a_card_without_a_table_is_its_sentence():
    assert Card("Nothing yet.").text() == "Nothing yet."
