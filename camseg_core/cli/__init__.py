"""The commands of `camseg`: each file an `add(parser)` that declares its options and sets `run`, which does the work.

What only training needs (torch, yaml, rich, ...) is imported inside `run`, so that the commands of a vehicle work without it.
"""
