// What integer attention works on, in arrays that a test chooses: `Array<T>(size)` has `data`.
#pragma once

#include "../../runtime/native/kernels/table.h"

namespace moembed {

// Queries, keys and values of so many tokens and heads; `heads` refers to them, to angles and to positions.
template <template <class> class Array>
struct HeadArrays {
    HeadArrays(size_t count, size_t dim, size_t tokens, const Array<float>& cos, const Array<float>& sin,
               const Array<int64_t>& positions)
        : stride((dim + 15) / 16 * 16),
          low(count * tokens * stride),
          high(count * tokens * stride),
          key(count * tokens * stride),
          value(count * tokens * stride),
          query_scale(count * tokens),
          key_scale(count * tokens),
          value_scale(count * tokens),
          key_sum(count * tokens) {
        heads.heads = count;
        heads.dim = dim;
        heads.stride = stride;
        heads.tokens = tokens;
        heads.query_low = low.data;
        heads.query_high = high.data;
        heads.key = key.data;
        heads.value = value.data;
        heads.query_scale = query_scale.data;
        heads.key_scale = key_scale.data;
        heads.value_scale = value_scale.data;
        heads.key_sum = key_sum.data;
        heads.cos = cos.data;
        heads.sin = sin.data;
        heads.positions = positions.data;
    }

    size_t stride;
    Array<uint8_t> low, high, key, value;
    Array<float> query_scale, key_scale, value_scale;
    Array<int32_t> key_sum;
    Int8Heads heads;
};

// The operands of the product that gives them.
template <template <class> class Array>
struct HeadProduct {
    HeadProduct(size_t tokens, size_t depth, size_t columns)
        : depth(depth),
          quantized(tokens * 4 * depth),
          weight(4 * depth * columns),
          scale(tokens),
          weight_scale(columns),
          bias(columns) {}

    // Of tokens `first` to `last`.
    Product of(size_t first, size_t last) const {
        Product p;
        p.quantized = quantized.data + first * 4 * depth;
        p.scale = scale.data + first;
        p.rows = static_cast<int>(last - first);
        p.depth = depth;
        p.zero_point = kSymmetricZeroPoint;
        p.weight = weight.data;
        p.weight_scale = weight_scale.data;
        p.bias = bias.data;
        return p;
    }

    size_t depth;
    Array<uint8_t> quantized;
    Array<int8_t> weight;
    Array<float> scale, weight_scale, bias;
};

}  // namespace moembed
