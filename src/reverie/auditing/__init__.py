"""Memorise or generalise: neighbours, rank tests with exact nulls, and the verdict."""

from reverie.auditing.common_space import CommonSpace as CommonSpace
from reverie.auditing.common_space import common_space as common_space
from reverie.auditing.facts.many_queries import nearest_many as nearest_many
from reverie.auditing.facts.neighbours import nearest as nearest
from reverie.auditing.fairness.clean import write_clean as write_clean
from reverie.auditing.fairness.split import SplitReport as SplitReport
from reverie.auditing.fairness.split import audit_split as audit_split
from reverie.auditing.judge import audit as audit
from reverie.auditing.judge import weigh as weigh
from reverie.auditing.nulls.cell_test import cell_test as cell_test
from reverie.auditing.nulls.rank_tests import near_test as near_test
from reverie.auditing.nulls.rank_tests import share_test as share_test
from reverie.auditing.nulls.rank_tests import tail_test as tail_test
from reverie.auditing.verdict import Verdict as Verdict
