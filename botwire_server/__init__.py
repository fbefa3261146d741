"""Self-hosted memory for AI agents: one SQLite file per namespace, customers kept apart."""

# A constant: asking importlib.metadata takes a tenth of the time a start takes.
__version__ = "0.1.0"
