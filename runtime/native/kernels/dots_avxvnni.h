// Dots with AVX-VNNI: as AVX512-VNNI, eight columns at a time.
#pragma once

#include <immintrin.h>

#include "bytes.h"
#include "rows_of.h"

namespace moembed {
namespace {

constexpr int kRows = 6;
constexpr int kBlocks = 2;
constexpr int kZero = 0;

template <int R>
inline void vnni_tile(const uint8_t* codes, size_t stride, const int8_t* weight, size_t depth, const int32_t* start,
                      int32_t* out) {
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
            const __m256i c = _mm256_set1_epi32(load_int(codes + r * stride + 4 * k));
            sums[r][0] = _mm256_dpbusd_avx_epi32(sums[r][0], c, left);
            sums[r][1] = _mm256_dpbusd_avx_epi32(sums[r][1], c, right);
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
    void operator()(const uint8_t* codes, size_t stride, int rows, const int8_t* weight, size_t depth, int blocks,
                    const int32_t* start, int32_t* out) {
        rows_of<kRows>(rows, [&](auto r) {
            for (int b = 0; b < blocks; ++b) {
                vnni_tile<decltype(r)::value>(codes, stride, weight + b * depth * 64, depth, start + 16 * b,
                                              out + 16 * b);
            }
        });
    }
};

}  // namespace
}  // namespace moembed
