"""From raw pixels to the network's input."""
