"""What a frozen backbone learned, measured with few labels."""
