"""The server: one process that speaks the embedding APIs of OpenAI, Text Embeddings Inference, Cohere and Ollama.

`moembed serve` runs it; `moembed.server.app.create_app` gives the ASGI application. It needs the extra `serve`.

A request goes through these modules: `paths` (the path that is meant), `middleware` (hosts, keys, figures, logs), `operations`
(one row for each endpoint: body in, reply out), an API's own module (`openai`, `tei`, `cohere`, `ollama`: its types, its words
for errors), `engine` (model name, task, tokens), `scheduler` (one thread that runs calls of many requests' texts, taken fairly
from `queue`).
"""
