"""Joined writes: one system call for the head and the body of a response."""

import asyncio

from moembed.server.process.joined_writes import JoinedWrites


class Recorder(asyncio.Transport):
    """Transport that keeps what is written."""

    def __init__(self):
        super().__init__()
        self.written = []

    def write(self, data):
        self.written.append(bytes(data))

    def close(self):
        self.written.append("closed")

    def is_closing(self):
        return "closed" in self.written

    def get_write_buffer_size(self):
        return 5


def joined(scenario):
    async def main():
        recorder = Recorder()
        await scenario(JoinedWrites(recorder, asyncio.get_running_loop()), recorder)
        return recorder.written

    return asyncio.run(main())


def test_writes_of_one_pass_are_one():
    async def scenario(transport, recorder):
        transport.write(b"head ")
        transport.write(b"body")
        assert recorder.written == []
        assert transport.get_write_buffer_size() == 5 + 9
        await asyncio.sleep(0)
        assert recorder.written == [b"head body"]
        assert transport.get_write_buffer_size() == 5
        transport.write(b"next")
        await asyncio.sleep(0)

    assert joined(scenario) == [b"head body", b"next"]


def test_close_sends_what_is_held_back():
    async def scenario(transport, _):
        transport.write(b"last")
        transport.close()
        assert transport.is_closing()
        await asyncio.sleep(0)

    assert joined(scenario) == [b"last", "closed"]


def test_much_data_is_not_held_back():
    async def scenario(transport, recorder):
        transport.write(b"head")
        transport.write(bytes(100_000))
        assert [len(part) for part in recorder.written] == [100_004]
        transport.write(b"tail")
        await asyncio.sleep(0)

    assert [len(part) for part in joined(scenario)] == [100_004, 4]
