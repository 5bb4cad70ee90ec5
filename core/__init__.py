"""Floor 0: boxes, records, file formats, configuration and the artifact store.

Only `dmnet.core.training` imports torch, and of it not `settings` and `progress`.
"""
