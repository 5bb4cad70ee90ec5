"""One module a stage: `VERSION`, a frozen `Config`, and `run`."""
