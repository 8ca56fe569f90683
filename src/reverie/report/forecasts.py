"""The page of a forecast, and its JSON."""

from __future__ import annotations

from pathlib import Path

from reverie.files import write_json, write_text
from reverie.forecast import BLIND_SPOTS, Forecast
from reverie.report.figures import forecast_curves_figure, kl_figure, spectrum_figure
from reverie.report.frame import render_page


def write_forecast(folder: Path, forecast: Forecast, again: str) -> tuple[Path, Path]:
    """Write predict.html and predict.json into `folder`, atomically; returns both paths.

    again: the command line that makes the page again.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from reverie import predict
    >>> from reverie.report import write_forecast
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     paths = write_forecast(Path(folder), predict("wine"), "reverie predict wine")
    ...     print([path.name for path in paths])
    ['predict.html', 'predict.json']
    """
    html = render_page(
        "forecast.html",
        forecast=forecast,
        curves=forecast_curves_figure(forecast.curves),
        kl=kl_figure(
            forecast.sizes,
            forecast.kl_plain,
            forecast.kl_ridge,
            forecast.budget,
            forecast.n,
            forecast.dim,
        ),
        spectrum=spectrum_figure(forecast.spectrum),
        has_network=any(key.startswith("network") for key in forecast.curves),
        blind_spots=BLIND_SPOTS,
        again=again,
    )
    data = forecast.to_json()
    page = write_text(folder / "predict.html", html)
    return page, write_json(folder / "predict.json", data)
