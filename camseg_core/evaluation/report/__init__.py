"""Pages and JSON files of evaluations."""
