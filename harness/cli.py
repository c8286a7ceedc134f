"""The command line: names, options and help.  Every command's body is imported when it runs."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Annotated

import typer

app = typer.Typer(
    name="bench",
    help="Makes lightweight promptable medical segmentation models comparable: accuracy, complexity, CPU runtime.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="Make and inspect data sets.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data_app, name="data")


class Listing(StrEnum):
    """What `bench list` lists."""

    variants = "variants"
    deployments = "deployments"
    datasets = "datasets"
    recipes = "recipes"
    protocols = "protocols"
    suites = "suites"
    runs = "runs"


class Shown(StrEnum):
    """What `bench show` shows."""

    variant = "variant"
    suite = "suite"
    recipe = "recipe"
    run = "run"
    schema = "schema"


class Kind(StrEnum):
    """Kinds of jobs."""

    train = "train"
    accuracy = "accuracy"
    complexity = "complexity"
    runtime = "runtime"


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
) -> None:
    """Run a suite; what is stored already is not done again, what was interrupted goes on."""
    from harness.commands.run import run_suite

    raise typer.Exit(run_suite(suite, overrides or [], dry_run, [k.value for k in fresh or []], results, json))


@app.command()
def validate(suite: SuiteArgument, overrides: Overrides = None, json: Json = False) -> None:
    """Check a suite and report all its mistakes at once."""
    from harness.commands.run import validate_suite

    raise typer.Exit(validate_suite(suite, overrides or [], json))


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
    json: Json = False,
    results: ResultsOption = None,
) -> None:
    """Print the leaderboard of a run."""
    from harness.commands.views import print_leaderboard

    print_leaderboard(run, Format.json.value if json else format.value, results)


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
    output: Annotated[str | None, typer.Option("--output", "-o", help="Copy of the checkpoint (safetensors).")] = None,
    results: ResultsOption = None,
) -> None:
    """Train one variant; the checkpoint is stored, and interrupted training goes on."""
    from harness.commands.train import train_variant

    raise typer.Exit(train_variant(variant, recipe, seed, data, output, results))


@app.command("list")
def list_(what: Listing, json: Json = False, results: ResultsOption = None) -> None:
    """List variants, deployments, datasets, recipes, protocols, suites or runs."""
    from harness.commands.listing import print_listing

    print_listing(what.value, json, results)


@app.command()
def show(
    what: Shown,
    name: Annotated[str | None, typer.Argument(help="Name, suite file or run id; none for the schema.")] = None,
    overrides: Overrides = None,
    json: Json = False,
    results: ResultsOption = None,
) -> None:
    """Show one thing in full: a variant, a resolved suite, a recipe, a run, or the suites' JSON schema."""
    from harness.commands.listing import print_one

    print_one(what.value, name, overrides or [], json, results)


@app.command()
def doctor(json: Json = False) -> None:
    """Say what this machine offers, and which command brings what is missing."""
    from harness.commands.doctor import print_doctor

    print_doctor(json)


@data_app.command("make")
def data_make(
    folder: Annotated[str, typer.Argument(help="Where the npz files go; must be empty or new.")],
    seed: Annotated[int, typer.Option(help="Same seed, same bytes.")] = 0,
    per_modality: Annotated[int, typer.Option(min=1, help="2D cases of every modality.")] = 1,
    volumes: Annotated[int, typer.Option(min=0, help="3D cases of CT, MR and PET each.")] = 1,
    size: Annotated[int, typer.Option(min=64, max=2048, help="Longest side of 2D cases, pixels.")] = 256,
) -> None:
    """Generate phantoms of all 11 modalities as challenge npz files with a manifest."""
    from harness.commands.data import make_phantoms

    make_phantoms(folder, {"seed": seed, "per_modality": per_modality, "volumes": volumes, "size": size})


@data_app.command("inspect")
def data_inspect(
    folder: Annotated[str, typer.Argument(help="A folder of challenge npz files.")],
    truth: Annotated[str | None, typer.Option(help="Folder with the ground truth, if apart.")] = None,
    sheet: Annotated[str | None, typer.Option(help="Also draw the cases into this PNG.")] = None,
    json: Json = False,
) -> None:
    """Table of a folder's cases and of every problem in them; exit code 1 if there is one."""
    from harness.commands.data import inspect_folder

    raise typer.Exit(inspect_folder(folder, truth, sheet, json))


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
