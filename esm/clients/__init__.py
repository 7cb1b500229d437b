"""Sessions, logins and limits of vendors, shared by all mappings; vendor errors become ours here, in one place each."""
