"""Noise schedule, samplers and passes: arithmetic on torch tensors and numpy arrays alike. Imports neither torch nor an engine."""
