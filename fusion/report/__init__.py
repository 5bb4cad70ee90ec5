"""The report: one self-contained page, its plots, galleries and drawings."""
