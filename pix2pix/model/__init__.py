"""Networks, losses, color."""
