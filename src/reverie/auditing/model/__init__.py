"""What the model itself tells about its training rows."""
