"""Photographs in, gray/colour WebDataset shards out. Never imports torch."""
