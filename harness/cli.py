"""The command line: names, options and help.  Every command's body is imported when it runs."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Annotated

import typer

from harness.cli_data import data_app

app = typer.Typer(
    name="bench",
    help="Makes lightweight promptable medical segmentation models comparable: accuracy, complexity, CPU runtime.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data_app, name="data")


class Listing(StrEnum):
    """What `bench list` lists."""

    variants = "variants"
    deployments = "deployments"
    datasets = "datasets"
    recipes = "recipes"
    protocols = "protocols"
    suites = "suites"
    checkpoints = "checkpoints"
    runs = "runs"


class ExportFormat(StrEnum):
    """What `bench export` writes."""

    published = "published"
    safetensors = "safetensors"
    onnx = "onnx"
    openvino = "openvino"


class Kind(StrEnum):
    """Kinds of jobs."""

    train = "train"
    deploy = "deploy"
    accuracy = "accuracy"
    complexity = "complexity"
    latency = "latency"
    runtime = "runtime"


class Protocol(StrEnum):
    """Sets of measuring rules."""

    strict = "strict"
    cvpr24 = "cvpr24"


class Format(StrEnum):
    """Forms of a leaderboard."""

    table = "table"
    markdown = "markdown"
    csv = "csv"
    json = "json"


SuiteArgument = Annotated[
    str, typer.Argument(help="A suite file, or the name of one that ships (`bench list suites`).")
]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Override any field, e.g. datasets.test=FOLDER")
]
ResultsOption = Annotated[str | None, typer.Option("--results", help="Results folder [default: results]")]
RunArgument = Annotated[str | None, typer.Argument(help="Run id or the beginning of one [default: the latest]")]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
TensorboardOption = Annotated[
    str | None,
    typer.Option(
        "--tensorboard", metavar="DIR", help="Also write scalars of trainings there, live (`tensorboard --logdir DIR`)."
    ),
]


@app.command()
def run(
    suite: SuiteArgument,
    overrides: Overrides = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    fresh: Annotated[
        list[Kind] | None, typer.Option(help="Do jobs of this kind again although they are stored.")
    ] = None,
    results: ResultsOption = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print the plan (with --dry-run) or the leaderboard as JSON.")
    ] = False,
    tensorboard: TensorboardOption = None,
) -> None:
    """Run a suite; what is stored already is not done again, what was interrupted goes on."""
    from harness.commands.run import run_suite
    from harness.tensorboard import asked

    with asked(tensorboard):
        raise typer.Exit(run_suite(suite, overrides or [], dry_run, [k.value for k in fresh or []], results, json))


@app.command()
def validate(
    suite: SuiteArgument, overrides: Overrides = None, results: ResultsOption = None, json: Json = False
) -> None:
    """Check a suite and report all its mistakes at once."""
    from harness.commands.run import validate_suite

    raise typer.Exit(validate_suite(suite, overrides or [], results, json))


@app.command()
def report(
    run: RunArgument = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="HTML file [default: in the run's folder]")
    ] = None,
    results: ResultsOption = None,
) -> None:
    """Write the HTML report of a run: one file, nothing is fetched when it is opened."""
    from harness.commands.views import write_report

    write_report(run, output, results)


@app.command()
def leaderboard(
    run: RunArgument = None,
    format: Annotated[Format, typer.Option(help="Form of the output.")] = Format.table,
    deployments: Annotated[
        bool, typer.Option("--deployments", help="Only the table of deployments against eager torch.")
    ] = False,
    claims: Annotated[
        bool, typer.Option("--claims", help="Only the papers' claims of speed beside what was measured.")
    ] = False,
    rows: Annotated[
        list[str] | None, typer.Option("--rows", help="Only these rows, e.g. 'lite*,rep_medsam'; ranked anew.")
    ] = None,
    modality: Annotated[
        list[str] | None, typer.Option("--modality", help="Only cases of these modalities, e.g. CT,MR; ranked anew.")
    ] = None,
    json: Json = False,
    results: ResultsOption = None,
) -> None:
    """Print the leaderboard of a run, and how far its deployments are from eager torch."""
    from harness.commands.views import print_leaderboard

    form = Format.json.value if json else format.value
    print_leaderboard(run, form, results, deployments, claims, rows or (), modality or ())


@app.command()
def ablations(
    run: RunArgument = None,
    format: Annotated[Format, typer.Option(help="Form of the output.")] = Format.table,
    json: Json = False,
    results: ResultsOption = None,
) -> None:
    """Print the ablated variants of a run against their base: paired differences, tests and verdicts."""
    from harness.commands.views import print_ablations

    print_ablations(run, Format.json.value if json else format.value, results)


@app.command()
def score(
    truth: Annotated[str, typer.Argument(help="Folder of npz files with the ground truth (gts, spacing of volumes).")],
    predictions: Annotated[str, typer.Argument(help="Folder of npz files of the same names with predictions (segs).")],
    metric: Annotated[
        list[str] | None,
        typer.Option(help="dsc, nsd, hd95, volume_error, box_iou; may be repeated [default: dsc, nsd]"),
    ] = None,
    protocol: Annotated[list[Protocol] | None, typer.Option(help="May be repeated [default: both]")] = None,
    out: Annotated[str | None, typer.Option("--out", "-o", help="CSV file, one line a value.")] = None,
    processes: Annotated[int | None, typer.Option(help="[default: as many as processors]")] = None,
    json: Json = False,
) -> None:
    """Score predictions, whoever made them; exit code 1 if a case could not be scored."""
    from harness.commands.score import score_folders

    chosen = [p.value for p in protocol or []]
    raise typer.Exit(score_folders(truth, predictions, chosen, metric or [], out, processes, json))


@app.command()
def gate(
    run: RunArgument = None,
    baseline: Annotated[str | None, typer.Option(help="Baseline file, as written by --save.")] = None,
    save: Annotated[
        str | None, typer.Option(help="Write the run as a baseline to this file instead of comparing.")
    ] = None,
    json: Json = False,
    results: ResultsOption = None,
) -> None:
    """Compare a run with a baseline.  Exit code 0: ok, 1: regression, 2: broken, 3: nothing was measured."""
    from harness.commands.views import run_gate

    raise typer.Exit(run_gate(run, baseline, save, json, results))


@app.command()
def train(
    variant: Annotated[str, typer.Argument(help="A variant (`bench list variants`).")],
    recipe: Annotated[str, typer.Option(help="A recipe (`bench list recipes`).")] = "quick",
    seed: Annotated[int, typer.Option(help="Seed of initialisation, order and augmentation.")] = 0,
    data: Annotated[str | None, typer.Option(help="Folder of challenge npz [default: generated phantoms]")] = None,
    weights: Annotated[
        str | None, typer.Option(help="Checkpoint file, or imported checkpoint, to start from [default: initialised]")
    ] = None,
    teacher: Annotated[
        str | None, typer.Option(help="Checkpoint file, or imported checkpoint, of the teacher of distil stages.")
    ] = None,
    set: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE", help="A field of the recipe, e.g. steps=100 or stages.0.epochs=2; repeatable."
        ),
    ] = None,
    output: Annotated[str | None, typer.Option("--output", "-o", help="Copy of the checkpoint (safetensors).")] = None,
    results: ResultsOption = None,
    tensorboard: TensorboardOption = None,
) -> None:
    """Train one variant, stage by stage; the checkpoint is stored, and interrupted training goes on."""
    from harness.commands.train import Asked, train_variant
    from harness.tensorboard import asked

    given = Asked(variant, recipe, tuple(set or ()), teacher, weights, data, seed)
    with asked(tensorboard):
        raise typer.Exit(train_variant(given, output, results))


@app.command()
def runtime(
    image: Annotated[str, typer.Option(help="An image that obeys the challenge's contract, or its `docker save` tar.")],
    cases: Annotated[str, typer.Option(help="Folder of challenge npz files.")],
    beside: Annotated[
        list[str] | None, typer.Option(help="A variant of ours to measure beside it; `none`: alone [litemedsam]")
    ] = None,
    deployment: Annotated[
        list[str] | None, typer.Option(help="How ours are executed (`bench list deployments`) [torch-fp32]")
    ] = None,
    protocol: Annotated[Protocol, typer.Option(help="cvpr24: exactly the challenge's command.")] = Protocol.strict,
    repeats: Annotated[int, typer.Option(min=1, help="Cold runs of every case.")] = 3,
    memory: Annotated[str, typer.Option(help="Limit, e.g. 8GiB.")] = "8GiB",
    cpus: Annotated[float, typer.Option(help="CPUs to pin to and to limit to (strict).")] = 2,
    timeout: Annotated[float, typer.Option(help="Seconds a case.")] = 600,
    init: Annotated[bool, typer.Option("--init", help="An init process before the image's own (strict).")] = False,
    writable_root: Annotated[
        bool, typer.Option("--writable-root", help="The image may write to its own files (strict).")
    ] = False,
    output: Annotated[str | None, typer.Option("--output", "-o", help="Also write the HTML report here.")] = None,
    json: Json = False,
    results: ResultsOption = None,
) -> None:
    """Measure somebody else's image, case by case in cold containers, beside variants of ours."""
    from harness.commands.runtime import Asked, measure_image

    limits = {"memory": memory, "cpus": cpus, "timeout": timeout}
    rules = {"protocol": protocol.value, "repeats": repeats, **limits}
    asked = Asked(image, cases, beside or ["litemedsam"], deployment or ["torch-fp32"], rules, init, writable_root)
    raise typer.Exit(measure_image(asked, output, json, results))


