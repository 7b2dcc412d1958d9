// Random numbers that are the same on every machine.
#pragma once

#include <cstddef>
#include <cstdint>

namespace moembed {

struct Random {
    uint64_t state;
    uint32_t next() {
        state = state * 6364136223846793005u + 1442695040888963407u;
        return static_cast<uint32_t>(state >> 33);
    }
    size_t below(size_t n) { return next() % n; }
    float real() { return (static_cast<float>(next()) / 1073741824.0f - 1.0f) * 2.0f; }
};

}  // namespace moembed
