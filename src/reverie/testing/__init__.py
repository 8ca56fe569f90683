"""The laws that spaces, processes, denoisers, flows and pairs keep: one's own as those shipped.

    from reverie.testing import check_process
    check_process(Windy(), points)

Each check raises `BrokenLaw` with one sentence per law that fails: what was expected, and what was
found.
"""

from reverie.testing.broken import BrokenLaw as BrokenLaw
from reverie.testing.denoisers import check_denoiser as check_denoiser
from reverie.testing.flows import check_flow as check_flow
from reverie.testing.pairs import check_pair as check_pair
from reverie.testing.processes import check_process as check_process
from reverie.testing.spaces import check_space as check_space
from reverie.testing.spaces import laws_of_space as laws_of_space
