"""The one exception a user is meant to read."""


class UserError(Exception):
    """Something the user can mend: one clear sentence naming the file, row or key and the mend.

    The binaries print the sentence alone (no traceback unless `--debug`) and exit with code 2.
    """
