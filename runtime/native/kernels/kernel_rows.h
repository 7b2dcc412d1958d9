// Kernels that work on whole rows: quantization, LayerNorm after
// an addition or embedding, mixing of experts, and means.
#pragma once

#include "lanes_math.h"
#include "table.h"

namespace moembed {
namespace {

// The largest values, and the least scales, of quantized rows; quantize/functions.py explains them.
constexpr float kSymmetricMax = 127.0f;
constexpr float kSymmetricLeastScale = 1.17549435e-38f;
constexpr float kGeluMax = 255.0f - kGeluZeroPoint;
constexpr float kGeluLeastScale = 0.0053125f;          // 0.17 / 32
constexpr float kProductLeastScale = 1.52587891e-05f;  // 2^-16

inline float larger_of(float a, float b) { return a > b ? a : b; }

// Calls step(sums, i, n) for each sixteen values of a row as `along` does, with one of four sums after the other, so that
// no addition waits for the one before it.
template <class Step>
inline void fold(size_t width, Lanes (&sums)[4], Step&& step) {
    size_t i = 0;
    for (; i + 64 <= width; i += 64) {
        MOEMBED_UNROLL
        for (size_t k = 0; k < 4; ++k) step(sums[k], i + 16 * k, size_t{16});
    }
    for (size_t k = 0; i < width; i += 16, ++k) step(sums[k], i, width - i < 16 ? width - i : 16);
}
inline float sum_of(const Lanes (&sums)[4]) { return sum_of((sums[0] + sums[1]) + (sums[2] + sums[3])); }
inline float max_of(const Lanes (&tops)[4]) {
    return max_of(larger(larger(tops[0], tops[1]), larger(tops[2], tops[3])));
}

// Stores n values as bytes: x * inverse, rounded to the nearest even integer, plus `zero_point`, which is even.
inline void store_quantized(uint8_t* quantized, Lanes x, Lanes inverse, float zero_point, size_t n) {
    const Lanes bytes = x * inverse + fill(kRound + zero_point);
    if (n == 16) return store_low_bytes(quantized, bytes);
    uint8_t part[16];
    store_low_bytes(part, bytes);
    std::memcpy(quantized, part, n);
}

inline float symmetric_scale(float top) { return larger_of(top / kSymmetricMax, kSymmetricLeastScale); }

inline void quantize(const float* x, size_t width, size_t first, size_t last, uint8_t* quantized, float* scale) {
    for (size_t t = first; t < last; ++t) {
        const float* row = x + t * width;
        Lanes tops[4] = {};
        fold(width, tops, [&](Lanes& top, size_t i, size_t n) { top = larger(absolute(load(row + i, n)), top); });
        scale[t] = symmetric_scale(max_of(tops));
        const Lanes inverse = fill(1.0f / scale[t]);
        along(width, [&](size_t i, size_t n) {
            store_quantized(quantized + t * width + i, load(row + i, n), inverse, kSymmetricZeroPoint, n);
        });
    }
}

// What lies between the products of a feed-forward network has 16 bits: float16 of active = value / 256, so that values to
// kMostActive * 256 are finite; larger ones count as that.
constexpr int kActiveShift = 8;
constexpr float kActiveUnit = 1.0f / (1 << kActiveShift);
constexpr float kMostActive = 65504.0f;

// Stores sixteen of them, loaded from float16, as bytes; `inverse` is 1 / scale / kActiveUnit.
inline void quantize_active(const uint16_t* p, Lanes inverse, float zero_point, uint8_t* quantized) {
    store_quantized(quantized, load_halves(p), inverse, zero_point, 16);
}
inline float active_inverse(float scale) { return 1.0f / scale / kActiveUnit; }

// The scale of a row of which `top` is the largest size, or 0.
inline float active_scale(float top, float most, float least) {
    return larger_of((top < kMostActive ? top : kMostActive) / kActiveUnit / most, least);
}

// How the values after GELU become bytes.
struct AfterGelu {
    static constexpr int kZeroPoint = kGeluZeroPoint;
    static Lanes within(Lanes active) { return smaller(active, fill(kMostActive)); }
    static Lanes size(Lanes active) { return active; }  // a row without positive values has the least scale
    static float scale_of(float top) { return active_scale(top, kGeluMax, kGeluLeastScale); }
};

// How gated products become bytes.
struct AfterGate {
    static constexpr int kZeroPoint = kSymmetricZeroPoint;
    static Lanes within(Lanes active) { return limited(active, kMostActive); }
    static Lanes size(Lanes active) { return absolute(active); }
    static float scale_of(float top) { return active_scale(top, kSymmetricMax, kProductLeastScale); }
};

template <class After>
inline void quantize_after(const float* x, size_t width, size_t first, size_t last, uint8_t* quantized, float* scale) {
    for (size_t t = first; t < last; ++t) {
        const float* row = x + t * width;
        Lanes tops[4] = {};
        fold(width, tops, [&](Lanes& top, size_t i, size_t n) {
            top = larger(After::size(load(row + i, n) * fill(kActiveUnit)), top);
        });
        scale[t] = After::scale_of(max_of(tops));
        const Lanes inverse = fill(active_inverse(scale[t]));
        for (size_t i = 0; i < width; i += 16) {  // whole blocks of columns
            uint16_t active[16];
            store_halves(active, After::within(load(row + i) * fill(kActiveUnit)));
            quantize_active(active, inverse, After::kZeroPoint, quantized + t * width + i);
        }
    }
}

inline void quantize_gelu(const float* x, size_t width, size_t first, size_t last, uint8_t* quantized, float* scale) {
    quantize_after<AfterGelu>(x, width, first, last, quantized, scale);
}
inline void quantize_product(const float* x, size_t width, size_t first, size_t last, uint8_t* quantized,
                             float* scale) {
    quantize_after<AfterGate>(x, width, first, last, quantized, scale);
}

// Quantizes act(gate) * up; `product` has room for a row.
template <class Act>
inline void quantize_gated(Act&& act, const float* gate, const float* up, size_t width, size_t first, size_t last,
                           float* product, uint8_t* quantized, float* scale) {
    for (size_t t = first; t < last; ++t) {
        Lanes tops[4] = {};
        fold(width, tops, [&](Lanes& top, size_t i, size_t n) {
            const Lanes value = act(load(gate + t * width + i, n)) * load(up + t * width + i, n);
            store(product + i, value, n);
            top = larger(absolute(value), top);
        });
        scale[t] = symmetric_scale(max_of(tops));
        const Lanes inverse = fill(1.0f / scale[t]);
        along(width, [&](size_t i, size_t n) {
            store_quantized(quantized + t * width + i, load(product + i, n), inverse, kSymmetricZeroPoint, n);
        });
    }
}

inline void quantize_gelu_mul(const float* gate, const float* up, size_t width, size_t first, size_t last,
                              float* product, uint8_t* quantized, float* scale) {
    quantize_gated([](Lanes x) { return gelu_of(x); }, gate, up, width, first, last, product, quantized, scale);
}
inline void quantize_silu_mul(const float* gate, const float* up, size_t width, size_t first, size_t last,
                              float* product, uint8_t* quantized, float* scale) {
    quantize_gated([](Lanes x) { return silu_of(x); }, gate, up, width, first, last, product, quantized, scale);
}

// Normalizes values_at(i, n) into row t of y, and quantizes it times `smooth`, if there is a `smooth`.
template <class ValuesAt>
inline void normalize(const Norm& a, size_t t, ValuesAt&& values_at) {
    float* y = a.y + t * a.width;
    Lanes totals[4] = {}, squares[4] = {}, tops[4] = {};
    fold(a.width, totals, [&](Lanes& total, size_t i, size_t n) {
        const Lanes value = values_at(i, n);
        store(y + i, value, n);
        total = total + value;
    });
    const Lanes mean = fill(sum_of(totals) / static_cast<float>(a.width));
    fold(a.width, squares, [&](Lanes& square, size_t i, size_t n) {
        const Lanes d = first(load(y + i, n) - mean, n);
        square = fma(d, d, square);
    });
    const float variance = sum_of(squares) / static_cast<float>(a.width);
    const Lanes inverse = fill(1.0f / sqrtf(variance + a.epsilon));
    fold(a.width, tops, [&](Lanes& top, size_t i, size_t n) {
        const Lanes value = fma((load(y + i, n) - mean) * inverse, load(a.gamma + i, n), load(a.beta + i, n));
        store(y + i, value, n);
        if (a.smooth) top = larger(absolute(value * load(a.smooth + i, n)), top);
    });
    if (!a.smooth) return;
    a.scale[t] = symmetric_scale(max_of(tops));
    const Lanes unit = fill(1.0f / a.scale[t]);
    along(a.width, [&](size_t i, size_t n) {
        const Lanes smoothed = load(y + i, n) * load(a.smooth + i, n);
        store_quantized(a.quantized + t * a.width + i, smoothed, unit, kSymmetricZeroPoint, n);
    });
}

inline Lanes word8(const Embedding& e, size_t id, size_t width, size_t i, size_t n) {
    int8_t part[16] = {};
    std::memcpy(part, e.table8 + id * width + i, n);
    return from_bytes(part) * fill(e.table8_scale[id]);
}

inline Lanes word4(const Embedding& e, size_t id, size_t width, size_t i) {
    const uint8_t* pairs = e.table4 + (id * width + i) / 2;
    int8_t part[16];
    for (size_t j = 0; j < 8; ++j) {
        part[2 * j] = static_cast<int8_t>((pairs[j] & 15) - 8);
        part[2 * j + 1] = static_cast<int8_t>((pairs[j] >> 4) - 8);
    }
    return from_bytes(part) * fill(from_half(e.table4_scale[(id * width + i) / kBlock4]));
}

inline void embed(const Embedding& e, const Norm& a, size_t first, size_t last) {
    for (size_t t = first; t < last; ++t) {
        const auto id = static_cast<size_t>(e.ids[t]);
        const float* type = e.type + t * e.type_stride;
        normalize(a, t, [&](size_t i, size_t n) {
            // Rows of 4-bit values have whole blocks.
            const Lanes word = e.table4 ? word4(e, id, a.width, i) : word8(e, id, a.width, i, n);
            return word + load(type + i, n);
        });
    }
}

inline void add_norm(const float* x, const float* residual, const Norm& a, size_t first, size_t last) {
    for (size_t t = first; t < last; ++t) {
        const size_t row = t * a.width;
        normalize(a, t, [&](size_t i, size_t n) { return load(x + row + i, n) + load(residual + row + i, n); });
    }
}

inline void combine(const float* slots, const float* weights, size_t top_k, const float* bias, size_t width,
                    size_t first, size_t last, float* y) {
    for (size_t t = first; t < last; ++t) {
        const float* slot = slots + t * top_k * width;
        along(width, [&](size_t i, size_t n) {
            Lanes mixed = load(slot + i, n) * fill(weights[t * top_k]);
            for (size_t k = 1; k < top_k; ++k)
                mixed = mixed + load(slot + k * width + i, n) * fill(weights[t * top_k + k]);
            store(y + t * width + i, mixed + load(bias + i, n), n);
        });
    }
}

inline void mean(const float* x, size_t width, size_t first, size_t last, float divisor, float* y) {
    along(width, [&](size_t i, size_t n) {
        Lanes total = fill(0.0f);
        for (size_t t = first; t < last; ++t) total = total + load(x + t * width + i, n);
        store(y + i, total / fill(divisor), n);
    });
}

}  // namespace
}  // namespace moembed
