// Attention of one head within one text: two products of small float matrices, with a softmax between them. Only the
// scores of a few queries are in memory at a time.
#pragma once

#include "lanes_math.h"
#include "row_count.h"
#include "table.h"

namespace moembed {
namespace {

constexpr size_t kQueries = 16;  // whose scores are in memory at a time

// out[r][16 * b + j] = sum over d, in order, of a[r * a_stride + d] * m[b * block + d * m_stride + j], for R rows, B
// blocks and j < 16.
template <int R, int B>
inline void float_tile(const float* a, size_t a_stride, const float* m, size_t m_stride, size_t block, size_t depth,
                       float* out, size_t out_stride) {
    Lanes sums[R][B];
    MOEMBED_UNROLL
    for (int r = 0; r < R; ++r) {
        MOEMBED_UNROLL
        for (int b = 0; b < B; ++b) sums[r][b] = fill(0.0f);
    }
    for (size_t d = 0; d < depth; ++d) {
        Lanes v[B];
        MOEMBED_UNROLL
        for (int b = 0; b < B; ++b) v[b] = load(m + b * block + d * m_stride);
        MOEMBED_UNROLL
        for (int r = 0; r < R; ++r) {
            const Lanes x = fill(a[r * a_stride + d]);
            MOEMBED_UNROLL
            for (int b = 0; b < B; ++b) sums[r][b] = fma(x, v[b], sums[r][b]);
        }
    }
    MOEMBED_UNROLL
    for (int r = 0; r < R; ++r) {
        MOEMBED_UNROLL
        for (int b = 0; b < B; ++b) store(out + r * out_stride + 16 * b, sums[r][b]);
    }
}

// The same for any number of rows and blocks of sixteen columns.
inline void float_product(const float* a, size_t a_stride, size_t rows, const float* m, size_t m_stride, size_t block,
                          size_t blocks, size_t depth, float* out, size_t out_stride) {
    for (size_t b = 0; b < blocks;) {
        const bool many = kFloatBlocks > 1 && b + kFloatBlocks <= blocks;
        for (size_t row = 0; row < rows; row += kFloatRows) {
            const size_t left = rows - row < kFloatRows ? rows - row : kFloatRows;
            const float *x = a + row * a_stride, *y = m + b * block;
            float* z = out + row * out_stride + 16 * b;
            with_row_count<kFloatRows>(static_cast<int>(left), [&](auto r) {
                if (many) {
                    float_tile<decltype(r)::value, kFloatBlocks>(x, a_stride, y, m_stride, block, depth, z, out_stride);
                } else {
                    float_tile<decltype(r)::value, 1>(x, a_stride, y, m_stride, block, depth, z, out_stride);
                }
            });
        }
        b += many ? kFloatBlocks : 1;
    }
}

inline size_t up_to_sixteen(size_t n) { return (n + 15) / 16 * 16; }

// Offsets of arrays in the scratch memory, in floats.
struct AttentionLayout {
    size_t keys = 0;                // [tokens / 16][dim][16]
    size_t values;                  // [tokens][dim up to a multiple of 16]
    size_t queries, scores, mixed;  // of kQueries rows
    size_t all;

    AttentionLayout(size_t dim, size_t tokens) {
        const size_t across = up_to_sixteen(tokens), wide = up_to_sixteen(dim);
        values = keys + across * dim;
        queries = values + tokens * wide;
        scores = queries + kQueries * wide;
        mixed = scores + kQueries * across;
        all = mixed + kQueries * wide;
    }
};

inline size_t attention_scratch(const Attention& a, size_t tokens) { return AttentionLayout(a.dim, tokens).all; }

// Rotates the halves of x by the angles of a position, and multiplies them by `factor`. `out` may be x.
inline void turn(const float* x, const float* cos, const float* sin, size_t half, Lanes factor, float* out) {
    along(half, [&](size_t i, size_t n) {
        const Lanes c = load(cos + i, n), s = load(sin + i, n);
        const Lanes left = load(x + i, n), right = load(x + half + i, n);
        store(out + i, (left * c - right * s) * factor, n);
        store(out + half + i, (left * s + right * c) * factor, n);
    });
}

// Applies the rotary embedding of its position to a token's query
// (part 0) or key (part 1), and multiplies it by `factor`.
inline void rotate(const Attention& a, size_t head, size_t part, size_t token, Lanes factor, float* out) {
    const size_t hidden = a.heads * a.dim, half = a.dim / 2;
    const float* x = a.qkv + token * 3 * hidden + part * hidden + head * a.dim;
    const size_t position = static_cast<size_t>(a.positions[token]) * half;
    turn(x, a.cos + position, a.sin + position, half, factor, out);
}

// Replaces scores by exp(score - max), and computes their sum; the division comes after the product with the values.
inline void softmax(float* scores, size_t tokens, float* total) {
    Lanes top = fill(-INFINITY), sum = fill(0.0f);
    along(tokens, [&](size_t i, size_t n) { top = larger(first(load(scores + i), n, -INFINITY), top); });
    const Lanes largest = fill(max_of(top));
    along(tokens, [&](size_t i, size_t n) {
        const Lanes e = first(exp_of(load(scores + i) - largest), n);
        store(scores + i, e);
        sum = sum + e;
    });
    *total = sum_of(sum);
}

inline void attention(const Attention& a, size_t head, size_t begin, size_t end, size_t first_query, size_t last_query,
                      float* scratch) {
    const size_t tokens = end - begin, across = up_to_sixteen(tokens), wide = up_to_sixteen(a.dim),
                 hidden = a.heads * a.dim;
    const AttentionLayout at(a.dim, tokens);
    float *keys = scratch + at.keys, *values = scratch + at.values, *queries = scratch + at.queries;
    float *scores = scratch + at.scores, *mixed = scratch + at.mixed;
    std::memset(keys, 0, across * a.dim * sizeof(float));
    if (wide != a.dim) std::memset(values, 0, tokens * wide * sizeof(float));
    for (size_t j = 0; j < tokens; ++j) {
        rotate(a, head, 1, begin + j, fill(1.0f), mixed);
        float* column = keys + j / 16 * a.dim * 16 + j % 16;
        for (size_t d = 0; d < a.dim; ++d) column[16 * d] = mixed[d];
        std::memcpy(values + j * wide, a.qkv + (begin + j) * 3 * hidden + 2 * hidden + head * a.dim,
                    a.dim * sizeof(float));
    }
    const Lanes factor = fill(1.0f / sqrtf(static_cast<float>(a.dim)));
    for (size_t query = first_query; query < last_query; query += kQueries) {
        const size_t rows = last_query - query < kQueries ? last_query - query : kQueries;
        float total[kQueries];
        for (size_t r = 0; r < rows; ++r) rotate(a, head, 0, begin + query + r, factor, queries + r * a.dim);
        float_product(queries, a.dim, rows, keys, 16, a.dim * 16, across / 16, a.dim, scores, across);
        for (size_t r = 0; r < rows; ++r) softmax(scores + r * across, tokens, total + r);
        float_product(scores, across, rows, values, wide, 16, wide / 16, tokens, mixed, wide);
        for (size_t r = 0; r < rows; ++r) {
            float* y = a.y + (begin + query + r) * hidden + head * a.dim;
            along(a.dim, [&](size_t i, size_t n) { store(y + i, load(mixed + r * wide + i) / fill(total[r]), n); });
        }
    }
}

}  // namespace
}  // namespace moembed
