"""Bodies of the commands; imported when a command runs, never for ``--help``."""
