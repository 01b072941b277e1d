"""Photographs in, gray/color WebDataset shards out. Never imports torch."""
