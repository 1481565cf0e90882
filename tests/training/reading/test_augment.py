import torch

from training.reading.augment import augment, draw_changes


def test_changes_differ_per_image_repeat_by_seed_and_stay_in_range():
    image = torch.zeros(1, 64, 64, dtype=torch.uint8)
    image[:, 16:48, 16:40] = 255
    pixels = image.expand(4, -1, -1)
    first = augment(pixels, draw_changes(4, 1))
    again = augment(pixels, draw_changes(4, 1))
    assert torch.equal(first, again)
    assert first.shape == (4, 64, 64)
    assert first.min() >= 0
    assert first.max() <= 255
    assert all(not torch.equal(first[0], other) for other in first[1:])


def test_a_changed_image_stays_close_to_the_original():
    ramp = torch.linspace(0, 255, 64).repeat(32, 64, 1).to(torch.uint8)
    changed = augment(ramp, draw_changes(32, 2))
    assert (changed - ramp.float()).abs().mean() < 20
    # Left stays left: nothing is mirrored.
    assert (changed[:, :, 48:].mean(dim=(1, 2)) > changed[:, :, :16].mean(dim=(1, 2))).all()
