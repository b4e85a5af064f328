"""When work that nobody asks for is done, and by which of several processes. Never what."""
