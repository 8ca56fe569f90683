"""Memorise or generalise: neighbours, rank tests with exact nulls, and the verdict."""

from reverie.auditing.cell_test import cell_test as cell_test
from reverie.auditing.judge import audit as audit
from reverie.auditing.neighbours import nearest as nearest
from reverie.auditing.rank_tests import near_test as near_test
from reverie.auditing.rank_tests import share_test as share_test
from reverie.auditing.rank_tests import tail_test as tail_test
from reverie.auditing.verdict import Verdict as Verdict
