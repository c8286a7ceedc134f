"""`dummy`: fills the box with its inscribed ellipse.  The floor every trained model has to beat; needs no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from variants.embedding import Embedding
from variants.errors import VariantError
from variants.registry import Registry, VariantSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

GRID = 256


class EllipseModel:
    """A promptable model in numpy: looks at the box, never at the image."""

    input_size = 256

    def encode(self, image: NDArray[np.float32]) -> Embedding:
        """Keeps only the number of images: the embedding is (B, 1, 1, 1) zeros.

        Raises:
            VariantError: if `image` is not (B, 3, 256, 256).
        """
        import numpy as np

        if image.ndim != 4 or image.shape[1:] != (3, self.input_size, self.input_size):
            raise VariantError(f"images must be (B, 3, {self.input_size}, {self.input_size}), not {image.shape}")
        return Embedding(np.zeros((image.shape[0], 1, 1, 1), dtype=np.float32))

    def decode(
        self,
        emb: Embedding,
        boxes: ArrayLike,
        image_index: ArrayLike | None = None,
        points: Any = None,
        scribble: Any = None,
        multimask: bool = False,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Logits (N, 1|3, 256, 256), positive inside the ellipse, about the distance to its rim in pixels; IoU is 1.

        A box includes its maxima, so the ellipse of x0..x1 has the horizontal radius (x1 - x0 + 1) / 2.

        Raises:
            VariantError: for points or a scribble, or boxes that are not (N, 4).
        """
        import numpy as np

        if points is not None or scribble is not None:
            raise VariantError("variant 'dummy' takes boxes only, neither points nor scribbles")
        corners = np.asarray(boxes, dtype=np.float32)
        if corners.ndim != 2 or corners.shape[1] != 4:
            raise VariantError(f"boxes must be (N, 4), not {corners.shape}")
        x0, y0, x1, y1 = (corners[:, i, None, None] for i in range(4))
        x_radius, y_radius = (np.maximum(high - low + 1, 1) / 2 for low, high in ((x0, x1), (y0, y1)))
        pixel = np.arange(GRID, dtype=np.float32)
        x = (pixel[None, None, :] - (x0 + x1) / 2) / x_radius
        y = (pixel[None, :, None] - (y0 + y1) / 2) / y_radius
        logits = (1 - np.sqrt(x * x + y * y)) * np.minimum(x_radius, y_radius)
        masks = 3 if multimask else 1
        ones = np.ones((len(corners), masks), dtype=np.float32)
        return np.repeat(logits[:, None], masks, axis=1).astype(np.float32, copy=False), ones


def build(spec: VariantSpec) -> EllipseModel:
    """The model of the specification `dummy`."""
    return EllipseModel()


def register(registry: Registry) -> None:
    registry.add(
        VariantSpec(
            name="dummy",
            family="dummy",
            summary="fills the box with an ellipse; the floor, no weights",
            source="medsam-bench",
            factory="variants.dummy:build",
            params=0,
            needs_torch=False,
        )
    )
