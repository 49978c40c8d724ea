"""The exceptions that users see."""


class UserError(Exception):
    """Something a user can mend. The message is one line that names the value and the fix."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class WriteError(UserError):
    """A file cannot be written: the disk is full, or nothing may be written there."""
