"""Reading, checking, splitting and simulating lens images."""
