"""What is checked, and what runs it."""
