"""Scores of a model on labelled frames, through the runtime that ships: numpy and OpenCV, no torch; the page also needs jinja2."""
