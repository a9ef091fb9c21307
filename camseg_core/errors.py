"""The project's own errors. Each says what must hold, what was found, where, and what to do."""


class CamSegError(Exception):
    """Base of the errors that the project raises on purpose; the text can be shown to a user."""


class ModelError(CamSegError):
    """A checkpoint folder is missing, incomplete, damaged, or lacks what is asked for."""


class ImageError(CamSegError):
    """An image (array, file or message) cannot be read."""


class DataError(CamSegError):
    """A data set or bag is missing, empty or inconsistent."""


class ConfigError(CamSegError):
    """An option or parameter has a value that does not fit."""
