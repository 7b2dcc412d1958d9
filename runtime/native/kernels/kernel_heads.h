// Queries, keys and values for attention over integers: their product, rotation and quantization, and the layout of keys
// and values for products.
#pragma once

#include "kernel_attention.h"
#include "kernel_product.h"
#include "kernel_rows.h"
#include "layout.h"

namespace moembed {
namespace {

constexpr float kQueryMax = 32767.0f, kProbabilityMax = 32767.0f;
constexpr float kQueryZeroPoint = 32768.0f;
constexpr size_t kGroupColumns = 256;  // whose floats stay in the cache between product and quantization
constexpr size_t kMostStride = 512;    // of a head; the operator refuses larger ones

inline float head_scale(const float* x, size_t dim, float most) {
    Lanes tops[4] = {};
    fold(dim, tops, [&](Lanes& top, size_t i, size_t n) { top = larger(absolute(load(x + i, n)), top); });
    return larger_of(max_of(tops) / most, kSymmetricLeastScale);
}

inline void encode_query(const Int8Heads& a, const float* x, size_t place) {
    const float scale = a.query_scale[place] = head_scale(x, a.dim, kQueryMax);
    const Lanes inverse = fill(1.0f / scale);
    along(a.dim, [&](size_t i, size_t n) {
        const size_t at = place * a.stride + i;
        store_two_bytes(a.query_low + at, a.query_high + at, load(x + i, n) * inverse + fill(kRound + kQueryZeroPoint));
    });
}

// A key or value; returns the sum of its bytes.
inline int32_t encode_signed(const Int8Heads& a, const float* x, size_t place, uint8_t* bytes, float* scales) {
    const float scale = scales[place] = head_scale(x, a.dim, kSymmetricMax);
    const Lanes inverse = fill(1.0f / scale), round = fill(kRound);
    Lanes sum = fill(0.0f);
    along(a.dim, [&](size_t i, size_t n) {
        const Lanes shifted = load(x + i, n) * inverse + round;
        store_low_bytes(bytes + place * a.stride + i, shifted);
        sum = sum + (shifted - round);
    });
    return static_cast<int32_t>(sum_of(sum));
}

// A query, key or value of a token: a slice of `dim` columns.
struct Slice {
    size_t part, place;  // 0 to 2; head and token
};

// Rotates and quantizes a slice, whose values are overwritten.
inline void encode_slice(const Int8Heads& a, const Slice& s, const float* cos, const float* sin, float* x) {
    if (s.part < 2) turn(x, cos, sin, a.dim / 2, fill(1.0f), x);
    if (s.part == 0) {
        encode_query(a, x, s.place);
    } else if (s.part == 1) {
        a.key_sum[s.place] = encode_signed(a, x, s.place, a.key, a.key_scale);
    } else {
        encode_signed(a, x, s.place, a.value, a.value_scale);
    }
}

// The same for a head of N times sixteen values, which stay in registers; N is even.
template <int N>
inline void encode_slice(const Int8Heads& a, const Slice& s, const float* cos, const float* sin, const float* x) {
    constexpr int kHalf = N / 2;
    Lanes v[N];
    MOEMBED_UNROLL
    for (int i = 0; i < N; ++i) v[i] = load(x + 16 * i);
    if (s.part < 2) {
        MOEMBED_UNROLL
        for (int i = 0; i < kHalf; ++i) {
            const Lanes c = load(cos + 16 * i), d = load(sin + 16 * i), left = v[i], right = v[i + kHalf];
            v[i] = left * c - right * d;
            v[i + kHalf] = left * d + right * c;
        }
    }
    Lanes top = fill(0.0f);
    MOEMBED_UNROLL
    for (int i = 0; i < N; ++i) top = larger(absolute(v[i]), top);
    const float most = s.part ? kSymmetricMax : kQueryMax;
    const float scale = larger_of(max_of(top) / most, kSymmetricLeastScale);
    (s.part == 0 ? a.query_scale : s.part == 1 ? a.key_scale : a.value_scale)[s.place] = scale;
    const Lanes inverse = fill(1.0f / scale), round = fill(kRound);
    const size_t at = s.place * a.stride;
    if (s.part == 0) {
        MOEMBED_UNROLL
        for (int i = 0; i < N; ++i) {
            const Lanes shifted = v[i] * inverse + fill(kRound + kQueryZeroPoint);
            store_two_bytes(a.query_low + at + 16 * i, a.query_high + at + 16 * i, shifted);
        }
        return;
    }
    uint8_t* bytes = (s.part == 1 ? a.key : a.value) + at;
    Lanes sum = fill(0.0f);
    MOEMBED_UNROLL
    for (int i = 0; i < N; ++i) {
        const Lanes shifted = v[i] * inverse + round;
        store_low_bytes(bytes + 16 * i, shifted);
        sum = sum + (shifted - round);
    }
    if (s.part == 1) a.key_sum[s.place] = static_cast<int32_t>(sum_of(sum));
}

// Rotates and quantizes slices `first` to `last` of a token; `x` has their columns and is overwritten.
inline void encode_token(const Int8Heads& a, float* x, size_t first, size_t last, size_t token) {
    const size_t position = static_cast<size_t>(a.positions[token]) * (a.dim / 2);
    const float *cos = a.cos + position, *sin = a.sin + position;
    size_t part = first / a.heads, head = first % a.heads;
    for (size_t slice = first; slice < last; ++slice, x += a.dim) {
        const Slice s{part, head * a.tokens + token};
        if (++head == a.heads) head = 0, ++part;
        if (a.dim == 64) {
            encode_slice<4>(a, s, cos, sin, x);
        } else if (a.dim == 32) {
            encode_slice<2>(a, s, cos, sin, x);
        } else {
            encode_slice(a, s, cos, sin, x);
        }
    }
}

struct ProjectionLayout : Layout {
    size_t group;  // slices that are multiplied before they are quantized
    size_t rows;   // packed
    size_t floats;

