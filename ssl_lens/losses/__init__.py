"""The view-level (DINO) and region-level (EsViT) losses."""
