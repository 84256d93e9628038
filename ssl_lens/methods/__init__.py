"""Self-supervised methods: what is learned, and by which losses."""
