// Dots with NEON's dot product, of signed bytes or, with i8mm, of unsigned codes and signed weights.
#pragma once

#include <arm_neon.h>

#include "bytes.h"
#include "rows_of.h"

namespace moembed {
namespace {

constexpr int kRows = 4;  // sixteen sums of 32 registers
constexpr int kBlocks = 2;

#if defined(__ARM_FEATURE_MATMUL_INT8)
constexpr int kZero = 0;
inline int32x4_t dot(int32x4_t sum, uint8x16_t codes, int8x16_t weights) { return vusdotq_s32(sum, codes, weights); }
inline uint8x16_t broadcast(const uint8_t* p) { return vreinterpretq_u8_s32(vdupq_n_s32(load_int(p))); }
#else
constexpr int kZero = 128;  // what is taken from a code to make it signed
inline int32x4_t dot(int32x4_t sum, int8x16_t codes, int8x16_t weights) { return vdotq_s32(sum, codes, weights); }
inline int8x16_t broadcast(const uint8_t* p) {
    return vreinterpretq_s8_u8(veorq_u8(vreinterpretq_u8_s32(vdupq_n_s32(load_int(p))), vdupq_n_u8(128)));
}
#endif

template <int R>
inline void dot_tile(const uint8_t* codes, size_t stride, const int8_t* weight, size_t depth, const int32_t* start,
                     int32_t* out) {
    int32x4_t sums[R][4];
    MOEMBED_UNROLL
    for (int r = 0; r < R; ++r) {
        MOEMBED_UNROLL
        for (int q = 0; q < 4; ++q) sums[r][q] = vld1q_s32(start + 4 * q);
    }
    for (size_t k = 0; k < depth; ++k) {
        int8x16_t w[4];
        MOEMBED_UNROLL
        for (int q = 0; q < 4; ++q) w[q] = vld1q_s8(weight + k * 64 + 16 * q);
        MOEMBED_UNROLL
        for (int r = 0; r < R; ++r) {
            const auto c = broadcast(codes + r * stride + 4 * k);
            MOEMBED_UNROLL
            for (int q = 0; q < 4; ++q) sums[r][q] = dot(sums[r][q], c, w[q]);
        }
    }
    MOEMBED_UNROLL
    for (int r = 0; r < R; ++r) {
        MOEMBED_UNROLL
        for (int q = 0; q < 4; ++q) vst1q_s32(out + r * 16 * kBlocks + 4 * q, sums[r][q]);
    }
}

struct Dots {
    void operator()(const uint8_t* codes, size_t stride, int rows, const int8_t* weight, size_t depth, int blocks,
                    const int32_t* start, int32_t* out) {
        rows_of<kRows>(rows, [&](auto r) {
            for (int b = 0; b < blocks; ++b) {
                dot_tile<decltype(r)::value>(codes, stride, weight + b * depth * 64, depth, start + 16 * b,
                                             out + 16 * b);
            }
        });
    }
};

}  // namespace
}  // namespace moembed
