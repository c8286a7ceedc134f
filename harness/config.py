"""Schema of everything a suite may say about variants, deployments, data sets, recipes and measurements.

Plain pydantic models: frozen, closed (an unknown field is an error), JSON-serialisable, cheap to import.  A job carries
these resolved models and nothing else, so a job can be pickled, hashed and sent to another machine.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from harness.protocols import DEFAULT_LOOP, LoopName
from harness.recipe import Stage
from harness.schema import MODALITIES, VOLUME_MODALITIES

Scalar = bool | int | float | str
SandboxName = Literal["process", "cgroup", "docker"]
LoopChoice = Literal["published"] | LoopName


class Model(BaseModel):
    """Base of all suite models: immutable and closed."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class VariantRef(Model):
    """A variant of the registry, with hyperparameters overridden by ``set``."""

    name: str = Field(description="name in the registry, see `bench list variants`")
    set: dict[str, Scalar | list[int]] = Field(default_factory=dict, description="hyperparameters to override")


class ImageRef(Model):
    """Somebody else's submission: an image that obeys the challenge's contract (`predict.sh`), measured as it is."""

    source: str = Field(min_length=1, description="name of an image on this machine, or a tar of `docker save`")
    init: bool = Field(False, description="strict: an init process before the image's own (docker's --init)")
    writable_root: bool = Field(
        False, description="strict: the image may write to its own files; every run starts anew"
    )


class Deployment(Model):
    """How a variant is executed; applies to every variant that supports it, elsewhere the record says `unsupported`."""

    backend: Literal["torch", "onnxruntime", "openvino"] = "torch"
    precision: Literal["fp32", "bf16", "int8"] = Field("fp32", description="bf16: torch autocast, openvino's hint")
    quantisation: Literal["dynamic", "static"] = Field(
        "dynamic", description="of int8: scales of activations at run time, or calibrated ahead; openvino: static"
    )
    fuse: bool = Field(False, description="batch normalisation and parallel branches folded into convolutions")
    compile: bool = Field(
        False, description="compiled ahead of time (torch: AOTInductor; openvino: its own), never where it is measured"
    )
    channels_last: bool = False
    threads: PositiveInt = Field(2, description="intra-op threads, set explicitly and recorded")
    allocator: Literal["system", "keep-pages"] = Field(
        "system", description="keep-pages: freed memory stays with the process (glibc), applied to every variant alike"
    )

    fold_decoder: bool = Field(
        False, description="the mask decoder's work on the image folded into its few tokens: same function, less work"
    )
    execution: Literal["sweep", "reference"] = Field(
        "sweep", description="sweep: least work, same masks; reference: what the authors' scripts do, one box at a time"
    )
    embedding_cache: ByteSize = Field(ByteSize(1024**3), description="budget of embeddings kept in a volume, e.g. 1GiB")

    delay: float = Field(
        0.0, ge=0, le=1, description="share of its time added to every encoding; to check that a measurement finds it"
    )

    @model_validator(mode="before")
    @classmethod
    def _calibrated(cls, value: Any) -> Any:
        """Left out, the scheme is the backend's own."""
        if isinstance(value, dict) and (value.get("backend"), value.get("precision")) == ("openvino", "int8"):
            return {"quantisation": "static", **value}
        return value

    @property
    def plain(self) -> bool:
        """Eager torch in fp32 as the model is written: the reference that every other deployment is compared with."""
        return (
            self.backend == "torch"
            and self.precision == "fp32"
            and not (self.fuse or self.compile or self.channels_last or self.fold_decoder)
        )

    @property
    def prepared(self) -> Deployment:
        """The deployment as its files depend on it: how a pipeline uses the model is left at the defaults."""
        fields = Deployment.model_fields
        return self.model_copy(
            update={name: fields[name].default for name in ("execution", "embedding_cache", "delay")}
        )

    @model_validator(mode="after")
    def _exists(self) -> Deployment:
        if self.backend != "torch" and self.channels_last:
            raise ValueError("`channels_last` is a setting of backend torch")
        if self.backend == "onnxruntime" and self.compile:
            raise ValueError("`compile` is a setting of backends torch and openvino; onnxruntime's files are optimised")
        if self.backend == "onnxruntime" and self.precision == "bf16":
            raise ValueError("onnxruntime has no bf16 on CPUs; use torch or openvino")
        if self.quantisation == "static" and (self.backend == "torch" or self.precision != "int8"):
            raise ValueError("`quantisation: static` is a setting of onnxruntime and openvino int8")
        if self.quantisation == "dynamic" and self.backend == "openvino" and self.precision == "int8":
            raise ValueError("openvino int8 is calibrated ahead; write `quantisation: static` or leave it out")
        if self.compile and self.backend == "torch" and self.precision == "int8":
            raise ValueError("torch: `compile` takes fp32 or bf16, not int8")
        return self


