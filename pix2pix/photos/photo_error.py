"""The one exception for a photograph that cannot be used."""


class PhotoError(ValueError):
    """A photograph that cannot be used.

    Attributes:
        reason: a short code to count by, such as unreadable, empty_file, not_an_image,
            too_many_pixels, truncated, undecodable; data preparation adds its own.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type["PhotoError"], tuple[str, str]]:
        return PhotoError, (self.reason, str(self))
