"""Scores of a model on labelled frames: numpy and OpenCV, no torch; the pages also need jinja2."""
