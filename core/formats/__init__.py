"""File formats, reader and writer of one format in one file."""
