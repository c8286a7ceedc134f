"""Points and a scribble made from each box, for models that are given more than boxes: numpy and OpenCV only.

Gao et al., "Swin-LiteMedSAM", sections 2.2 and 2.3, by two rules, because the paper and the published code differ:

- `paper`: the box is narrowed on all sides, for the points by 1/5 to 2/5 of the side of the *image*, for the scribble
  by 1/8 to 1/6 of it; a point is a random non-zero pixel of its quadrant.
- `code`: the same with shares of the side of the *box*, 1/5 to 1/2 and 1/8 to 1/6; column and row of a point are drawn
  independently from those of its quadrant's non-zero pixels, so that it may fall on a zero pixel.

By both, a quadrant without non-zero pixels gets the centre of the box, and a box without room for a scribble an empty
one.  The paper's rule, taken at its word, puts all four points of a box narrower than 2/5 of the image on its centre,
and gives a box narrower than 1/4 of it no scribble.

Every box has a key, and its draws depend on that key alone: not on other boxes, on their order, or on which other
prompts are made.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from variants.errors import VariantError
from variants.registry import PROMPTS, RULES, suggest

Span = tuple[int, int]
"""First pixel and the one behind the last, on one axis."""

POINTS = 4

SHIFTS: dict[str, dict[str, Callable[[int, int], Span]]] = {
    "paper": {
        "points": lambda side, size: (size // 5 + 1, math.ceil(2 * size / 5)),
        "scribble": lambda side, size: (size // 8 + 1, math.ceil(size / 6)),
    },
    "code": {
        "points": lambda side, size: (side // 5, side // 2 - 1),
        "scribble": lambda side, size: (side // 8, side // 6),
    },
}
"""By how many pixels a box is narrowed on each side, from the side of the box and that of the image."""


@dataclass(frozen=True)
class Stroke:
    """A freehand curve: a walk whose speed and direction change from vertex to vertex; lengths in pixels.

    Attributes:
        vertices: least and greatest number of vertices.
        width: least and greatest width of the line.
        speed: greatest distance between two vertices.
        speed_change: greatest change of the speed.
        turn: greatest change of the direction in radians.
        jitter: by how much half of the vertices are displaced at most, in x and in y.
        tries: strokes drawn before the scribble stays empty.
        pixels: fewest pixels of a scribble.
    """

    vertices: Span = (10, 29)
    width: Span = (3, 9)
    speed: float = 20.0
    speed_change: float = 15.0
    turn: float = 0.5
    jitter: int = 3
    tries: int = 6
    pixels: int = 6


STROKE = Stroke()
"""The published preset."""


@dataclass(frozen=True)
class Prompts:
    """The prompts of N boxes.

    Attributes:
        boxes: (N, 4) float32 x0, y0, x1, y1 in network pixels, as given.
        points: (N, 4, 2) float32 x, y in network pixels, foreground: top left, bottom left, bottom right, top right;
            `None` if not asked for.
        scribble: (N, 1, S, S) float32, 1 on the scribble and 0 elsewhere; `None` if not asked for.
    """

    boxes: NDArray[np.float32]
    points: NDArray[np.float32] | None = None
    scribble: NDArray[np.float32] | None = None


def make(
    boxes: NDArray[np.floating],
    image: NDArray[np.float32],
    prompts: Sequence[str],
    rule: str,
    keys: Sequence[str],
) -> Prompts:
    """The prompts a variant is given for its boxes.

    Args:
        boxes: (N, 4) x0, y0, x1, y1 in network pixels; what lies outside the image is cut off for points and scribble.
        image: (3, S, S) the prepared network input; padding is zero.
        prompts: some of `box`, `points`, `scribble`; `box` is always among them.
        rule: `paper` or `code`.
        keys: one text for each box, such as `case/slice/label`, that its random numbers depend on.

    Raises:
        VariantError: for an unknown prompt or rule, arrays of another shape, or another number of keys than of boxes.
    """
    given = np.asarray(boxes, dtype=np.float32)
    _check(given, image, prompts, rule, keys)
    points = scribble = None
    lit = np.asarray(image.any(axis=0)) if len(prompts) > 1 else np.zeros(image.shape[1:], np.bool_)
    if "points" in prompts:
        points = np.zeros((len(given), POINTS, 2), np.float32)
        for i, key in enumerate(keys):
            points[i] = _points(given[i], lit, rule, _generator(key, "points"))
    if "scribble" in prompts:
        scribble = np.zeros((len(given), 1, *lit.shape), np.float32)
        for i, key in enumerate(keys):
            _scribble(given[i], lit, rule, _generator(key, "scribble"), scribble[i, 0])
    return Prompts(given, points, scribble)


def _check(
    boxes: NDArray[np.float32], image: NDArray[np.float32], prompts: Sequence[str], rule: str, keys: Sequence[str]
) -> None:
    for prompt in prompts:
        if prompt not in PROMPTS:
            raise VariantError(f"no prompt {prompt!r}; {suggest(prompt, PROMPTS)}")
    if "box" not in prompts:
        raise VariantError(f"prompts must include 'box', which the others are made from, not {list(prompts)}")
    if rule not in RULES["prompt_rule"]:
        raise VariantError(f"no prompt rule {rule!r}; {suggest(rule, RULES['prompt_rule'])}")
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise VariantError(f"boxes must be (N, 4), not {boxes.shape}")
    if not np.isfinite(boxes).all():
        raise VariantError("boxes must be finite numbers, not NaN or infinite")
    if image.ndim != 3 or image.shape[0] != 3 or image.shape[1] != image.shape[2]:
        raise VariantError(f"image must be a network input (3, S, S), not {image.shape}")
    if len(keys) != len(boxes):
        raise VariantError(f"there must be one key for each of the {len(boxes)} boxes, not {len(keys)}")


def _generator(key: str, purpose: str) -> np.random.Generator:
    """Points and scribble draw from streams of their own, so that asking for one does not change the other."""
    return np.random.default_rng([zlib.crc32(key.encode()), zlib.crc32(purpose.encode())])


def spans(box: NDArray[np.floating], size: int) -> tuple[Span, Span]:
    """Columns and rows of a box (4,) that lie in an image of side `size`, in whole pixels; none where it is inside out.

    The box's maxima are taken as the first column and row behind it.
    """
    x0, y0, x1, y1 = (int(v) for v in np.clip(box, 0, size))
    return (x0, max(x0, x1)), (y0, max(y0, y1))


def _narrowed(span: Span, size: int, rule: str, purpose: str, rng: np.random.Generator) -> Span:
    """The span, narrowed by a random shift on both sides, never beyond its centre: then it is empty."""
    first, behind = span
    low, high = SHIFTS[rule][purpose](behind - first, size)
    shift = int(rng.integers(low, high)) if low < high else 0
    middle = centre(span)
    return min(first + shift, middle), max(behind - shift, middle)


def centre(span: Span) -> int:
    """The pixel at which a span is halved."""
    return sum(span) // 2


def quadrant_points(
    pixels: NDArray[np.bool_],
    columns: Span,
    rows: Span,
    middle: Span,
    rng: np.random.Generator,
    together: bool = True,
) -> list[Span]:
    """One point x, y in each quadrant of a box: top left, bottom left, bottom right, top right.

    Args:
        pixels: (S, S), true where a point may lie.
        columns: those of the box.
        rows: those of the box.
        middle: x, y where the quadrants meet, and the point of a quadrant without any such pixel.
        rng: chooses the pixels.
        together: column and row are those of one pixel, instead of being drawn independently.
    """
    (left, right), (top, bottom), (x, y), size = columns, rows, middle, pixels.shape[0]
    points = []
    for across, down in (
        ((left, x), (top, y)),
        ((left, x), (y, bottom)),
        ((x, right), (y, bottom)),
        ((x, right), (top, y)),
    ):
        ys, xs = np.nonzero(pixels[slice(*down), slice(*across)])
        if not len(xs):
            # A box on the image's far edge may have its centre just behind the last pixel.
            points.append((min(x, size - 1), min(y, size - 1)))
            continue
        one = rng.integers(len(xs))
        other = one if together else rng.integers(len(ys))
        points.append((across[0] + int(xs[one]), down[0] + int(ys[other])))
    return points


def scribble_in(region: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
    """One connected piece of a stroke on the true pixels of a region (H, W); all false where there is no room."""
    for _ in range(STROKE.tries if np.count_nonzero(region) >= STROKE.pixels else 0):
        piece = _largest_piece(_stroke(region, rng) & region)
        if np.count_nonzero(piece) >= STROKE.pixels:
            return piece
    return np.zeros_like(region)


def _points(box: NDArray[np.float32], lit: NDArray[np.bool_], rule: str, rng: np.random.Generator) -> list[Span]:
    """One point x, y in each quadrant of the box."""
    size = lit.shape[0]
    columns, rows = spans(box, size)
    narrow_columns = _narrowed(columns, size, rule, "points", rng)
    narrow_rows = _narrowed(rows, size, rule, "points", rng)
    middle = centre(columns), centre(rows)
    return quadrant_points(lit, narrow_columns, narrow_rows, middle, rng, together=rule == "paper")


def _scribble(
    box: NDArray[np.float32],
    lit: NDArray[np.bool_],
    rule: str,
    rng: np.random.Generator,
    canvas: NDArray[np.float32],
) -> None:
    """Sets the scribble's pixels of `canvas` to 1: one connected piece of a stroke on non-zero pixels of the box."""
    (left, right), (top, bottom) = (
        _narrowed(span, lit.shape[0], rule, "scribble", rng) for span in spans(box, lit.shape[0])
    )
    canvas[top:bottom, left:right] = scribble_in(lit[top:bottom, left:right], rng)