    ProjectionLayout(const Product& p, const Int8Heads& a, size_t first, size_t last) {
        group = last - first;
        if (a.dim % 16 == 0 && group * a.dim > kGroupColumns) group = a.dim < kGroupColumns ? kGroupColumns / a.dim : 1;
        rows = take(Dots::packed_bytes(p.rows, p.depth));
        floats = take(static_cast<size_t>(p.rows) * group * a.dim * sizeof(float));
    }
};

inline size_t project_heads_scratch(const Product& p, const Int8Heads& a, size_t first, size_t last) {
    return ProjectionLayout(p, a, first, last).all;
}

inline void project_heads(const Product& whole, const Int8Heads& a, size_t first, size_t last, size_t begin,
                          void* scratch) {
    const ProjectionLayout at(whole, a, first, last);
    auto* packed = static_cast<uint8_t*>(scratch) + at.rows;
    auto* floats = reinterpret_cast<float*>(static_cast<uint8_t*>(scratch) + at.floats);
    Product p = whole;
    const Dots dots(p.rows, p.depth);
    pack_rows(dots, p, packed);
    for (size_t slice = first; slice < last; slice += at.group) {
        const size_t count = last - slice < at.group ? last - slice : at.group;
        const size_t block = slice * a.dim / 16, end = (slice + count) * a.dim / 16;
        p.out_stride = count * a.dim;
        p.out = floats - slice * a.dim;
        const int8_t* after = slice + count < last ? p.weight + end * p.depth * 64 : nullptr;
        multiply(dots, packed, p, block, end, after, [&](const int32_t* sums, int row, size_t column, int blocks) {
            return ToFloats<false>{&p, sums, row, column, blocks};
        });
        for (size_t r = 0; r < static_cast<size_t>(p.rows); ++r) {
            encode_token(a, floats + r * p.out_stride, slice, slice + count, begin + r);
        }
    }
}

// Keys and values of one head in one text, as weights.
struct PackedHead : Layout {
    size_t blocks, across;           // of sixteen keys; keys in whole blocks
    size_t dim_blocks;               // of sixteen values of a token
    size_t dim_depth, key_depth;     // of the two products
    size_t keys;                     // packed [blocks, dim_depth, 16, 4]
    size_t values;                   // packed [dim_blocks, key_depth, 16, 4]
    size_t low_start, high_start;    // [across] int32: initial sums for low and high bytes of queries
    size_t value_start;              // [stride] int32: initial sums for bytes of shares
    size_t key_scale, value_weight;  // [across] float
    size_t top_value;                // float: the largest scale of a value

