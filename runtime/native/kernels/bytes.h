// What every kernel includes. Kernels for one instruction set are compiled with flags of their own, so nothing here may be
// a template or inline function of the C++ library: the linker keeps one copy of those, perhaps one that does not run here.
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

inline int32_t load_int(const uint8_t* p) {
    int32_t x;
    std::memcpy(&x, p, 4);
    return x;
}

}  // namespace
}  // namespace moembed