class PhantomData(Model):
    """Generated cases of all modalities; the same seed gives the same bytes."""

    kind: Literal["phantoms"] = "phantoms"
    seed: int = 0
    per_modality: PositiveInt = Field(1, description="2D cases of every modality")
    volumes: int = Field(0, ge=0, description="3D cases of every modality that is 3D (CT, MR, PET)")
    size: PositiveInt = Field(192, ge=64, le=2048, description="longest side of a 2D case in pixels")
    volume_size: PositiveInt = Field(96, ge=32, le=512, description="in-plane side of a 3D case in pixels")
    slices: PositiveInt = Field(12, ge=5, le=512, description="slices of a 3D case")
    modalities: tuple[str, ...] = MODALITIES

    @model_validator(mode="after")
    def _known_modalities(self) -> PhantomData:
        unknown = [m for m in self.modalities if m not in MODALITIES]
        if unknown:
            raise ValueError(f"unknown modality {unknown[0]!r}; known: {', '.join(MODALITIES)}")
        return self


class SplitPart(Model):
    """One part of a split of a data set into train, validation and test: of a file, or of a rule given here."""

    part: Literal["train", "validation", "test"]
    file: str | None = Field(None, description="split file, as `bench data split` writes it")
    by: str | None = Field(None, description="regular expression; its first group in the case's name is the patient")
    table: str | None = Field(None, description="CSV file with columns `name` and `patient` instead of `by`")
    fractions: tuple[float, float, float] = Field((0.8, 0.1, 0.1), description="train, validation, test")
    seed: int = 0

    @model_validator(mode="after")
    def _one_rule(self) -> SplitPart:
        if sum(rule is not None for rule in (self.file, self.by, self.table)) != 1:
            raise ValueError("give one of `file`, `by` and `table`")
        if self.file is not None and self.model_fields_set & {"fractions", "seed"}:
            raise ValueError("the split file holds `fractions` and `seed`; leave them out")
        if min(self.fractions) < 0 or abs(sum(self.fractions) - 1) > 1e-6:
            raise ValueError("`fractions` must be three shares train, validation, test that add up to 1")
        return self


class FolderData(Model):
    """A folder of challenge npz files."""

    kind: Literal["npz"] = "npz"
    path: str = Field(description="folder, relative to the working directory")
    truth: str | None = Field(None, description="folder with ground truth of the same names, if not in the same files")
    split: SplitPart | None = Field(None, description="only this part of the cases")


class SourceData(Model):
    """What folders of images and of label maps have in common, whatever the file format."""

    path: str = Field(description="folder of the images")
    truth: str | None = Field(None, description="folder of label maps of the images' names")
    boxes: str | None = Field(None, description="folder of box files NAME.json; else boxes come from the labels")
    modality: str | None = Field(None, description="of all images; else each name says it, as the challenge's do")
    window: Literal["abdomen", "lung", "brain", "bone"] | tuple[float, PositiveFloat] = Field(
        "abdomen", description="of CT in Hounsfield units: a name, or level and width"
    )
    objects: Literal["labels", "components"] = Field(
        "labels", description="labels: every label is an object; components: every connected piece of every label"
    )
    margin: int = Field(0, ge=0, description="pixels added to each side of a box in x and y; 0: tight, the challenge's")
    drop_labels: tuple[int, ...] = Field(
        (), description="labels that count as background; the challenge drops 12 of CT"
    )
    clean: bool = Field(
        False, description="as the challenge: no pieces under 100 voxels or 10 pixels, only slices with labels"
    )
    split: SplitPart | None = Field(None, description="only this part of the cases")

    @field_validator("modality")
    @classmethod
    def _known_modality(cls, value: str | None) -> str | None:
        if value is None or value in MODALITIES:
            return value
        raise ValueError(f"unknown modality {value!r}; known: {', '.join(MODALITIES)}")


class NiftiData(SourceData):
    """A folder of NIfTI images and one of label maps; needs the extra `medical`."""

    kind: Literal["nifti"] = "nifti"
    orientation: Literal["stored", "LPS"] = Field(
        "stored", description="stored: the file's own order of voxels, the challenge's; LPS: turned to that of DICOM"
    )


class ImagesData(SourceData):
    """A folder of PNG, TIFF or JPEG images and one of masks; a volume is a TIFF of pages or a folder of slices."""

    kind: Literal["images"] = "images"
    spacing: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = Field(
        None, description="x, y, z in mm of volumes whose box file states none"
    )
    cutoff: bool = Field(False, description="cut grey images at the percentiles 0.5 and 99.5 before rescaling")


class WorkloadData(Model):
    """The 14 cases whose runtimes the papers print, generated; see ``harness.data.workload``."""

    kind: Literal["workload"] = "workload"
    scale: Literal["full", "small"] = Field(
        "small", description="full: the papers' sizes; small: the same names, a minute of LiteMedSAM"
    )
    seed: int = 0


