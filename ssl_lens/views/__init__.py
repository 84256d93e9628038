"""Crops of a batch of images, made on the device."""
