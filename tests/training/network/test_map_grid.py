import pytest
import torch

from training.network.build import build_model
from training.network.map_grid import measure_map_grid


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("name", "first_px", "step_px"),
    [
        # A convolution with stride 2, kernel size 5 and padding 2 puts its first cell on pixel 0, whose centre is at
        # 0.5. Pooling puts its first cell between the first two. Both twice give 5.5.
        ("simple_cnn", 5.5, 16),
        # Strided convolutions only.
        ("resnet10_half", 0.5, 32),
        # Patches of 16 pixels.
        ("timm:test_vit", 8, 16),
    ],
)
def test_the_first_cell_lies_where_the_paddings_put_it(name, first_px, step_px, channels):
    torch.manual_seed(0)
    first, step = measure_map_grid(build_model(name, 2, 127, 70, size_px=96, channels=channels).eval(), 96)
    assert step * 96 == pytest.approx(step_px)
    assert first * 96 == pytest.approx(first_px, abs=step_px / 10)


class Everywhere(torch.nn.Module):
    """A network in which every cell sees the whole image, as with attention."""

    channels, map_stride = 1, 0
    fixed_size = even_cells = False

    def feature_map(self, pixels: torch.Tensor) -> torch.Tensor:
        cells = torch.nn.functional.avg_pool2d(pixels.float()[:, None], 32)
        return (cells + 100 * cells.mean(dim=(2, 3), keepdim=True)).square()


def test_a_network_that_looks_everywhere_divides_the_image_evenly():
    assert measure_map_grid(Everywhere(), 224) == (1 / 14, 1 / 7)