GeneratedData = PhantomData | WorkloadData
AdaptedData = NiftiData | ImagesData
"""Data that are converted to challenge npz files before anything reads them."""
StoredData = FolderData | NiftiData | ImagesData
"""Data of the user's own, in folders."""
DataSetSpec = Annotated[PhantomData | WorkloadData | FolderData | NiftiData | ImagesData, Field(discriminator="kind")]
STORED_KINDS = ("npz", "nifti", "images")


class Subset(Model):
    """A named part of a data set: by name patterns, or `spread` over modalities and dimensions, smallest first."""

    names: tuple[str, ...] = Field((), description="case names or shell patterns")
    spread: PositiveInt | None = Field(None, description="number of cases, in turn from each modality × dimension")

    @model_validator(mode="after")
    def _one_rule(self) -> Subset:
        if bool(self.names) == (self.spread is not None):
            raise ValueError("give either `names` or `spread`")
        return self


class AccuracyRules(Model):
    """How segmentations are made and compared with the truth."""

    protocols: tuple[Literal["strict", "cvpr24"], ...] = ("strict", "cvpr24")
    metrics: tuple[Literal["dsc", "nsd", "hd95", "volume_error", "box_iou"], ...] = Field(
        ("dsc", "nsd"), min_length=1, description="protocol cvpr24 has dsc and nsd alone"
    )
    loop: LoopChoice = Field(DEFAULT_LOOP, description="3D loop; `published`: that of each variant's authors")

    @model_validator(mode="after")
    def _had_by_a_protocol(self) -> Self:
        beyond = [name for name in self.metrics if name not in ("dsc", "nsd")]
        if beyond and "strict" not in self.protocols:
            raise ValueError(f"protocol cvpr24 has dsc and nsd alone; for {beyond[0]} add strict to `protocols`")
        return self


class AccuracySettings(AccuracyRules):
    """DSC, NSD and other metrics over a data set."""

    subset: Subset | None = None


class ComplexitySettings(Model):
    """Parameters, multiply-adds and activations, one image and one box."""

    published: bool = Field(False, description="also recompute the figures of the papers, each by its own convention")


class FidelitySettings(Model):
    """How a deployment is compared with eager torch in fp32 when it is prepared."""

    images: PositiveInt = Field(6, le=11, description="generated images, one a modality")
    repeats: PositiveInt = Field(5, description="timed encodings and decodings of either, interleaved")
    volumes: PhantomData | None = Field(
        None, description="generated volumes that both segment too, slice by slice, each box from the mask before"
    )

    @field_validator("volumes")
    @classmethod
    def _has_volumes(cls, value: PhantomData | None) -> PhantomData | None:
        if value is not None and not (value.volumes and set(value.modalities) & VOLUME_MODALITIES):
            known = ", ".join(sorted(VOLUME_MODALITIES))
            raise ValueError(f"these are no volumes: give `volumes` at least 1 and a modality of {known}")
        return value


class RuntimeRules(Model):
    """How cold runs are made, whoever asks for them."""

    protocol: Literal["strict", "cvpr24"] = "strict"
    loop: LoopChoice = Field(DEFAULT_LOOP, description="3D loop; `published`: that of each variant's authors")
    repeats: PositiveInt = Field(1, description="runs of every case at least")
    precision: PositiveFloat | None = Field(
        None, description="go on until the 95 % interval of the median wall time is narrower than ± this share of it"
    )
    max_repeats: PositiveInt = Field(30, description="runs of a case at most, where `precision` asks for more")
    budget: PositiveFloat | None = Field(None, description="seconds after which `precision` asks for no more")
    page_cache: Literal["warm", "cold"] = Field(
        "warm", description="cold: program, libraries and model come from the disk (root)"
    )
    memory: ByteSize = Field(ByteSize(8 * 1024**3), description="limit, e.g. 8GiB")
    cpus: PositiveFloat = 2
    timeout: PositiveFloat = Field(600, description="seconds a case")


class RuntimeSettings(RuntimeRules):
    """Cold runs, one process or container a case."""

    sandbox: SandboxName = "process"
    subset: Subset | None = None


class LatencySettings(Model):
    """Warm encodings and decodings in one process, and this machine's own limit measured beside them."""

    repeats: PositiveInt = Field(20, description="timed encodings and decodings, interleaved with the machine's limit")
    threads: tuple[PositiveInt, ...] = Field((1, 2), min_length=1, description="numbers of threads to measure with")


class Weights(Model):
    """Where a measured variant's weights come from: a file, a training job, or as initialised (both ``None``)."""

    file: str | None = None
    sha256: str | None = None
    train_job: str | None = Field(None, description="digest of the training job that made them")
    seed: int = Field(0, description="seed of the initialisation where neither is given")


JobKind = Literal["train", "deploy", "accuracy", "complexity", "latency", "runtime"]
Settings = Stage | FidelitySettings | AccuracySettings | ComplexitySettings | LatencySettings | RuntimeSettings


def canonical(model: BaseModel) -> Any:
    """The model as plain JSON data, the form that is hashed."""
    return model.model_dump(mode="json")
