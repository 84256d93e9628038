"""What is in a set, and whether training would take it."""
