// Dot products with AVX2. The instruction for bytes, `vpmaddubsw`, adds pairs of products in 16 bits, where they may
// saturate. So even and odd bytes are widened separately, and `vpmaddwd` adds their products in 32 bits.
#pragma once

#include <immintrin.h>

#include "common.h"
#include "row_count.h"

namespace moembed {
namespace {

constexpr int kRows = 4;
constexpr int kBlocks = 2;
constexpr int kDotsZeroPoint = 0;

template <int R>
inline void madd_tile(const uint8_t* quantized, size_t stride, const int8_t* weight, size_t depth, const int32_t* start,
                      int32_t* out) {
    __m256i sums[R][2];
    MOEMBED_UNROLL
    for (int r = 0; r < R; ++r) {
        MOEMBED_UNROLL
        for (int h = 0; h < 2; ++h) sums[r][h] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(start + 8 * h));
    }
    const __m256i low = _mm256_set1_epi16(0xff);
    for (size_t k = 0; k < depth; ++k) {
        __m256i even[2], odd[2];
        MOEMBED_UNROLL
        for (int h = 0; h < 2; ++h) {
            const __m256i w = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(weight + k * 64 + 32 * h));
            even[h] = _mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8);
            odd[h] = _mm256_srai_epi16(w, 8);
        }
        MOEMBED_UNROLL
        for (int r = 0; r < R; ++r) {
            const __m256i q = _mm256_set1_epi32(load_int(quantized + r * stride + 4 * k));
            const __m256i q_even = _mm256_and_si256(q, low), q_odd = _mm256_srli_epi16(q, 8);
            MOEMBED_UNROLL
            for (int h = 0; h < 2; ++h) {
                const __m256i pair =
                    _mm256_add_epi32(_mm256_madd_epi16(q_even, even[h]), _mm256_madd_epi16(q_odd, odd[h]));
                sums[r][h] = _mm256_add_epi32(sums[r][h], pair);
            }
        }
    }
    MOEMBED_UNROLL
    for (int r = 0; r < R; ++r) {
        MOEMBED_UNROLL
        for (int h = 0; h < 2; ++h)
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + r * 16 * kBlocks + 8 * h), sums[r][h]);
    }
}

struct Dots {
    void operator()(const uint8_t* quantized, size_t stride, int rows, const int8_t* weight, size_t depth, int blocks,
                    const int32_t* start, int32_t* out) {
        with_row_count<kRows>(rows, [&](auto r) {
            for (int b = 0; b < blocks; ++b) {
                madd_tile<decltype(r)::value>(quantized, stride, weight + b * depth * 64, depth, start + 16 * b,
                                              out + 16 * b);
            }
        });
    }
};

}  // namespace
}  // namespace moembed
