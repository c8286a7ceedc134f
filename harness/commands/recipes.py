"""`bench show recipe NAME` and `bench list recipes`: the stages of a training recipe side by side.  Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.config import canonical
from harness.errors import BenchError
from harness.recipe import Recipe, Stage
from harness.suitefile import shipped_recipes
from harness.yamlfile import suggest

NONE = "none"


def shipped_recipe(name: str) -> Recipe:
    """A recipe that ships.

    Raises:
        BenchError: there is none of that name.
    """
    recipes = shipped_recipes()
    if name not in recipes:
        raise BenchError(f"there is no recipe {name!r}. {suggest(name, recipes)}")
    return Recipe.model_validate(recipes[name])


def recipe_data(recipe: Recipe) -> dict[str, Any]:
    """Every field, JSON-serialisable; ``stages`` holds each stage complete, also where the recipe is one stage."""
    data: dict[str, Any] = canonical(recipe)
    return data | {"stages": [canonical(stage) for stage in recipe.chain]}


def recipe_list() -> list[dict[str, Any]]:
    """A row for each recipe that ships: its name, its stages, the fields as written, and where they are from."""
    rows = []
    for name, fields in shipped_recipes().items():
        chain = Recipe.model_validate(fields).chain
        written = ", ".join(f"{key}={value}" for key, value in fields.items() if key not in ("stages", "source"))
        stages = [{"stage": stage.stage, "length": length(stage)} for stage in chain]
        rows.append({"name": name, "stages": stages, "fields": written, "source": fields.get("source", "")})
    return rows


def recipe_table(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The rows for people: of a source its first sentence."""

    def short(row: dict[str, Any]) -> dict[str, Any]:
        stages = ", ".join(part["stage"] for part in row["stages"])
        return {"name": row["name"], "stages": stages, "source": row["source"].partition(". ")[0]}

    return {"Recipes": [short(row) for row in rows]}


def print_recipe(name: str, recipe: Recipe) -> None:
    """The page of a recipe, a column a stage: fits 80 columns and a screen."""
    console = Console()
    chain = recipe.chain
    title, _, details = recipe.source.partition(". ")
    console.print(Text(f"{name}: ", "bold"), Text(title), sep="", highlight=False)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("", style="dim", no_wrap=True)
    for place, stage in enumerate(chain, 1):
        table.add_column(f"{place} {stage.stage}", overflow="fold", ratio=1)
    for heading, texts in recipe_rows(chain):
        table.add_row(heading, *texts)
    console.print(table, highlight=False, markup=False)
    others = [f"{pattern}: recipe {other} instead" for pattern, other in recipe.instead.items()]
    notes = [f"{i} {stage.stage}: {stage.source}" for i, stage in enumerate(recipe.stages, 1) if stage.source]
    for note in filter(None, [*others, details, *notes]):
        console.print(note, highlight=False, markup=False)


def recipe_rows(chain: tuple[Stage, ...]) -> Iterator[tuple[str, list[str]]]:
    """Title of each line and its text for every stage; what no stage makes use of is left out below the usual lines."""
    yield "starts from", [f"stage {place}" if place else "given, else initial" for place in range(len(chain))]
    for heading, text in USUAL.items():
        yield heading, [text(stage) for stage in chain]
    for heading, text in WHERE_USED.items():
        texts = [text(stage) for stage in chain]
        if any(told != NONE for told in texts):
            yield heading, texts


def length(stage: Stage) -> str:
    """``25 epochs`` or ``240 steps``."""
    count, unit = (stage.epochs, "epoch") if stage.epochs is not None else (stage.steps, "step")
    return f"{count} {unit}{'' if count == 1 else 's'}"


def _teacher(stage: Stage) -> str:
    teacher = stage.teacher
    if stage.stage != "distil" or teacher is None:
        return NONE
    changed = "".join(f", {key}={value}" for key, value in teacher.set.items())
    origin = "as initialised"
    if teacher.weights or teacher.recipe:
        origin = f"weights {teacher.weights}" if teacher.weights else f"trained by {teacher.recipe}"
    return f"{teacher.name}{changed}, {origin}; embeddings {stage.embeddings}"


def _optimiser(stage: Stage) -> str:
    extras = "" if stage.eps == 1e-8 else f", eps {stage.eps:g}"
    return f"AdamW, betas {stage.betas[0]:g} {stage.betas[1]:g}{extras}, weight decay {stage.weight_decay:g}"


