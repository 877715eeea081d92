"""Wire formats, one folder each, without I/O: requests read, answers observed, errors written."""