@app.command("list")
def list_(what: Listing, json: Json = False, results: ResultsOption = None) -> None:
    """List variants, deployments, datasets, recipes, protocols, suites, checkpoints or runs."""
    from harness.commands.listing import print_listing

    print_listing(what.value, json, results)


@app.command()
def show(
    what: Annotated[
        str, typer.Argument(help="A name, or variant, suite, recipe, checkpoint or run before one; or schema.")
    ],
    name: Annotated[str | None, typer.Argument(help="Name, suite file or run id, if the kind came first.")] = None,
    overrides: Overrides = None,
    json: Json = False,
    results: ResultsOption = None,
) -> None:
    """Explain one thing: a variant, a resolved suite, a recipe, a checkpoint, a run, or the suites' JSON schema."""
    from harness.commands.listing import print_one

    print_one(what, name, overrides or [], json, results)


@app.command("import")
def import_(
    name: Annotated[str, typer.Argument(help="What suites call it; a variant's name says the variant too.")],
    file: Annotated[str, typer.Argument(help="The authors' file, or one in their layout (torch or safetensors).")],
    variant: Annotated[str | None, typer.Option(help="The variant it belongs to [default: NAME]")] = None,
    set: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="A hyperparameter that differs; may be repeated.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite a checkpoint of that name.")] = False,
    results: ResultsOption = None,
) -> None:
    """Check a published checkpoint, strictly and safely, and make it one that suites can name."""
    from harness.commands.weights import import_weights

    import_weights(name, file, variant, set or [], replace, results)


