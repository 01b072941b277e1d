"""Shards, order, batches, and the stream of them."""
