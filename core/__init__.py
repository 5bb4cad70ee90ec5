"""Floor 0: boxes, records, file formats, configuration and the artifact store. Never imports torch."""
