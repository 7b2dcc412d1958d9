// Reads memory with several threads, each a part; peers/reading.py compiles it and calls it from Python.
#include "units/reading.h"

#include <thread>
#include <vector>

using namespace moembed::limits;

extern "C" uint64_t read_parts(const uint8_t* memory, size_t bytes, size_t threads, size_t way) {
    const size_t part = bytes / threads / 256 * 256;
    std::vector<uint64_t> sums(threads);
    std::vector<std::thread> others;
    for (size_t i = 1; i < threads; ++i)
        others.emplace_back([&, i] { sums[i] = read_memory(memory + i * part, part, kAhead[way]); });
    sums[0] = read_memory(memory, part, kAhead[way]);
    for (auto& thread : others) thread.join();
    uint64_t all = 0;
    for (const uint64_t sum : sums) all += sum;
    return all;
}

extern "C" int ways() { return kWays; }
