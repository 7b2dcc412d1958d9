// Reading of memory as kernels read weights: a word of every line, with software that fetches so many bytes ahead.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace moembed::limits {

constexpr size_t kAhead[] = {0, 1024, 4096};  // bytes
constexpr int kWays = sizeof kAhead / sizeof *kAhead;

// Returns something that depends on what was read.
static inline uint64_t read_memory(const uint8_t* begin, size_t bytes, size_t ahead) {
    uint64_t sums[4] = {};
    for (size_t at = 0; at + 256 <= bytes; at += 256) {
        for (size_t i = 0; i < 4; ++i) {
            const uint8_t* line = begin + at + 64 * i;
            if (ahead && at + ahead < bytes) __builtin_prefetch(line + ahead, 0, 2);
            uint64_t word;
            std::memcpy(&word, line, sizeof word);
            sums[i] += word;
        }
    }
    return sums[0] + sums[1] + sums[2] + sums[3];
}

}  // namespace moembed::limits
