"""What the paper reports of its own model (arXiv 2503.15617), on Cityscapes: AP, in 0..1, by series and level.

Another data set, another training set and another size of picture than ours: what compares is the share of the clean AP that is kept. The
paper does not say what exactly its disturbances do, or on which scale; its curve for Gaussian noise is flat from 5 to 100.
"""

SOURCE = "arXiv 2503.15617, on Cityscapes"

CLEAN_AP = 0.702

AP: dict[str, dict[float, float]] = {
    "paper/gaussian_noise": {5: 0.691, 100: 0.691},
    "paper/gaussian_blur": {25: 0.648},
    "paper/motion_blur": {9: 0.684, 21: 0.664, 105: 0.587, 221: 0.307},
    "paper/salt_and_pepper": {10: 0.624, 50: 0.539, 80: 0.051},
    "paper/brightness": {0.5: 0.695},
    "paper/contrast": {0.5: 0.693},
    "paper/saturation": {0: 0.612},
    "paper/hue": {-0.2: 0.589, 0.2: 0.625},
}


def kept(series: str, level: float) -> float | None:
    """The share of the clean AP that the paper's model keeps; None where the paper does not say."""
    value = AP.get(series, {}).get(level)
    return None if value is None else value / CLEAN_AP
