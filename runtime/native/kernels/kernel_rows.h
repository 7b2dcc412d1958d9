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
constexpr float kGeluLeastScale = 0.0053125f;  // 0.17 / 32

inline void quantize_row(const float* x, size_t width, float scale, float zero_point, uint8_t* quantized) {
    const Lanes divisor = fill(scale), offset = fill(zero_point);
    const Lanes low = fill(-zero_point), high = fill(255.0f - zero_point);
    along(width, [&](size_t i, size_t n) {
        // Clamped first: both limits are integers, so rounding cannot leave the range, and the last addition is exact.
        const Lanes clamped = larger(smaller(load(x + i, n) / divisor, high), low);
        const Lanes round = fill(kRound);
        const Lanes bytes = ((clamped + round) - round) + offset;
        if (n == 16) return store_bytes(quantized + i, bytes);
        uint8_t part[16];
        store_bytes(part, bytes);
        std::memcpy(quantized + i, part, n);
    });
}

inline float larger_of(float a, float b) { return a > b ? a : b; }

inline void quantize_symmetric(const float* x, size_t width, uint8_t* quantized, float* scale) {
    Lanes top = fill(0.0f);
    along(width, [&](size_t i, size_t n) { top = larger(absolute(load(x + i, n)), top); });
    *scale = larger_of(max_of(top) / kSymmetricMax, kSymmetricLeastScale);
    quantize_row(x, width, *scale, kSymmetricZeroPoint, quantized);
}

inline void quantize(const float* x, size_t width, size_t first, size_t last, uint8_t* quantized, float* scale) {
    for (size_t t = first; t < last; ++t) quantize_symmetric(x + t * width, width, quantized + t * width, scale + t);
}

// The scale of a row of which `top` is the largest value, or 0.
inline float gelu_scale(float top) { return larger_of(top / kGeluMax, kGeluLeastScale); }

inline void quantize_gelu(const float* x, size_t width, size_t first, size_t last, uint8_t* quantized, float* scale) {
    for (size_t t = first; t < last; ++t) {
        const float* row = x + t * width;
        // Starting at 0 is right: a maximum below 0 gives the least scale.
        Lanes top = fill(0.0f);
        along(width, [&](size_t i, size_t n) { top = larger(load(row + i, n), top); });
        scale[t] = gelu_scale(max_of(top));
        quantize_row(row, width, scale[t], kGeluZeroPoint, quantized + t * width);
    }
}

// Normalizes row t of y in place.
inline void normalize(const Norm& a, size_t t) {
    float* y = a.y + t * a.width;
    Lanes total = fill(0.0f), squares = fill(0.0f);
    along(a.width, [&](size_t i, size_t n) { total = total + load(y + i, n); });
    const Lanes mean = fill(sum_of(total) / static_cast<float>(a.width));
    along(a.width, [&](size_t i, size_t n) {
        const Lanes d = first(load(y + i, n) - mean, n);
        squares = fma(d, d, squares);
    });
    const float variance = sum_of(squares) / static_cast<float>(a.width);
    const Lanes inverse = fill(1.0f / sqrtf(variance + a.epsilon));
    along(a.width, [&](size_t i, size_t n) {
        store(y + i, fma((load(y + i, n) - mean) * inverse, load(a.gamma + i, n), load(a.beta + i, n)), n);
    });
}

// Quantizes row t of y * smooth, if there is a `smooth`.
inline void quantize_smoothed(const Norm& a, size_t t) {
    if (!a.smooth) return;
    const float* y = a.y + t * a.width;
    Lanes top = fill(0.0f);
    along(a.width, [&](size_t i, size_t n) { top = larger(absolute(load(y + i, n) * load(a.smooth + i, n)), top); });
    const float scale = a.scale[t] = larger_of(max_of(top) / kSymmetricMax, kSymmetricLeastScale);
    float part[16];
    along(a.width, [&](size_t i, size_t n) {
        store(part, load(y + i, n) * load(a.smooth + i, n));
        quantize_row(part, n, scale, kSymmetricZeroPoint, a.quantized + t * a.width + i);
    });
}

// Converts a finite float16. Subnormals are converted as integers, so that a mode that flushes them to 0 has no effect.
inline float from_half(uint16_t half) {
    const uint32_t sign = (half & 0x8000u) << 16, magnitude = half & 0x7fffu;
    if (magnitude < 0x400) return (sign ? -1.0f : 1.0f) * static_cast<float>(magnitude) * 5.9604644775390625e-8f;
    const uint32_t bits = sign | ((magnitude << 13) + 0x38000000u);
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline void embed8(const Embedding& e, size_t id, size_t width, float* y) {
    const int8_t* word = e.table8 + id * width;
    const Lanes scale = fill(e.table8_scale[id]);
    along(width, [&](size_t i, size_t n) {
        int8_t part[16] = {};
        std::memcpy(part, word + i, n);
        store(y + i, from_bytes(part) * scale + load(e.type + i, n), n);
    });
}

inline void embed4(const Embedding& e, size_t id, size_t width, float* y) {
    const uint8_t* word = e.table4 + id * width / 2;
    const uint16_t* scales = e.table4_scale + id * width / kBlock4;
    for (size_t i = 0; i < width; i += 16) {  // half of the values that share a scale
        int8_t part[16];
        for (size_t j = 0; j < 8; ++j) {
            const uint8_t pair = word[i / 2 + j];
            part[2 * j] = static_cast<int8_t>((pair & 15) - 8);
            part[2 * j + 1] = static_cast<int8_t>((pair >> 4) - 8);
        }
        store(y + i, from_bytes(part) * fill(from_half(scales[i / kBlock4])) + load(e.type + i, 16), 16);
    }
}

inline void embed(const Embedding& e, const Norm& a, size_t first, size_t last) {
    for (size_t t = first; t < last; ++t) {
        (e.table4 ? embed4 : embed8)(e, static_cast<size_t>(e.ids[t]), a.width, a.y + t * a.width);
        normalize(a, t);
        quantize_smoothed(a, t);
    }
}

inline void add_norm(const float* x, const float* residual, const Norm& a, size_t first, size_t last) {
    for (size_t t = first; t < last; ++t) {
        const size_t row = t * a.width;
        along(a.width,
              [&](size_t i, size_t n) { store(a.y + row + i, load(x + row + i, n) + load(residual + row + i, n), n); });
        normalize(a, t);
        quantize_smoothed(a, t);
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
