"""Tables of the page: data frames turned into cells and columns."""

from reports.views.accuracy import leaderboard_table, modality_table
from reports.views.audit import ablation_table, problem_table, training_table
from reports.views.cost import complexity_table, phase_table, runtime_case_table, runtime_table
from reports.views.model import Cell, Column, Table

__all__ = [
    "Cell",
    "Column",
    "Table",
    "ablation_table",
    "complexity_table",
    "leaderboard_table",
    "modality_table",
    "phase_table",
    "problem_table",
    "runtime_case_table",
    "runtime_table",
    "training_table",
]
