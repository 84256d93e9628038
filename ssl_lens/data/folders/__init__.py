"""What lies in folders and tables."""
