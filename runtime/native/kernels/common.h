// Included by every kernel. Each instruction set is compiled with its own flags, so kernels must not use templates or
// inline functions of the C++ library: the linker keeps one copy of each, which may contain instructions that this CPU
// does not support. Everything in these headers has internal linkage for the same reason.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__clang__)
#define MOEMBED_UNROLL _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define MOEMBED_UNROLL _Pragma("GCC unroll 16")
#else
#define MOEMBED_UNROLL
#endif

namespace moembed {
namespace {

// 1.5 * 2^23: a float below 2^22 that is added to it loses its fraction, rounded to even.
constexpr float kRound = 12582912.0f;

inline int32_t load_int(const uint8_t* p) {
    int32_t x;
    std::memcpy(&x, p, 4);
    return x;
}

}  // namespace
}  // namespace moembed
