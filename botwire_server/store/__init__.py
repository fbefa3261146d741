"""Storage: SQLite files and who may open them. No web framework in here, no status codes."""
