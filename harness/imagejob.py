"""The job that measures somebody else's image: nothing of ours but the measuring code decides its result."""

from __future__ import annotations

from pathlib import Path

from harness.config import DataSetSpec, ImageRef, RuntimeSettings, VariantRef, canonical
from harness.dependencies import CODE_OF_IMAGES
from harness.jobs import JobSpec
from harness.machine import this_machine
from harness.provenance import hash_sources


def image_spec(
    ref: VariantRef, image: ImageRef, dataset: DataSetSpec, digest: str, settings: RuntimeSettings
) -> JobSpec:
    """The specification of one image on one data set.

    Args:
        ref: names the row; it is no variant of the registry.
        digest: of the data set.

    Raises:
        BenchError: there is no such image, or its file is no archive of one.
    """
    from harness.measure.runtime.foreign import identify, is_archive  # listings need no sandbox

    identity = identify(image.source)
    source = str(Path(image.source).resolve()) if is_archive(image.source) else image.source
    return JobSpec(
        kind="runtime",
        variant=ref,
        model={"image": identity},
        image=image.model_copy(update={"source": source}),
        dataset=dataset,
        settings=canonical(settings),
        inputs={"image": identity, "dataset": digest},
        code=hash_sources(CODE_OF_IMAGES),
        machine=this_machine().fingerprint,
    )
