"""Self-hosted memory for AI agents: one SQLite file per namespace, customers kept apart."""

from importlib.metadata import version

__version__ = version("botwire-server")
