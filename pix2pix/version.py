"""The version of the package, told to run directories, exports and reports."""

__version__ = "0.1.0"
