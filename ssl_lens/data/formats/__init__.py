"""Files of lens images, one module per format: `reading` finds the right one and is what others import."""
