// A tile of dot products with AVX512-VNNI: one instruction multiplies
// four quantized values with four weights of each of sixteen columns.
#pragma once

#include <immintrin.h>

#include "common.h"

namespace moembed {
namespace {

// For R rows and B blocks of sixteen columns; Stride is the distance of rows in `out`, and `block` that of blocks in
// `weight`. Every row starts with the same sums.
template <int R, int B, int Stride>
inline void vnni_tile(const uint8_t* quantized, size_t stride, const int8_t* weight, size_t block, size_t depth,
                      const int32_t* start, int32_t* out) {
    __m512i sums[R][B];
    MOEMBED_UNROLL
    for (int r = 0; r < R; ++r) {
        MOEMBED_UNROLL
        for (int b = 0; b < B; ++b) sums[r][b] = _mm512_loadu_si512(start + 16 * b);
    }
    for (size_t k = 0; k < depth; ++k) {
        __m512i w[B];
        MOEMBED_UNROLL
        for (int b = 0; b < B; ++b) w[b] = _mm512_loadu_si512(weight + b * block + k * 64);
        MOEMBED_UNROLL
        for (int r = 0; r < R; ++r) {
            const __m512i q = _mm512_set1_epi32(load_int(quantized + r * stride + 4 * k));
            MOEMBED_UNROLL
            for (int b = 0; b < B; ++b) sums[r][b] = _mm512_dpbusd_epi32(sums[r][b], q, w[b]);
        }
    }
    MOEMBED_UNROLL
    for (int r = 0; r < R; ++r) {
        MOEMBED_UNROLL
        for (int b = 0; b < B; ++b) _mm512_storeu_si512(out + r * Stride + 16 * b, sums[r][b]);
    }
}

}  // namespace
}  // namespace moembed
