"""The command line: one file per command, each imported when it is asked for.

Exit codes: 0 good, 1 failed, 2 wrong use.
"""
