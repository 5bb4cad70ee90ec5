"""One module per stage: `VERSION`, a frozen `Config`, and `plan`."""
