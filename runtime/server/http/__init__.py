"""What stands between a socket and an endpoint: hosts, keys, paths, bodies and answers."""
