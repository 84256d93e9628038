"""One simulated strong lens: what may be drawn, how light is bent, and what a telescope makes of it."""
