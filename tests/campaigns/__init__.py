"""Campaigns: programs that try to break what the README promises, seeded and bounded in time.

``make campaign NAME=fuzz N=1000`` runs one; its short form runs with the tests. Results with seed,
N and commit stand in docs/reliability.md.
"""
