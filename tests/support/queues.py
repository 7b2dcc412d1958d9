"""Scheduler with a model that doubles numbers."""

import asyncio
import time

import numpy as np

from moembed.server.engine.scheduler import Scheduler


class Silent:
    def queued(self, tokens, texts):
        self.last = (tokens, texts)

    def dropped(self, tokens, texts):
        pass

    def called(self, texts, tokens, seconds, waits):
        self.calls = [*getattr(self, "calls", []), texts]


def doubled(seconds=0.0):
    def run(lane, output, rows):
        time.sleep(seconds)
        return np.array([[2.0 * row[0]] for row in rows], np.float32)

    return run


def rows(*values, size=10):
    return [np.full(size, value, np.int32) for value in values]


def scheduled(run, scenario, **limits):
    async def main():
        observer = Silent()
        options = {"call_tokens": 1024, "queue_tokens": 10_000, "queue_texts": 1000} | limits
        scheduler = Scheduler(run, observer=observer, **options)
        try:
            return await asyncio.wait_for(scenario(scheduler, observer), 20)
        finally:
            await scheduler.close()

    return asyncio.run(main())
