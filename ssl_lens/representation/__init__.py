"""All that is known of a frozen backbone."""
