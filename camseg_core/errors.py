"""The project's own errors: each says what was wrong, where, and what to do."""


class CamSegError(Exception):
    """Base of every error that the project raises on purpose; its text is fit to show a user on one line."""


class ModelError(CamSegError):
    """A checkpoint folder is missing, incomplete, damaged, or asks for something that is not there."""


class ImageError(CamSegError):
    """An image (array, file or message) cannot be read as the picture it claims to be."""


class DataError(CamSegError):
    """A data set or bag is missing, empty or inconsistent."""


class ConfigError(CamSegError):
    """An option or parameter has a value that does not fit."""
