"""Summary tables of a run, computed from its raw records when they are read.  Pandas in, pandas out."""

from reports.tables.ablation import ablations
from reports.tables.accuracy import accuracy_by_modality, accuracy_summary, case_values
from reports.tables.common import FAILURES, problems
from reports.tables.cost import complexity, phases, runtime_cases, runtime_summary, training, training_curves

__all__ = [
    "FAILURES",
    "ablations",
    "accuracy_by_modality",
    "accuracy_summary",
    "case_values",
    "complexity",
    "phases",
    "problems",
    "runtime_cases",
    "runtime_summary",
    "training",
    "training_curves",
]
