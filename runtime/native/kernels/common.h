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

// Of what is called between the products of tiles, so that its constants stay in registers.
#if defined(_MSC_VER) && !defined(__clang__)
#define MOEMBED_INLINE __forceinline
#else
#define MOEMBED_INLINE __attribute__((always_inline)) inline
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

// Converts a float16. Subnormals are converted as integers, so that a mode that flushes them to 0 has no effect.
inline float from_half(uint16_t half) {
    const uint32_t sign = (half & 0x8000u) << 16, magnitude = half & 0x7fffu;
    if (magnitude < 0x400) return (sign ? -1.0f : 1.0f) * static_cast<float>(magnitude) * 5.9604644775390625e-8f;
    const uint32_t bits = sign | ((magnitude << 13) + (magnitude < 0x7c00 ? 0x38000000u : 0x70000000u));
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

}  // namespace
}  // namespace moembed
