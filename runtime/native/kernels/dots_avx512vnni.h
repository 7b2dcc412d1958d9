// Dots with AVX512-VNNI: one instruction multiplies four codes with four weights of each of sixteen columns.
#pragma once

#include <immintrin.h>

#include "bytes.h"
#include "rows_of.h"

namespace moembed {
namespace {

#ifndef MOEMBED_DOTS_AMX
// 24 sums, three weights and a code in 32 registers; 11 loads for 24 products, where 12 rows of two blocks need 14 and wait.
constexpr int kRows = 8;
constexpr int kBlocks = 3;
constexpr int kZero = 0;
#endif

template <int R, int B>
inline void vnni_tile(const uint8_t* codes, size_t stride, const int8_t* weight, size_t block, size_t depth,
                      const int32_t* start, size_t start_stride, int32_t* out) {
    __m512i sums[R][B];
    MOEMBED_UNROLL
    for (int r = 0; r < R; ++r) {
        MOEMBED_UNROLL
        for (int b = 0; b < B; ++b) sums[r][b] = _mm512_loadu_si512(start + r * start_stride + 16 * b);
    }
    for (size_t k = 0; k < depth; ++k) {
        __m512i w[B];
        MOEMBED_UNROLL
        for (int b = 0; b < B; ++b) w[b] = _mm512_loadu_si512(weight + b * block + k * 64);
        MOEMBED_UNROLL
        for (int r = 0; r < R; ++r) {
            const __m512i c = _mm512_set1_epi32(load_int(codes + r * stride + 4 * k));
            MOEMBED_UNROLL
            for (int b = 0; b < B; ++b) sums[r][b] = _mm512_dpbusd_epi32(sums[r][b], c, w[b]);
        }
    }
    MOEMBED_UNROLL
    for (int r = 0; r < R; ++r) {
        MOEMBED_UNROLL
        for (int b = 0; b < B; ++b) _mm512_storeu_si512(out + r * 16 * kBlocks + 16 * b, sums[r][b]);
    }
}

#ifndef MOEMBED_DOTS_AMX
struct Dots {
    void operator()(const uint8_t* codes, size_t stride, int rows, const int8_t* weight, size_t depth, int blocks,
                    const int32_t* start, int32_t* out) {
        rows_of<kRows>(rows, [&](auto r) {
            constexpr int kR = decltype(r)::value;
            (blocks == 3   ? vnni_tile<kR, 3>
             : blocks == 2 ? vnni_tile<kR, 2>
                           : vnni_tile<kR, 1>)(codes, stride, weight, depth * 64, depth, start, 0, out);
        });
    }
};
#endif

}  // namespace
}  // namespace moembed
