"""Damaged photographs by the thousand: each ends in a picture or in a named reason."""