def _schedule(stage: Stage) -> str:
    warm = f"{stage.warmup} steps of warm-up, then " if stage.warmup else ""
    if stage.schedule != "plateau":
        return warm + {"constant": "constant", "linear": "linear to zero"}[stage.schedule]
    plateau = stage.plateau
    loss = "training loss" if plateau.watch == "train" else "validation loss"
    return f"{warm}plateau: × {plateau.factor:g} after {plateau.patience} epochs ({loss})"


def _loss(stage: Stage) -> str:
    if stage.stage == "distil":
        return {"mse": "MSE of the embedding", "l1": "L1 of the embedding"}[stage.imitation]
    loss = stage.loss
    terms = [(loss.dice, "Dice"), (loss.bce, "BCE"), (loss.iou, "MSE(IoU)")]
    squared = "²" if loss.squared else ""
    used = [f"{'' if weight == 1 else f'{weight:g} '}{term}{squared}" for weight, term in terms if weight]
    return " + ".join(used) or NONE


def _augmentation(stage: Stage) -> str:
    parts = [f"flips p {stage.flips:g} each"] if stage.flips else []
    colour = stage.colour
    if colour and colour.probability:
        sizes = " ".join(f"{v:g}" for v in (colour.brightness, colour.contrast, colour.saturation, colour.hue))
        always = "" if colour.probability == 1 else f" p {colour.probability:g}"
        parts.append(f"colour jitter {sizes}{always}")
    if parts and stage.stage == "distil":
        parts.append("teacher too" if stage.consistent else "student alone")
    return ", ".join(parts) or NONE


def _box_jitter(stage: Stage) -> str:
    if stage.stage == "distil":
        return "no boxes"
    parts = [f"0..{stage.box_jitter} px outward" if stage.box_jitter else NONE]
    if stage.propagated_boxes:
        parts.append(f"p {stage.propagated_boxes:g} from the slice before, ±{stage.box_jitter} px")
    if stage.loop_starts:
        parts.append(f"p {stage.loop_starts:g} where the 3D loop starts")
    return "; ".join(parts)


def _sampler(stage: Stage) -> str:
    sampler = stage.sampler
    rule = {
        "cases": "every case once",
        "balanced": "each modality alike",
        "per-modality": f"{sampler.number} of each modality",
    }[sampler.rule]
    return ", ".join([rule, *(f"{share:.0%} of {name}" for name, share in sampler.fractions.items())])


def _clipping(stage: Stage) -> str:
    if stage.clip_percentile is not None:
        return f"percentile {stage.clip_percentile:g} of norms so far"
    return NONE if stage.clip is None else f"norm {stage.clip:g}"


def _validation(stage: Stage) -> str:
    kept = stage.validation
    if kept is None:
        return NONE
    every = "epoch" if kept.every is None else f"{kept.every} steps"
    ends = f", ends after {kept.patience} without gain" if kept.patience else ""
    best = {"loss": "smallest loss", "dsc": "largest DSC"}[kept.metric] if kept.keep == "best" else "last state"
    return f"{kept.share:.0%} of cases, every {every}, {best} kept{ends}"


BATCH_NORM = {
    "trained": "",
    "batch": "batch normalisation by the batch's statistics, frozen parts too",
    "running": "batch normalisation by running statistics",
}


def _more(stage: Stage) -> str:
    """What is seldom set."""
    parts = [
        f"EMA {stage.ema:g}" if stage.ema else "",
        f"frozen: {', '.join(stage.freeze)}" if stage.freeze else "",
        f"images at {stage.scale:g} of the network's side" if stage.scale != 1 else "",
        BATCH_NORM[stage.batch_norm],
        f"{stage.objects} objects an image" if stage.objects > 1 else "",
        "points and scribbles from the box" if stage.prompts == "box" else "",
        f"in parts of {stage.micro_batch}" if stage.micro_batch else "",
        "bf16" if stage.bf16 else "",
    ]
    return "; ".join(filter(None, parts)) or NONE


USUAL: dict[str, Callable[[Stage], str]] = {
    "teacher": _teacher,
    "batch size": lambda stage: str(stage.batch),
    "length": length,
    "optimiser": _optimiser,
    "learning rate": lambda stage: f"{stage.learning_rate:g}",
    "schedule": _schedule,
    "loss": _loss,
    "augmentation": _augmentation,
    "box jitter": _box_jitter,
    "sampler": _sampler,
    "clipping": _clipping,
    "validation": _validation,
}
"""Title → text of the lines that every recipe has."""
WHERE_USED: dict[str, Callable[[Stage], str]] = {
    "data": lambda stage: stage.data or NONE,
    "more": _more,
}
"""Lines that are shown where a stage uses them."""
