"""Data sets, each yielding `Sample`s, and the synthetic drive."""
