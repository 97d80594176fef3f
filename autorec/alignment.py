"""Between two blocks: bringing tensors to the kind and width that the next block reads."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from autorec.blocks.base import Fields, Flat, Shape, TensorKind, linear

LARGEST = 10.0


class Lift(nn.Module):
    """Flat (B, d) to one field (B, 1, D), by a linear map without bias."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.linear = linear(size, width, bias=False)

    def flops(self) -> int:
        """Multiply-adds times two for one row."""
        return 2 * self.linear.in_features * self.linear.out_features

    def forward(self, flat: Tensor) -> Tensor:
        return self.linear(flat).unsqueeze(1)  # type: ignore[no-any-return]


class Resize(nn.Module):
    """Fields (B, F, D') to fields (B, F, D), by one linear map without bias for all fields."""

    def __init__(self, shape: Fields, width: int) -> None:
        super().__init__()
        self.fields = shape.fields
        self.linear = linear(shape.width, width, bias=False)

    def flops(self) -> int:
        """Multiply-adds times two for one row."""
        return 2 * self.fields * self.linear.in_features * self.linear.out_features

    def forward(self, fields: Tensor) -> Tensor:
        return self.linear(fields)  # type: ignore[no-any-return]


class Bound(nn.Module):
    """Rows whose largest entry exceeds 10 in size are scaled down to it; others pass unchanged.

    Blocks multiply their inputs with each other, so that chains of them are polynomials of a degree
    in the thousands: without a bound, one in twenty random networks of twelve blocks overflows
    before it has learnt anything. What the named architectures hand on stays far below 10.
    """

    def forward(self, x: Tensor) -> Tensor:
        largest = x.abs().flatten(1).amax(dim=1)
        scale = (LARGEST / largest.clamp(min=LARGEST)).view(-1, *[1] * (x.dim() - 1))
        return x * scale


def aligned(
    shapes: Sequence[Shape], reads: TensorKind, width: int, made: Sequence[bool]
) -> tuple[nn.ModuleList, list[Shape]]:
    """Return one module per input that makes it readable, and the shapes that they give.

    A block of flat tensors gets fields flattened. A block of fields gets flat inputs lifted to one
    more field, and all fields at one width: their own where they agree, else `width` (D). Inputs
    `made` by another block are bounded first.
    """
    modules, given = _fitted(shapes, reads, width)
    bounded = [nn.Sequential(Bound(), m) if b else m for m, b in zip(modules, made, strict=True)]
    return nn.ModuleList(bounded), given


def _fitted(
    shapes: Sequence[Shape], reads: TensorKind, width: int
) -> tuple[list[nn.Module], list[Shape]]:
    if reads == "flat":
        flatten = [nn.Flatten() if isinstance(s, Fields) else nn.Identity() for s in shapes]
        return list(flatten), [Flat(shape.size) for shape in shapes]
    widths = {shape.width for shape in shapes if isinstance(shape, Fields)}
    common = widths.pop() if len(widths) == 1 else width
    modules: list[nn.Module] = []
    for shape in shapes:
        if isinstance(shape, Flat):
            modules.append(Lift(shape.size, common))
        else:
            fits = shape.width == common
            modules.append(nn.Identity() if fits else Resize(shape, common))
    fields = [shape.fields if isinstance(shape, Fields) else 1 for shape in shapes]
    return modules, [Fields(count, common) for count in fields]
