"""Verbs that are not stages: each module has `add_arguments(parser)` and `run(args)`."""
