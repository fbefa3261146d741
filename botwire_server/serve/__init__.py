"""The server as a process: its sockets, its words, and what it tells who started it."""
