"""The HTTP side: credentials in, one unit of work, a dialect's shape out."""
