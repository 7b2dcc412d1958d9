"""HTTP server for the embedding APIs of OpenAI, Text Embeddings Inference, Cohere and Ollama.

`moembed serve` runs it; `moembed.server.app.create_app` returns the ASGI application. Requires the extra `serve`.

A request passes through these rooms:

- `process`: uvicorn, worker processes, connections.
- `http`: request id, metrics and log (`ObservabilityMiddleware`); path, hosts, API keys and the limit of concurrent requests
  (`AuthMiddleware`); body in, response out (`handler`).
- `apis`: one module per API, with its request and response types and its error format.
- `engine`: model name and task (`service`, `tasks`), tokens and vectors (`engine`), and one thread that runs the rows of many
  requests in shared model calls (`scheduler`), taken fairly from `queue`.
"""
