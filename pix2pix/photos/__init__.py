"""Photographs of any kind in and out, without torch."""
