"""`python -m botwire_server` is the `botwire-server` command."""

from botwire_server.cli import main

main()
