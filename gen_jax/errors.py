"""One exception for everything the user can mend."""


class InputError(ValueError):
    """Bad input: one line naming the field, file or flag and what would be right.

    The door (`launch.py`) prints the message and exits with status 2; nothing else catches it.
    """
