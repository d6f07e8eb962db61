"""One method to a file, found by file: nothing is registered anywhere."""
