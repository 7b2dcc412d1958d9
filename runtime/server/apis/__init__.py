"""The HTTP APIs that the server speaks, and what every one of them is made of."""