def _stroke(region: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
    """A random stroke that starts at a pixel of the region and may leave it; an array like it."""
    count = int(rng.integers(*STROKE.vertices, endpoint=True))
    starts = np.argwhere(region)
    place = starts[rng.integers(len(starts)), ::-1].astype(np.float64)
    speed, direction = rng.uniform(0, STROKE.speed), rng.uniform(0, 2 * math.pi)
    path = [place]
    for _ in range(count - 1):
        place = place + speed * np.array([math.cos(direction), math.sin(direction)])
        path.append(place)
        change = rng.uniform(-STROKE.speed_change, STROKE.speed_change)
        speed = min(max(speed + change, 0.0), STROKE.speed)
        direction += rng.uniform(-STROKE.turn, STROKE.turn)
    vertices = np.rint(path).astype(np.int32)
    moved = rng.permutation(count)[: count // 2]
    vertices[moved] += rng.integers(-STROKE.jitter, STROKE.jitter, (len(moved), 2), np.int32, endpoint=True)
    drawn = np.zeros(region.shape, np.uint8)
    cv2.polylines(drawn, [vertices], isClosed=False, color=1, thickness=int(rng.integers(*STROKE.width, endpoint=True)))
    return drawn.astype(np.bool_)


def _largest_piece(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest piece of a mask, pixels joined along sides and corners."""
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = statistics[1:, cv2.CC_STAT_AREA]
    return np.asarray(labels == 1 + int(areas.argmax())) if len(areas) else mask
