"""A trained generator colors photographs of any size."""
