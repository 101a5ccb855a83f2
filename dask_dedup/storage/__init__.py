"""Files that we write and read back, on a disk or in an object store: whole, or absent."""
