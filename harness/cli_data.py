"""The commands of `bench data`: names, options and help.  Every command's body is imported when it runs."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

data_app = typer.Typer(help="Make, inspect, convert and split data sets.", no_args_is_help=True, rich_markup_mode=None)


class DataKind(StrEnum):
    """Kinds of data sets in folders."""

    npz = "npz"
    nifti = "nifti"
    images = "images"


Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
SourceArgument = Annotated[
    str, typer.Argument(help="A folder of challenge npz files, NIfTI files or images, or one with images/ and labels/.")
]
KindOption = Annotated[DataKind | None, typer.Option("--from", help="What the folder holds [default: as it looks]")]
TruthOption = Annotated[str | None, typer.Option(help="Folder with the ground truth or label maps, if apart.")]
BoxesOption = Annotated[str | None, typer.Option(help="Folder of box files NAME.json [default: boxes from the labels]")]
ModalityOption = Annotated[str | None, typer.Option(help="Of all images [default: as each name says]")]
SettingOption = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="Any field of the data set's kind, e.g. window=lung; may be repeated."),
]


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
    folder: SourceArgument,
    kind: KindOption = None,
    truth: TruthOption = None,
    boxes: BoxesOption = None,
    modality: ModalityOption = None,
    set: SettingOption = None,
    sheet: Annotated[
        str | None, typer.Option(help="Also draw the cases with boxes and masks: FILE.png or FILE.html.")
    ] = None,
    json: Json = False,
) -> None:
    """Table of a folder's cases and of every problem in them; exit code 1 if there is one."""
    from harness.commands.data import inspect_folder, source_of

    fields = {"truth": truth, "boxes": boxes, "modality": modality}
    raise typer.Exit(inspect_folder(source_of(folder, kind and kind.value, fields, set or []), sheet, json))


@data_app.command("convert")
def data_convert(
    folder: SourceArgument,
    target: Annotated[str, typer.Argument(help="Where the files go; equal ones that are there are kept.")],
    to: Annotated[str, typer.Option(help="npz, nifti, png or tiff; jpeg would lose pixels.")] = "npz",
    kind: KindOption = None,
    truth: TruthOption = None,
    boxes: BoxesOption = None,
    modality: ModalityOption = None,
    set: SettingOption = None,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite other files in the target.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be written and stop.")] = False,
) -> None:
    """Convert a data set to challenge npz files with boxes, or those to NIfTI, PNG or TIFF; without loss."""
    from harness.commands.data import convert_folder, source_of

    fields = {"truth": truth, "boxes": boxes, "modality": modality}
    spec = source_of(folder, kind and kind.value, fields, set or [])
    convert_folder(spec, target, to, replace, dry_run)


@data_app.command("split")
def data_split(
    folder: SourceArgument,
    by: Annotated[
        str | None, typer.Option(help="Regular expression; its first group in a case's name is the patient.")
    ] = None,
    table: Annotated[str | None, typer.Option(help="CSV file with columns name and patient, instead.")] = None,
    fractions: Annotated[str, typer.Option(help="Shares of train,validation,test.")] = "0.8,0.1,0.1",
    seed: Annotated[int, typer.Option(help="Another seed, another split.")] = 0,
    output: Annotated[str, typer.Option("--output", "-o", help="The split file.")] = "split.json",
    kind: KindOption = None,
    truth: TruthOption = None,
    boxes: BoxesOption = None,
    modality: ModalityOption = None,
    set: SettingOption = None,
    json: Json = False,
) -> None:
    """Split a data set into train, validation and test by patient; parts that share an image are refused."""
    from harness.commands.data import source_of, split_folder

    fields = {"truth": truth, "boxes": boxes, "modality": modality}
    spec = source_of(folder, kind and kind.value, fields, set or [])
    split_folder(spec, by, table, fractions, seed, output, json)
