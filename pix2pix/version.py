"""The version of the package, written to run directories, exports and reports."""

__version__ = "0.1.0"
