"""Cases and data sets: what is segmented, read safely, named and hashed."""

from harness.data.case import Case, CaseHeader, inspect_header, read_case, write_case
from harness.data.dataset import CaseInfo, DataSet, dataset_digest, open_dataset

__all__ = [
    "Case",
    "CaseHeader",
    "CaseInfo",
    "DataSet",
    "dataset_digest",
    "inspect_header",
    "open_dataset",
    "read_case",
    "write_case",
]
