"""Labelled data sets, one file a kind; `registry` lists them by name."""
