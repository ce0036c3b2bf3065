"""The HTTP edge: one route file per noun; parses, asks the services, and tells the answer."""
