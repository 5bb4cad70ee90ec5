"""Presets: YAML files that override only what differs from the defaults."""
