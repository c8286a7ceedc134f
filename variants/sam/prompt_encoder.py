"""Prompts to tokens and to a dense map (Kirillov et al. 2023, section 3 and appendix A)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from variants.sam.layers import LayerNorm2d, Token


class RandomFourierFeatures(nn.Module):
    """Positions in the unit square as sines and cosines of random frequencies.

    Args:
        dim: length of the encoding.
        scale: standard deviation of the frequencies in cycles per half side; 1 in the published models.
    """

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, dim: int, scale: float) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", scale * torch.randn(2, dim // 2))

    def forward(self, positions: Tensor) -> Tensor:
        """(..., 2) x, y in [0, 1] → (..., dim)."""
        if torch.is_autocast_enabled(positions.device.type):
            # In half precision an angle of many turns is off by half a pixel and more.
            with torch.autocast(positions.device.type, enabled=False):
                return self._encoded(positions.float())
        return self._encoded(positions)

    def _encoded(self, positions: Tensor) -> Tensor:
        angles = (2 * positions - 1) @ self.positional_encoding_gaussian_matrix * (2 * math.pi)
        return torch.cat((angles.sin(), angles.cos()), dim=-1)


class PromptEncoder(nn.Module):
    """Encodes boxes and points as tokens, a scribble as a dense map.

    Args:
        dim: channels of the tokens and of the image embedding.
        input_size: side of the network input in pixels, in which prompts are given.
        grid: side of the image embedding; a scribble is given at 4 times this size.
        pe_scale: of the positional encoding, see `RandomFourierFeatures`.
        mask_channels: width of the layers that reduce a scribble.
    """

    def __init__(self, dim: int, input_size: int, grid: int, pe_scale: float = 1.0, mask_channels: int = 16) -> None:
        super().__init__()
        self.input_size = input_size
        self.grid = grid
        self.pe_layer = RandomFourierFeatures(dim, pe_scale)
        # Background point, foreground point, top left corner, bottom right corner.
        self.point_embeddings = nn.ModuleList(Token(dim) for _ in range(4))
        self.not_a_point_embed = Token(dim)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, mask_channels // 4, kernel_size=2, stride=2),
            LayerNorm2d(mask_channels // 4),
            nn.GELU(),
            nn.Conv2d(mask_channels // 4, mask_channels, kernel_size=2, stride=2),
            LayerNorm2d(mask_channels),
            nn.GELU(),
            nn.Conv2d(mask_channels, dim, kernel_size=1),
        )
        self.no_mask_embed = Token(dim)

    def forward(self, boxes: Tensor | None, points: Tensor | None, scribble: Tensor | None) -> tuple[Tensor, Tensor]:
        """Tokens (N, T, dim): points, then two box corners; dense map (N, dim, g, g), or (1, dim, 1, 1) if constant.

        Without a box a padding token stands in its place, as in the published models.

        Args:
            boxes: (N, 4) x0, y0, x1, y1 in network pixels.
            points: (N, P, 2) foreground points x, y in network pixels.
            scribble: (N, 1, 4g, 4g).
        """
        tokens = []
        if points is not None:
            tokens.append(self._positions(points) + self._learned(1))
        if boxes is not None:
            corners = self._positions(boxes.reshape(-1, 2, 2))
            tokens.append(corners + torch.stack((self._learned(2), self._learned(3)), dim=1))
        elif points is not None:
            tokens.append(self.not_a_point_embed.weight[None].expand(points.shape[0], 1, -1))
        dense = self.no_mask_embed.weight[:, :, None, None] if scribble is None else self.mask_downscaling(scribble)
        return torch.cat(tokens, dim=1), dense

    def dense_positions(self, grid: int | None = None) -> Tensor:
        """Positional encoding (1, dim, g, g) of the image embedding, or of one with another grid."""
        grid = self.grid if grid is None else grid
        matrix = self.pe_layer.positional_encoding_gaussian_matrix
        centres = (torch.arange(grid, device=matrix.device, dtype=matrix.dtype) + 0.5) / grid
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        encoded: Tensor = self.pe_layer(torch.stack((x, y), dim=-1))
        return encoded.permute(2, 0, 1)[None]

    def _positions(self, pixels: Tensor) -> Tensor:
        """Encoding of pixel coordinates (N, P, 2), taken at pixel centres."""
        encoded: Tensor = self.pe_layer((pixels + 0.5) / self.input_size)
        return encoded

    def _learned(self, kind: int) -> Tensor:
        embedding = self.point_embeddings[kind]
        assert isinstance(embedding, Token)
        return embedding.weight
