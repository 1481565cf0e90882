"""What is measured: cells that differ from a base in one thing each, the most telling ones first."""

from dataclasses import dataclass, replace

MEMORY, READER, LOOP = "memory", "reader", "pyarrow loop"
CHANNELS_LAST, CONTIGUOUS = "channels-last", "contiguous"


@dataclass(frozen=True)
class Cell:
    """One combination that is measured."""

    model: str
    size_px: int
    batch_size: int
    precision: str = "bf16"
    layout: str = CHANNELS_LAST
    """of weights and activations; training always has channels-last"""
    compiled: bool = False
    batches_from: str = MEMORY
    """`memory`: one batch again and again; `reader`: training's own, on a local file; `pyarrow loop`: the same file and
    batches, with the row groups from pyarrow alone"""

    def __str__(self) -> str:
        compiled = ", compiled" if self.compiled else ""
        return (
            f"{self.model}, {self.size_px} px, batch {self.batch_size}, {self.precision}, {self.layout}{compiled}, "
            f"batches from {self.batches_from}"
        )


@dataclass(frozen=True)
class Scale:
    """How large the measurement is."""

    device: str
    models: tuple[str, ...]
    sizes_px: tuple[int, ...]
    """the base's first"""
    batch_sizes: tuple[int, ...]
    """the base's first"""
    steps: int
    """steps of an epoch from memory"""
    seconds: float
    """for which a cell is measured at least"""
    rows: int
    """images of the local file"""
    gradient_images: int
    matrix: int
    """side of the square matrices whose product is timed"""
    compiles: bool


GPU = Scale("cuda", ("densenet121", "resnet50"), (224, 256), (128, 64, 256, 512), 10, 4.0, 8192, 8, 8192, True)
TINY = Scale("cpu", ("simple_cnn", "resnet10_half"), (32, 48), (8, 4), 2, 0.0, 64, 4, 128, False)


def cells_of(scale: Scale) -> list[Cell]:
    """All cells in the order in which they are measured."""
    cells = []
    for model in scale.models:
        base = Cell(model, scale.sizes_px[0], scale.batch_sizes[0])
        cells += [
            base,
            replace(base, precision="fp32"),
            replace(base, precision="fp16"),
            replace(base, layout=CONTIGUOUS),
            *(replace(base, size_px=size_px) for size_px in scale.sizes_px[1:]),
            *(replace(base, batch_size=batch_size) for batch_size in scale.batch_sizes[1:]),
            replace(base, batches_from=READER),
            replace(base, batches_from=LOOP),
        ]
    # Last, because compiling takes as long as ten other cells.
    return cells + [replace(cell, compiled=True) for cell in cells if is_base(cell, scale)]


def is_base(cell: Cell, scale: Scale) -> bool:
    return cell == Cell(cell.model, scale.sizes_px[0], scale.batch_sizes[0])
