"""Changes of training samples after a modality's own; random through torch's global generator."""

import torch
from torch import Tensor
from torchvision.transforms import v2

STEPS = 100  # of each tenth of a magnitude
MEAN, STD = 0.45, 0.225  # of what erased pixels become; photos have about these


class RandAugment:
    """Two random changes of geometry or colour, each for half of the samples (arXiv 1909.13719, as in timm).

    Args:
        magnitude: how strong, of 10.
        std: deviation of that, drawn anew for each change.
    """

    def __init__(self, magnitude: float, std: float = 0.0) -> None:
        self.magnitude, self.std = magnitude, std

    def __call__(self, pixels: Tensor) -> Tensor:
        """uint8 (..., C, H, W), all frames of a clip alike."""
        for _ in range(2):
            if torch.rand(()) < 0.5:
                drawn = min(max(self.magnitude + self.std * float(torch.randn(())), 0.0), 10.0)
                change = v2.RandAugment(1, magnitude=round(drawn * STEPS), num_magnitude_bins=10 * STEPS + 1)
                pixels = change(pixels)
        return pixels


class Erase:
    """A rectangle of 2 to 33 % of the area becomes noise, cut off at black and white (arXiv 1708.04896).

    Args:
        share: of samples.
    """

    def __init__(self, share: float) -> None:
        self.share, self.place = share, v2.RandomErasing(p=1.0)

    def __call__(self, pixels: Tensor) -> Tensor:
        """uint8 (..., C, H, W); the same rectangle in all frames."""
        if torch.rand(()) >= self.share:
            return pixels
        box = self.place.make_params([pixels])
        if box["v"] is None:  # no rectangle fits
            return pixels
        rows, columns = slice(box["i"], box["i"] + box["h"]), slice(box["j"], box["j"] + box["w"])
        noise = torch.randn(pixels[..., rows, columns].shape) * STD + MEAN
        erased = pixels.clone()
        erased[..., rows, columns] = (noise * 255).round().clamp(0, 255).to(torch.uint8)
        return erased


class Stripes:
    """A stretch of time and a band of frequencies become zero: SpecAugment (arXiv 1904.08779), as in Audio-MAE.

    Energies are not normalised yet, so that zero is louder than most.

    Args:
        times: the longest stretch, in frames of 10 ms.
        bands: the widest band, of 128.
    """

    def __init__(self, times: int, bands: int) -> None:
        self.widest = (times, bands)

    def __call__(self, energies: Tensor) -> Tensor:
        """float32 (frames, bands); widths are uniform from zero."""
        energies = energies.clone()
        for axis, widest in enumerate(self.widest):
            size = energies.shape[axis]
            width = int(torch.rand(()) * (min(widest, size) + 1))
            start = int(torch.rand(()) * (size - width + 1))
            energies.narrow(axis, start, width).zero_()
        return energies
