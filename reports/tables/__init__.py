"""Summary tables of a run, computed from its raw records when they are read.  Pandas in, pandas out."""

from reports.tables.ablation import ablations
from reports.tables.accuracy import accuracy_by_modality, accuracy_summary, case_values
from reports.tables.claims import claims
from reports.tables.common import FAILURES
from reports.tables.cost import complexity, phases, runtime_cases, runtime_summary
from reports.tables.fidelity import fidelity
from reports.tables.gains import gains, orders
from reports.tables.latency import latency
from reports.tables.problems import problems
from reports.tables.published import published
from reports.tables.training import training, training_curves

__all__ = [
    "FAILURES",
    "ablations",
    "accuracy_by_modality",
    "accuracy_summary",
    "case_values",
    "claims",
    "complexity",
    "fidelity",
    "gains",
    "latency",
    "orders",
    "phases",
    "problems",
    "published",
    "runtime_cases",
    "runtime_summary",
    "training",
    "training_curves",
]
