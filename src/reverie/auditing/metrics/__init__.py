"""Published metrics, each beside its value for held-out rows."""

from reverie import lazily as _lazily

__getattr__ = _lazily(
    __name__,
    {},
    {
        "Prdc": "reverie.auditing.metrics.rates:Prdc",
        "prdc": "reverie.auditing.metrics.rates:prdc",
        "coverage_null": "reverie.auditing.metrics.rates:coverage_null",
        "ratio_hits": "reverie.auditing.metrics.rates:ratio_hits",
        "intrinsic_dimension": "reverie.auditing.metrics.rates:intrinsic_dimension",
        "authentic": "reverie.auditing.metrics.rates:authentic",
        "authenticity_limit": "reverie.auditing.metrics.rates:authenticity_limit",
    },
)
