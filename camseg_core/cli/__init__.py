"""The commands of `camseg`: each file declares its options in `add(parser)`, which sets `run`.

What only training needs (torch, yaml, rich, ...) is imported inside `run`, so that commands work
on a vehicle without it.
"""
