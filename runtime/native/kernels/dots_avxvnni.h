// Dot products with AVX-VNNI: as with AVX512-VNNI, but eight columns at a time.
#pragma once

#include <immintrin.h>

#include "row_count.h"
#include "rows_in_place.h"

namespace moembed {
namespace {

constexpr int kRows = 6;
constexpr int kBlocks = 2;
constexpr size_t kTaskRows = 96;
constexpr int kDotsZeroPoint = 0;

template <int R>
inline void vnni256_tile(const uint8_t* quantized, size_t stride, const int8_t* weight, size_t depth,
                         const int32_t* start, int32_t* out) {
    __m256i sums[R][2];
    MOEMBED_UNROLL
    for (int r = 0; r < R; ++r) {
        MOEMBED_UNROLL
        for (int h = 0; h < 2; ++h) sums[r][h] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(start + 8 * h));
    }
    for (size_t k = 0; k < depth; ++k) {
        const __m256i* w = reinterpret_cast<const __m256i*>(weight + k * 64);
        const __m256i left = _mm256_loadu_si256(w), right = _mm256_loadu_si256(w + 1);
        MOEMBED_UNROLL
        for (int r = 0; r < R; ++r) {
            const __m256i q = _mm256_set1_epi32(load_int(quantized + r * stride + 4 * k));
            sums[r][0] = _mm256_dpbusd_avx_epi32(sums[r][0], q, left);
            sums[r][1] = _mm256_dpbusd_avx_epi32(sums[r][1], q, right);
        }
    }
    MOEMBED_UNROLL
    for (int r = 0; r < R; ++r) {
        MOEMBED_UNROLL
        for (int h = 0; h < 2; ++h)
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + r * 16 * kBlocks + 8 * h), sums[r][h]);
    }
}

struct Tile {
    static void compute(const uint8_t* quantized, size_t stride, int rows, const int8_t* weight, size_t depth,
                        int blocks, const int32_t* start, int32_t* out) {
        with_row_count<kRows>(rows, [&](auto r) {
            for (int b = 0; b < blocks; ++b) {
                vnni256_tile<decltype(r)::value>(quantized, stride, weight + b * depth * 64, depth, start + 16 * b,
                                                 out + 16 * b);
            }
        });
    }
};

using Dots = DotsInPlace<Tile, kRows>;

}  // namespace
}  // namespace moembed
