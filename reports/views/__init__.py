"""Tables of the page: data frames turned into cells and columns."""

from reports.views.ablation import ablation_table, verdict_table
from reports.views.accuracy import leaderboard_table, modality_table
from reports.views.audit import problem_table, training_table
from reports.views.claims import claim_case_table, claim_table
from reports.views.cost import complexity_table, phase_table, runtime_case_table, runtime_table
from reports.views.deployments import DeploymentSection, deployment_section
from reports.views.gains import gain_table
from reports.views.latency import LatencySection, latency_section
from reports.views.model import Cell, Column, Table
from reports.views.published import published_table
from reports.views.ranks import modality_rank_table, ranking_table

__all__ = [
    "Cell",
    "Column",
    "DeploymentSection",
    "LatencySection",
    "Table",
    "ablation_table",
    "claim_case_table",
    "claim_table",
    "complexity_table",
    "deployment_section",
    "gain_table",
    "latency_section",
    "leaderboard_table",
    "modality_rank_table",
    "modality_table",
    "phase_table",
    "problem_table",
    "published_table",
    "ranking_table",
    "runtime_case_table",
    "runtime_table",
    "training_table",
    "verdict_table",
]
