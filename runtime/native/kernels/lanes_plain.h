// Sixteen floats in plain C++, for any processor. The other lanes compute the same bytes.
#pragma once

#include <math.h>

#include "common.h"

namespace moembed {
namespace {

struct Lanes {
    float v[16];
};

template <class F>
inline Lanes each(F f) {
    Lanes y;
    for (int i = 0; i < 16; ++i) y.v[i] = f(i);
    return y;
}

inline Lanes load(const float* p) {
    Lanes y;
    std::memcpy(y.v, p, sizeof y.v);
    return y;
}
inline void store(float* p, Lanes x) { std::memcpy(p, x.v, sizeof x.v); }
inline Lanes fill(float x) {
    return each([&](int) { return x; });
}
inline Lanes operator+(Lanes a, Lanes b) {
    return each([&](int i) { return a.v[i] + b.v[i]; });
}
inline Lanes operator-(Lanes a, Lanes b) {
    return each([&](int i) { return a.v[i] - b.v[i]; });
}
inline Lanes operator*(Lanes a, Lanes b) {
    return each([&](int i) { return a.v[i] * b.v[i]; });
}
inline Lanes operator/(Lanes a, Lanes b) {
    return each([&](int i) { return a.v[i] / b.v[i]; });
}
inline Lanes fma(Lanes a, Lanes b, Lanes c) {
    return each([&](int i) { return fmaf(a.v[i], b.v[i], c.v[i]); });
}
inline Lanes larger(Lanes a, Lanes b) {
    return each([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
inline Lanes smaller(Lanes a, Lanes b) {
    return each([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}
// x within -most and most, which is positive.
inline Lanes limited(Lanes x, float most) { return larger(smaller(x, fill(most)), fill(-most)); }
inline Lanes absolute(Lanes a) {
    return each([&](int i) { return fabsf(a.v[i]); });
}
inline Lanes from_ints(const int32_t* p) {
    return each([&](int i) { return static_cast<float>(p[i]); });
}
// 256 * high + low of sixteen pairs, rounded once: of sums that 32 bits hold, or of any.
inline Lanes joined(const int32_t* high, const int32_t* low) {
    return each([&](int i) { return static_cast<float>(256 * high[i] + low[i]); });
}
inline Lanes joined_wide(const int32_t* high, const int32_t* low) {
    return each([&](int i) { return static_cast<float>(int64_t{256} * high[i] + low[i]); });
}
inline Lanes from_bytes(const int8_t* p) {
    return each([&](int i) { return static_cast<float>(p[i]); });
}

// Rounds to float16, to nearest even, also in a mode that flushes subnormals to 0.
inline uint16_t to_half(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    const uint32_t sign = bits >> 16 & 0x8000u;
    bits &= 0x7fffffffu;
    if (bits < 0x38800000u) {  // below 2^-14, the steps are those of floats from 0.5 on
        const float shifted = fabsf(x) + 0.5f;
        std::memcpy(&bits, &shifted, 4);
        return static_cast<uint16_t>(sign | (bits - 0x3f000000u));
    }
    if (bits > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);   // no number
    if (bits >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // from 65520 on, infinite
    bits += 0xfffu + (bits >> 13 & 1);
    return static_cast<uint16_t>(sign | (bits - 0x38000000u) >> 13);
}
inline void store_halves(uint16_t* p, Lanes x) {
    for (int i = 0; i < 16; ++i) p[i] = to_half(x.v[i]);
}
inline Lanes load_halves(const uint16_t* p) {
    return each([&](int i) { return from_half(p[i]); });
}

// x * 2^n, where t = n + 1.5 * 2^23, so that the low bits of t are those of n.
inline Lanes times_power(Lanes x, Lanes t) {
    return each([&](int i) {
        uint32_t bits, n;
        std::memcpy(&bits, &x.v[i], 4);
        std::memcpy(&n, &t.v[i], 4);
        bits += n << 23;
        float y;
        std::memcpy(&y, &bits, 4);
        return y;
    });
}

// The lanes are combined pairwise, each with the one half as many lanes further on: in the same order on every processor.
template <class F>
inline float reduce(Lanes x, F f) {
    for (int half = 8; half; half /= 2) {
        for (int i = 0; i < half; ++i) x.v[i] = f(x.v[i], x.v[i + half]);
    }
    return x.v[0];
}
inline float sum_of(Lanes x) {
    return reduce(x, [](float a, float b) { return a + b; });
}
inline float max_of(Lanes x) {
    return reduce(x, [](float a, float b) { return a > b ? a : b; });
}

// Stores the low byte of each lane's bits: of a lane n + 1.5 * 2^23, the low byte of the integer n.
inline void store_low_bytes(uint8_t* p, Lanes x) {
    uint32_t bits[16];
    std::memcpy(bits, x.v, sizeof bits);
    for (int i = 0; i < 16; ++i) p[i] = static_cast<uint8_t>(bits[i]);
}

// Stores the low byte of each lane's bits, and the next one.
inline void store_two_bytes(uint8_t* low, uint8_t* high, Lanes x) {
    uint32_t bits[16];
    std::memcpy(bits, x.v, sizeof bits);
    for (int i = 0; i < 16; ++i) {
        low[i] = static_cast<uint8_t>(bits[i]);
        high[i] = static_cast<uint8_t>(bits[i] >> 8);
    }
}

// out[64 * i + 4 * r + k] = rows[r][4 * i + k] for i, r, k < 4.
inline void transpose_fours(const uint8_t* const rows[4], uint8_t* out) {
    for (int i = 0; i < 4; ++i) {
        for (int r = 0; r < 4; ++r) std::memcpy(out + 64 * i + 4 * r, rows[r] + 4 * i, 4);
    }
}

// out[4 * i + r] = rows[r][i] for i < 16 and r < 4.
inline void interleave(const uint8_t* const rows[4], uint8_t* out) {
    for (int i = 0; i < 16; ++i) {
        for (int r = 0; r < 4; ++r) out[4 * i + r] = rows[r][i];
    }
}

constexpr int kFloatRows = 4;
constexpr int kFloatBlocks = 1;

}  // namespace
}  // namespace moembed
