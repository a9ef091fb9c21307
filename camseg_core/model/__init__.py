"""The networks (torch), and the noise schedule and samplers, which work on torch tensors and numpy arrays alike.

Nothing is imported here: the runtime uses `schedule` and `samplers` without torch.
"""
