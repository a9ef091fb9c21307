"""Configurations: dataclasses, and their YAML and JSON files."""
