// Offsets of arrays in scratch memory.
#pragma once

#include "common.h"

namespace moembed {
namespace {

// Base of a layout whose members are offsets in bytes; each begins at a cache line.
struct Layout {
    size_t all = 0;  // bytes

protected:
    size_t take(size_t bytes) {
        const size_t at = all;
        all += (bytes + 63) / 64 * 64;
        return at;
    }
};

}  // namespace
}  // namespace moembed
