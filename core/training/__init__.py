"""Training, the same for all our networks: settings, the loop, exact resume, processes, weights.

The only part of `dmnet.core` that imports torch; `settings` and `progress` do without it.
"""
