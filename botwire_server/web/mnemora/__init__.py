"""The Mnemora v1 dialect."""
