"""Connections: bytes become requests, and answers become bytes."""
