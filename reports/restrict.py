"""A part of a run: some of its rows, the cases of some modalities.  Every view of it is computed anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from fnmatch import fnmatchcase

from harness.errors import BenchError
from harness.schema import MODALITIES
from reports import text
from reports.frame import Run

_MEASURED = ("accuracy", "runtime")


def restrict(run: Run, rows: Sequence[str] = (), modalities: Sequence[str] = ()) -> Run:
    """The run with these rows and modalities alone; empty: all.

    Args:
        rows: names of variants, or of variants and deployments (``litemedsam · torch-fp32``), one a text or several
            between commas; ``*`` stands for any text.
        modalities: words of `harness.schema.MODALITIES`, in any case; as the rows.

    Raises:
        BenchError: a name that no row has, or a modality that no case has.
    """
    said = []
    patterns, found = _patterns(run, rows), _known(run, modalities)
    if patterns:
        run = _of_rows(run, patterns)
        said.append(f"rows {text.listed(patterns)}")
    if found:
        run = replace(run, frame=run.frame[_of_modalities(run, found)].reset_index(drop=True))
        said.append(f"modalities {text.listed(found)}" if len(found) > 1 else f"modality {found[0]}")
    return replace(run, only=", ".join(part for part in (run.only, *said) if part))


def _named(variant: str, deployment: str | None, pattern: str) -> bool:
    """Whether a pattern means this row: by its variant, or by variant and deployment."""
    names = (variant, f"{variant} · {deployment}") if deployment else (variant,)
    return pattern in names or any(fnmatchcase(name, pattern) for name in names)


def _patterns(run: Run, texts: Sequence[str]) -> list[str]:
    """The patterns of a list of texts: one each if a row is called so (names may hold commas), else between commas."""
    rows: set[tuple[str, str | None]] = {(job.variant, job.deployment) for job in run.info.jobs}
    rows |= {(label, None) for label in run.info.variants}
    found: list[str] = []
    for given in texts:
        whole = any(_named(label, deployment, given) for label, deployment in rows)
        found += [given] if whole else [part.strip() for part in given.split(",") if part.strip()]
    for pattern in found:
        if not any(_named(label, deployment, pattern) for label, deployment in rows):
            near = get_close_matches(pattern, [*run.info.variants], n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"its rows: {', '.join(run.info.variants)}"
            raise BenchError(f"--rows: no row of the run {run.info.id} is called {pattern!r}; {hint}")
    return list(dict.fromkeys(found))


def _of_rows(run: Run, patterns: Sequence[str]) -> Run:
    """These rows with the jobs that they need, the training of their variant among them."""

    def wanted(variant: str, deployment: str | None) -> bool:
        return any(_named(variant, deployment, pattern) for pattern in patterns)

    kept = {job.variant for job in run.info.jobs if wanted(job.variant, job.deployment)}
    kept |= {label for label in run.info.variants if wanted(label, None)}
    shared = [job for job in run.info.jobs if job.variant in kept]
    jobs = tuple(job for job in shared if job.deployment is None or wanted(job.variant, job.deployment))
    pairs = {(job.digest, job.variant, job.deployment) for job in jobs}
    columns = run.frame[["job", "variant", "deployment"]].astype(object)
    mine = [row in pairs for row in columns.where(columns.notna(), None).itertuples(index=False, name=None)]
    variants = {label: info for label, info in run.info.variants.items() if label in kept}
    info = run.info.model_copy(update={"variants": variants, "jobs": jobs})
    return replace(run, frame=run.frame[mine].reset_index(drop=True), info=info)


def _known(run: Run, texts: Sequence[str]) -> list[str]:
    """The modalities as they are written in the records."""
    modalities = [part.strip() for given in texts for part in given.split(",") if part.strip()]
    present = run.frame.loc[run.frame["kind"].isin(_MEASURED), "modality"].dropna().unique().tolist()
    present = [name for name in (*MODALITIES, *sorted(set(present) - set(MODALITIES))) if name in present]
    spelt = {name.lower(): name for name in present}
    for name in modalities:
        if name.lower() not in spelt:
            raise BenchError(
                f"--modality: no case of the run {run.info.id} is of the modality {name!r}; "
                f"its modalities: {', '.join(present) or 'none'}"
            )
    return list(dict.fromkeys(spelt[name.lower()] for name in modalities))


def _of_modalities(run: Run, names: Sequence[str]) -> list[bool]:
    """Which records stay: those of cases of these modalities, and those of no case."""
    frame = run.frame
    other = frame["kind"].isin(_MEASURED) & frame["case"].notna() & ~frame["modality"].isin(names)
    return [not left for left in other]