    PackedHead(const Int8Heads& a, size_t tokens) {
        blocks = (tokens + 15) / 16;
        across = 16 * blocks;
        dim_blocks = a.stride / 16;
        dim_depth = Dots::depth_for(a.stride);
        key_depth = Dots::depth_for(across);
        keys = take(blocks * dim_depth * 64);
        values = take(dim_blocks * key_depth * 64);
        low_start = take((across + kPanel) * sizeof(int32_t));
        high_start = take((across + kPanel) * sizeof(int32_t));
        value_start = take((a.stride + kPanel) * sizeof(int32_t));
        key_scale = take(across * sizeof(float));
        value_weight = take(across * sizeof(float));
        top_value = take(sizeof(float));
    }
};

inline size_t packed_head_bytes(const Int8Heads& a, size_t tokens) { return PackedHead(a, tokens).all; }

// Four rows of a head, from `row` on; those after the last one are 0.
struct HeadRows {
    const uint8_t* rows[4];

    HeadRows(const uint8_t* from, size_t row, size_t count, size_t stride, size_t column) {
        static constexpr uint8_t kNone[kMostStride] = {};
        for (size_t r = 0; r < 4; ++r) rows[r] = (row + r < count ? from + (row + r) * stride : kNone) + column;
    }
};

inline void pack_head(const Int8Heads& a, size_t head, size_t begin, size_t end, void* packed) {
    const size_t tokens = end - begin, place = head * a.tokens + begin;
    const PackedHead at(a, tokens);
    auto* memory = static_cast<uint8_t*>(packed);
    const auto array = [&](size_t offset) { return reinterpret_cast<float*>(memory + offset); };
    const auto integers = [&](size_t offset) { return reinterpret_cast<int32_t*>(memory + offset); };
    uint8_t *keys = memory + at.keys, *values = memory + at.values;
    // Products read whole tiles, and the last panel of initial sums.
    if (4 * at.dim_depth != a.stride) std::memset(keys, 0, at.blocks * at.dim_depth * 64);
    if (4 * at.key_depth != at.across) std::memset(values, 0, at.dim_blocks * at.key_depth * 64);
    std::memset(memory + at.low_start, 0, at.top_value - at.low_start);
    for (size_t j = 0; j < at.across; j += 4) {
        for (size_t d = 0; d < a.stride; d += 16) {
            const HeadRows key(a.key + place * a.stride, j, tokens, a.stride, d);
            transpose_fours(key.rows, keys + ((j / 16 * at.dim_depth + d / 4) * 16 + j % 16) * 4);
            const HeadRows value(a.value + place * a.stride, j, tokens, a.stride, d);
            interleave(value.rows, values + (d / 16 * at.key_depth + j / 4) * 64);
        }
    }
    // Dots takes kDotsZeroPoint off each byte.
    int32_t *low = integers(at.low_start), *high = integers(at.high_start);
    for (size_t j = 0; j < tokens; ++j) {
        low[j] = a.key_sum[place + j] * kDotsZeroPoint;
        high[j] = a.key_sum[place + j] * (kDotsZeroPoint - kSymmetricZeroPoint);
    }
    if constexpr (kDotsZeroPoint != 0) {
        int32_t* start = integers(at.value_start);
        sum_columns(reinterpret_cast<const int8_t*>(values), at.key_depth, 0, at.dim_blocks, start);
        for (size_t d = 0; d < a.stride; ++d) start[d] *= kDotsZeroPoint;
    }
    float *key_scale = array(at.key_scale), *weight = array(at.value_weight);
    std::memcpy(key_scale, a.key_scale + place, tokens * sizeof(float));
    for (size_t j = tokens; j < at.across; ++j) key_scale[j] = NAN;  // which is not larger than anything
    const float* scale = a.value_scale + place;
    Lanes top = fill(0.0f);
    along(tokens, [&](size_t i, size_t n) { top = larger(load(scale + i, n), top); });
    const float most = *array(at.top_value) = max_of(top);
    along(tokens,
          [&](size_t i, size_t n) { store(weight + i, load(scale + i, n) / fill(most) * fill(kProbabilityMax), n); });
}

}  // namespace
}  // namespace moembed
