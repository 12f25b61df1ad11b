"""The errors that a user can fix; everything else is a fault of the program."""


class UserError(ValueError):
    """Something that the user of a command can fix: a file, a setting, a flag, an order of commands.

    The message says what is wrong, what was found, and which command to run next. A command prints this error as one
    message and ends with `exit_status`; every other exception keeps its traceback and ends the command with 1.
    """

    exit_status = 2
    """Of the command that ends with this error. The queue reads it: 2 is not tried again."""