@app.command("export")
def export(
    name: Annotated[str, typer.Argument(help="An imported checkpoint, or a variant (initial weights).")],
    format: Annotated[ExportFormat, typer.Option(help="published: the authors' layout, as a torch file.")],
    out: Annotated[str | None, typer.Option(help="File, or folder for onnx and openvino.")] = None,
    variant: Annotated[
        bool, typer.Option("--variant", help="NAME is the variant, also if a checkpoint is called so.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of initial weights.")] = 0,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite files that exist.")] = False,
    results: ResultsOption = None,
) -> None:
    """Write weights for others: the authors' own layout, safetensors, ONNX or OpenVINO."""
    from harness.commands.weights import export_weights

    export_weights(name, format.value, out, variant, seed, replace, results)


@app.command()
def doctor(json: Json = False) -> None:
    """Say what this machine offers, and which command brings what is missing."""
    from harness.commands.doctor import print_doctor

    print_doctor(json)


def _version(value: bool) -> None:
    if value:
        from harness.provenance import version

        typer.echo(f"medsam-bench {version('medsam-bench')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main(arguments: list[str] | None = None) -> None:
    """Entry point of ``bench``: mistakes in the input become one sentence and an exit code, never a traceback."""
    from harness.errors import BenchError
    from variants.errors import VariantError

    try:
        app(args=arguments)
    except (BenchError, VariantError) as error:
        print(f"bench: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(getattr(error, "exit_code", 2))
    except OSError as error:
        what = f"{error.filename or 'a file'}: {error.strerror or error}"
        print(f"bench: {what}; check the path, its permissions and the disk", file=sys.stderr)  # noqa: T201
        sys.exit(2)


if __name__ == "__main__":
    main()
