"""Noise schedule, samplers and passes: arithmetic for torch tensors and numpy arrays alike."""
