"""A request and its response, from the first byte to the end of its record, for all formats, streamed or not."""
