// Arithmetic on lanes, shared by every instruction set: partial rows, sums in a fixed order, exp, GELU and SiLU.
// Include it after a lanes_*.h.
#pragma once

#include <math.h>

#include "common.h"

namespace moembed {
namespace {

// Loads the first n of sixteen lanes and sets the others to 0.
inline Lanes load(const float* p, size_t n) {
    if (n == 16) return load(p);
    float whole[16] = {};
    std::memcpy(whole, p, n * sizeof(float));
    return load(whole);
}
inline void store(float* p, Lanes x, size_t n) {
    if (n == 16) return store(p, x);
    float whole[16];
    store(whole, x);
    std::memcpy(p, whole, n * sizeof(float));
}
// Keeps the first n of sixteen lanes and sets the others to `rest`.
inline Lanes first(Lanes x, size_t n, float rest = 0) {
    if (n == 16) return x;
    float whole[16];
    store(whole, x);
    for (size_t i = n; i < 16; ++i) whole[i] = rest;
    return load(whole);
}

// Calls f(i, n) for each sixteen floats of a row. n is 16, a constant to the compiler, except for a last partial block.
template <class F>
inline void along(size_t width, F&& f) {
    size_t i = 0;
    for (; i + 16 <= width; i += 16) f(i, size_t{16});
    if (i < width) f(i, width - i);
}

// e^x for x <= 0, within two units in the last place; e^-87 for x below -87.
inline Lanes exp_of(Lanes x) {
    const Lanes round = fill(kRound);
    x = larger(x, fill(-87.0f));
    const Lanes t = fma(x, fill(1.44269504f), round), n = t - round;
    Lanes r = fma(n, fill(-0.693359375f), x);
    r = fma(n, fill(2.12194440e-4f), r);
    Lanes p = fill(0.00139336452f);
    p = fma(p, r, fill(0.00836317667f));
    p = fma(p, r, fill(0.041666465f));
    p = fma(p, r, fill(0.16666577f));
    p = fma(p, r, fill(0.5f));
    p = fma(p, r * r, r) + fill(1.0f);
    return times_power(p, t);
}

// 2^x for x <= 0, within 2e-7 of it; 2^-126 for x below -126.
inline Lanes exp2_of(Lanes x) {
    const Lanes round = fill(kRound);
    x = larger(x, fill(-126.0f));
    const Lanes t = x + round, r = x - (t - round);
    Lanes p = fill(0.0013264727f);
    p = fma(p, r, fill(0.009671513f));
    p = fma(p, r, fill(0.055507336f));
    p = fma(p, r, fill(0.24022242f));
    p = fma(p, r, fill(0.693147f));
    p = fma(p, r, fill(1.0f));
    return times_power(p, t);
}

// GELU, x * (1 + erf(x / sqrt 2)) / 2, divided by 2^Shift. The error is at most 2.6e-5 for |x| < 4.4, and 7e-9 of the value
// above; the least step of a quantized GELU is 5.3e-3. A polynomial in x^2 with the least largest error, which ends where the
// result is x or 0. Terms that are divided by a power of two take no multiplication, and round as the others do.
template <int Shift = 0>
inline Lanes gelu_of(Lanes x) {
    static constexpr float kUnit = 1.0f / (1 << Shift);
    static constexpr float kTerms[] = {0.160404414f * kUnit,   -0.0786123276f * kUnit,  0.0552508049f * kUnit,
                                       -0.0400889628f * kUnit, 0.0268002227f * kUnit,   -0.0159777682f * kUnit,
                                       0.010991781f * kUnit,   -0.00788360462f * kUnit, 0.00275180023f * kUnit};
    const Lanes c = limited(x, 4.4f);
    const Lanes t = fma(c * c, fill(0.10330579f), fill(-1.0f));
    Lanes p = fill(kTerms[8]);
    MOEMBED_UNROLL
    for (int i = 7; i >= 0; --i) p = fma(p, t, fill(kTerms[i]));
    return x * fma(c, p, fill(0.5f * kUnit));
}

// SiLU, x / (1 + e^-x), by powers of numbers that are not positive.
inline Lanes silu_of(Lanes x) {
    const Lanes zero = fill(0.0f);
    return x * (exp_of(smaller(x, zero)) / (exp_of(zero - absolute(x)) + fill(1.0f)));
}

}  // namespace
}  // namespace moembed
