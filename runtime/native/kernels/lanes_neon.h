// Sixteen floats in four NEON registers.
#pragma once

#include <arm_neon.h>

#include "common.h"

namespace moembed {
namespace {

struct Lanes {
    float32x4_t v[4];
};

template <class F>
inline Lanes each(F f) {
    return {{f(0), f(1), f(2), f(3)}};
}

inline Lanes load(const float* p) {
    return each([&](int i) { return vld1q_f32(p + 4 * i); });
}
inline void store(float* p, Lanes x) {
    for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, x.v[i]);
}
inline Lanes fill(float x) {
    return each([&](int) { return vdupq_n_f32(x); });
}
inline Lanes operator+(Lanes a, Lanes b) {
    return each([&](int i) { return vaddq_f32(a.v[i], b.v[i]); });
}
inline Lanes operator-(Lanes a, Lanes b) {
    return each([&](int i) { return vsubq_f32(a.v[i], b.v[i]); });
}
inline Lanes operator*(Lanes a, Lanes b) {
    return each([&](int i) { return vmulq_f32(a.v[i], b.v[i]); });
}
inline Lanes operator/(Lanes a, Lanes b) {
    return each([&](int i) { return vdivq_f32(a.v[i], b.v[i]); });
}
inline Lanes fma(Lanes a, Lanes b, Lanes c) {
    return each([&](int i) { return vfmaq_f32(c.v[i], a.v[i], b.v[i]); });
}
// As on x86: the second operand where one is NaN.
inline Lanes larger(Lanes a, Lanes b) {
    return each([&](int i) { return vbslq_f32(vcgtq_f32(a.v[i], b.v[i]), a.v[i], b.v[i]); });
}
inline Lanes smaller(Lanes a, Lanes b) {
    return each([&](int i) { return vbslq_f32(vcltq_f32(a.v[i], b.v[i]), a.v[i], b.v[i]); });
}
// x within -most and most, which is positive.
inline Lanes limited(Lanes x, float most) { return larger(smaller(x, fill(most)), fill(-most)); }
inline Lanes absolute(Lanes a) {
    return each([&](int i) { return vabsq_f32(a.v[i]); });
}
inline Lanes from_ints(const int32_t* p) {
    return each([&](int i) { return vcvtq_f32_s32(vld1q_s32(p + 4 * i)); });
}
// 256 * high + low of sixteen pairs, rounded once: of sums that 32 bits hold, or of any.
inline Lanes joined(const int32_t* high, const int32_t* low) {
    return each([&](int i) {
        return vcvtq_f32_s32(vaddq_s32(vshlq_n_s32(vld1q_s32(high + 4 * i), 8), vld1q_s32(low + 4 * i)));
    });
}
inline Lanes joined_wide(const int32_t* high, const int32_t* low) {
    return each([&](int i) {
        const int32x4_t h = vld1q_s32(high + 4 * i), l = vld1q_s32(low + 4 * i);
        const int64x2_t first = vaddw_s32(vshll_n_s32(vget_low_s32(h), 8), vget_low_s32(l));
        const int64x2_t last = vaddw_s32(vshll_n_s32(vget_high_s32(h), 8), vget_high_s32(l));
        return vcombine_f32(vcvt_f32_f64(vcvtq_f64_s64(first)), vcvt_f32_f64(vcvtq_f64_s64(last)));
    });
}
inline Lanes from_bytes(const int8_t* p) {
    const int8x16_t x = vld1q_s8(p);
    const int16x8_t low = vmovl_s8(vget_low_s8(x)), high = vmovl_s8(vget_high_s8(x));
    return {{vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(low))),
             vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(high)))}};
}

// Rounds to float16, to nearest even, also in a mode that flushes subnormals to 0.
inline void store_halves(uint16_t* p, Lanes x) {
    for (int i = 0; i < 4; ++i) vst1_u16(p + 4 * i, vreinterpret_u16_f16(vcvt_f16_f32(x.v[i])));
}
inline Lanes load_halves(const uint16_t* p) {
    return each([&](int i) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + 4 * i))); });
}

// x * 2^n, where t = n + 1.5 * 2^23, so that the low bits of t are those of n.
inline Lanes times_power(Lanes x, Lanes t) {
    return each([&](int i) {
        const int32x4_t n = vshlq_n_s32(vreinterpretq_s32_f32(t.v[i]), 23);
        return vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(x.v[i]), n));
    });
}

// The lanes are combined pairwise, each with the one half as many lanes further on: in the same order on every processor.
inline float sum_of(Lanes x) {
    const float32x4_t y = vaddq_f32(vaddq_f32(x.v[0], x.v[2]), vaddq_f32(x.v[1], x.v[3]));
    const float32x2_t z = vadd_f32(vget_low_f32(y), vget_high_f32(y));
    return vget_lane_f32(z, 0) + vget_lane_f32(z, 1);
}
inline float max_of(Lanes x) { return vmaxvq_f32(vmaxq_f32(vmaxq_f32(x.v[0], x.v[1]), vmaxq_f32(x.v[2], x.v[3]))); }

// The low words of lanes 8 * i to 8 * i + 7.
inline uint16x8_t low_words(Lanes x, int i) {
    return vcombine_u16(vmovn_u32(vreinterpretq_u32_f32(x.v[2 * i])), vmovn_u32(vreinterpretq_u32_f32(x.v[2 * i + 1])));
}

// Stores the low byte of each lane's bits: of a lane n + 1.5 * 2^23, the low byte of the integer n.
inline void store_low_bytes(uint8_t* p, Lanes x) {
    vst1q_u8(p, vcombine_u8(vmovn_u16(low_words(x, 0)), vmovn_u16(low_words(x, 1))));
}

// Stores the low byte of each lane's bits, and the next one.
inline void store_two_bytes(uint8_t* low, uint8_t* high, Lanes x) {
    store_low_bytes(low, x);
    vst1q_u8(high, vcombine_u8(vshrn_n_u16(low_words(x, 0), 8), vshrn_n_u16(low_words(x, 1), 8)));
}

// out[64 * i + 4 * r + k] = rows[r][4 * i + k] for i, r, k < 4.
inline void transpose_fours(const uint8_t* const rows[4], uint8_t* out) {
    uint32x4_t x[4];
    for (int r = 0; r < 4; ++r) x[r] = vreinterpretq_u32_u8(vld1q_u8(rows[r]));
    const uint32x4x2_t ab = vzipq_u32(x[0], x[1]), cd = vzipq_u32(x[2], x[3]);
    for (int i = 0; i < 2; ++i) {
        const uint32x4_t first = vcombine_u32(vget_low_u32(ab.val[i]), vget_low_u32(cd.val[i]));
        const uint32x4_t second = vcombine_u32(vget_high_u32(ab.val[i]), vget_high_u32(cd.val[i]));
        vst1q_u8(out + 128 * i, vreinterpretq_u8_u32(first));
        vst1q_u8(out + 128 * i + 64, vreinterpretq_u8_u32(second));
    }
}

// out[4 * i + r] = rows[r][i] for i < 16 and r < 4.
inline void interleave(const uint8_t* const rows[4], uint8_t* out) {
    const uint8x16x4_t all = {{vld1q_u8(rows[0]), vld1q_u8(rows[1]), vld1q_u8(rows[2]), vld1q_u8(rows[3])}};
    vst4q_u8(out, all);  // a macro in clang, whose argument may not be a list
}

constexpr int kFloatRows = 4;
constexpr int kFloatBlocks = 1;

}  // namespace
}  // namespace moembed
