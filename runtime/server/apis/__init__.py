"""HTTP APIs of the server, and the types they are described with."""
