"""The one error class for what a user can fix."""


class UserError(ValueError):
    """Something that the user of a command can fix: a file, a setting, a flag, an order of commands.

    The message says what is wrong, what was found, and which command to run next. A command prints this error as one
    message and exits with 2; every other exception is a fault of the program and keeps its traceback.
    """
