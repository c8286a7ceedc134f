"""Ranking of variants: rules as data here and in `rules`, the arithmetic in `rank`, `schemes`, `stability` and `ties`.

Importing this package loads neither NumPy, pandas nor SciPy: suites name rules, and planning stays cheap.

    from harness.ranking.rank import rank
    from harness.ranking.rules import PRESETS
    from harness.ranking.table import Table
    rank(Table(("a", "b"), {"dsc": values}), PRESETS["mean-then-rank"])
"""
