// Attention of one head within one text, over integers: both products are exact sums, and what lies between them depends
// on one query and all keys only. So the result does not depend on how an instruction set divides the work. See
// quantize/functions.py for the arithmetic.
#pragma once

#include "kernel_attention.h"
#include "kernel_product.h"
#include "kernel_rows.h"
#include "layout.h"

namespace moembed {
namespace {

constexpr float kQueryMax = 32767.0f, kProbabilityMax = 32767.0f;
constexpr float kQueryZeroPoint = 32768.0f;
constexpr size_t kInt8Queries = kRows > 32 ? kRows : 32;  // whose scores are in memory at a time

inline Lanes rounded(Lanes x) { return (x + fill(kRound)) - fill(kRound); }

// Quantizes the values of a query to 16 bits, or of a key or value to 8; returns their scale.
inline float encode_head(const float* x, size_t dim, uint8_t* high, uint8_t* low) {
    Lanes top = fill(0.0f);
    along(dim, [&](size_t i, size_t n) { top = larger(absolute(load(x + i, n)), top); });
    const float scale = larger_of(max_of(top) / (low ? kQueryMax : kSymmetricMax), kSymmetricLeastScale);
    const Lanes inverse = fill(1.0f / scale);
    along(dim, [&](size_t i, size_t n) {
        const Lanes y = rounded(load(x + i, n) * inverse);
        if (low) {
            store_halves(low + i, high + i, y + fill(kQueryZeroPoint));
        } else {
            store_bytes(high + i, y + fill(float{kSymmetricZeroPoint}));
        }
    });
    return scale;
}

inline void encode_heads(const Int8Heads& a, float* x, size_t stride, size_t first, size_t last, size_t begin,
                         size_t end) {
    const size_t half = a.dim / 2;
    for (size_t t = begin; t < end; ++t) {
        const size_t position = static_cast<size_t>(a.positions[t]) * half;
        for (size_t slice = first; slice < last; ++slice) {
            const size_t part = slice / a.heads, place = slice % a.heads * a.tokens + t;
            float* own = x + (t - begin) * stride + (slice - first) * a.dim;
            if (part < 2) turn(own, a.cos + position, a.sin + position, half, fill(1.0f), own);
            const size_t at = place * a.stride;
            if (part == 0) {
                a.query_scale[place] = encode_head(own, a.dim, a.query_high + at, a.query_low + at);
            } else if (part == 1) {
                a.key_scale[place] = encode_head(own, a.dim, a.key + at, nullptr);
            } else {
                a.value_scale[place] = encode_head(own, a.dim, a.value + at, nullptr);
            }
        }
    }
}

struct Int8AttentionLayout : Layout {
    size_t blocks, across;           // of sixteen keys; keys in whole blocks
    size_t dim_blocks;               // of sixteen values of a token
    size_t dim_depth, key_depth;     // of the two products
    size_t keys;                     // packed [blocks, dim_depth, 16, 4]
    size_t values;                   // packed [dim_blocks, key_depth, 16, 4]
    size_t low_start, high_start;    // [across] int32: initial sums for low and high bytes of queries
    size_t value_start;              // [stride] int32: initial sums for bytes of shares
    size_t key_scale, value_weight;  // [across] float
    size_t query_low, query_high;    // packed
    size_t scores;                   // [kInt8Queries, across] float
    size_t top;                      // [kInt8Queries, 16] float
    size_t low, high;                // [4 * key_depth] bytes of a row of probabilities
    size_t share_low, share_high;    // packed

    Int8AttentionLayout(const Int8Heads& a, size_t tokens) {
        const int most = static_cast<int>(kInt8Queries) + kRows;
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
        query_low = take(Dots::packed_bytes(most, dim_depth));
        query_high = take(Dots::packed_bytes(most, dim_depth));
        scores = take(kInt8Queries * across * sizeof(float));
        top = take(kInt8Queries * 16 * sizeof(float));
        low = take(4 * key_depth);
        high = take(4 * key_depth);
        share_low = take(Dots::packed_bytes(most, key_depth));
        share_high = take(Dots::packed_bytes(most, key_depth));
    }
};

inline size_t int8_attention_scratch(const Int8Heads& a, size_t tokens) { return Int8AttentionLayout(a, tokens).all; }

class Int8Attention {
public:
    Int8Attention(const Int8Heads& a, size_t head, size_t begin, size_t end, void* scratch)
        : a_(a),
          head_(head),
          begin_(begin),
          tokens_(end - begin),
          at_(a, tokens_),
          memory_(static_cast<char*>(scratch)) {
        pack_keys();
        pack_values();
    }

    // Queries `first` to `last` of the text, at most kInt8Queries.
    void run(size_t first, size_t last) {
        const size_t from = place() + first;
        rows_ = static_cast<int>(last - first);
        scores(from);
        float factor[kInt8Queries];
        shares(a_.query_scale + from, factor);
        mix(a_.y + (begin_ + first) * a_.heads * a_.dim + head_ * a_.dim, factor);
    }

private:
    static constexpr uint32_t kSigned = 0x80808080u;  // makes four bytes with kSymmetricZeroPoint signed

    template <class T>
    T* array(size_t offset) const {
        return reinterpret_cast<T*>(memory_ + offset);
    }
    size_t place() const { return head_ * a_.tokens + begin_; }

    void pack_keys() {
        auto* keys = array<uint8_t>(at_.keys);
        std::memset(keys, 0, at_.blocks * at_.dim_depth * 64);
        for (size_t j = 0; j < tokens_; ++j) {
            const uint8_t* from = a_.key + (place() + j) * a_.stride;
            uint8_t* to = keys + (j / 16 * at_.dim_depth * 16 + j % 16) * 4;
            for (size_t d = 0; d < a_.stride; d += 4, to += 64) {
                const uint32_t four = static_cast<uint32_t>(load_int(from + d)) ^ kSigned;
                std::memcpy(to, &four, 4);
            }
        }
        // NaN is not larger than anything.
        auto* scale = array<float>(at_.key_scale);
        for (size_t j = tokens_; j < at_.across; ++j) scale[j] = NAN;
        std::memcpy(scale, a_.key_scale + place(), tokens_ * sizeof *scale);
        // Dots takes kDotsZeroPoint off each byte.
        auto *low = array<int32_t>(at_.low_start), *high = array<int32_t>(at_.high_start);
        sum_columns(array<int8_t>(at_.keys), at_.dim_depth, 0, at_.blocks, low);
        for (size_t j = 0; j < at_.across; ++j) {
            high[j] = low[j] * (kDotsZeroPoint - kSymmetricZeroPoint);
            low[j] *= kDotsZeroPoint;
        }
    }

    void pack_values() {
        auto* values = array<uint8_t>(at_.values);
        std::memset(values, 0, at_.dim_blocks * at_.key_depth * 64);
        const uint8_t* from = a_.value + place() * a_.stride;
        uint8_t none[16];
        std::memset(none, kSymmetricZeroPoint, sizeof none);
        for (size_t block = 0; block < at_.dim_blocks; ++block) {
            uint8_t* to = values + block * at_.key_depth * 64;
            for (size_t j = 0; j < tokens_; j += 4, to += 64) {
                const uint8_t* row = from + j * a_.stride + 16 * block;
                const uint8_t *one = j + 1 < tokens_ ? row + a_.stride : none,
                              *two = j + 2 < tokens_ ? row + 2 * a_.stride : none,
                              *three = j + 3 < tokens_ ? row + 3 * a_.stride : none;
                uint32_t fours[16];
                for (int d = 0; d < 16; ++d) {
                    fours[d] = (static_cast<uint32_t>(row[d]) | static_cast<uint32_t>(one[d]) << 8 |
                                static_cast<uint32_t>(two[d]) << 16 | static_cast<uint32_t>(three[d]) << 24) ^
                               kSigned;
                }
                std::memcpy(to, fours, sizeof fours);
            }
        }
        auto* start = array<int32_t>(at_.value_start);
        sum_columns(array<int8_t>(at_.values), at_.key_depth, 0, at_.dim_blocks, start);
        for (size_t d = 0; d < a_.stride; ++d) start[d] *= kDotsZeroPoint;
        const float* scale = a_.value_scale + place();
        Lanes top = fill(0.0f);
        along(tokens_, [&](size_t i, size_t n) { top = larger(load(scale + i, n), top); });
        top_ = max_of(top);
        auto* weight = array<float>(at_.value_weight);
        along(tokens_,
              [&](size_t i, size_t n) { store(weight + i, load(scale + i, n) / fill(top_) * fill(kProbabilityMax)); });
    }

    // Finishes a block of scores: [r][j] = (query r * key j) * scale of key j, and the largest of each lane.
    struct ToScores {
        const int32_t *low = nullptr, *high = nullptr;
        const float* scale = nullptr;
        float *to = nullptr, *top = nullptr;
        size_t across = 0;
        int blocks = 0, first = 0;

        void operator()(int i) const {
            const int r = first + i;
            Lanes largest = load(top + 16 * r);
            for (int b = 0; b < blocks; ++b) {
                const int at = kPanel * r + 16 * b;
                const Lanes score = joined(high + at, low + at) * load(scale + 16 * b);
                store(to + r * across + 16 * b, score);
                largest = larger(score, largest);
            }
            store(top + 16 * r, largest);
        }
    };

    void scores(size_t from) {
        const Dots dots(rows_, at_.dim_depth);
        auto *low = array<uint8_t>(at_.query_low), *high = array<uint8_t>(at_.query_high);
        for (int r = 0; r < rows_; ++r) {
            dots.pack(r, 0, a_.query_low + (from + r) * a_.stride, a_.stride, low);
            dots.pack(r, 0, a_.query_high + (from + r) * a_.stride, a_.stride, high);
        }
        alignas(64) int32_t low_sums[2][kRows * kPanel], high_sums[2][kRows * kPanel];
        const auto* keys = array<int8_t>(at_.keys);
        const auto *low_start = array<int32_t>(at_.low_start), *high_start = array<int32_t>(at_.high_start);
        auto* top = array<float>(at_.top);
        for (int r = 0; r < rows_; ++r) store(top + 16 * r, fill(-INFINITY));
        ToScores before;
        int units = 0, turn = 0;
        for (size_t block = 0; block < at_.blocks; block += kBlocks) {
            const int blocks = at_.blocks - block < kBlocks ? static_cast<int>(at_.blocks - block) : kBlocks;
            const int8_t* weight = keys + block * at_.dim_depth * 64;
            for (int row = 0; row < rows_; row += dots.height(), turn = 1 - turn) {
                const int rows = rows_ - row < dots.height() ? rows_ - row : dots.height();
                before.first = 0;
                dots(low, row, rows, weight, blocks, low_start + 16 * block, low_sums[turn], before, units / 2,
                     Ahead());
                before.first = units / 2;
                dots(high, row, rows, weight, blocks, high_start + 16 * block, high_sums[turn], before,
                     units - units / 2, Ahead());
                before.low = low_sums[turn];
                before.high = high_sums[turn];
                before.scale = array<float>(at_.key_scale) + 16 * block;
                before.to = array<float>(at_.scores) + row * at_.across + 16 * block;
                before.top = top + 16 * row;
                before.across = at_.across;
                before.blocks = blocks;
                units = rows;
            }
        }
        before.first = 0;
        for (int i = 0; i < units; ++i) before(i);
    }

    // share[r][j] = 2^(score - largest) * scale of value j, in 15 bits; factor_of[r] makes their mix a mean.
    void shares(const float* query_scale, float* factor_of) {
        const Dots dots(rows_, at_.key_depth);
        const float share = top_ / kProbabilityMax, root = 1.44269504f / sqrtf(static_cast<float>(a_.dim));
        const auto* weight = array<float>(at_.value_weight);
        auto *low = array<uint8_t>(at_.low), *high = array<uint8_t>(at_.high);
        std::memset(low, 0, 4 * at_.key_depth);
        std::memset(high, 0, 4 * at_.key_depth);
        for (int r = 0; r < rows_; ++r) {
            const float* scores = array<float>(at_.scores) + r * at_.across;
            Lanes sum = fill(0.0f);
            const Lanes largest = fill(max_of(load(array<float>(at_.top) + 16 * r))),
                        factor = fill(query_scale[r] * root);
            along(tokens_, [&](size_t i, size_t n) {
                const Lanes e = first(exp2_of((load(scores + i) - largest) * factor), n);
                sum = sum + e;
                store_halves(low + i, high + i, e * first(load(weight + i), n));
            });
            factor_of[r] = share / sum_of(sum);
            dots.pack(r, 0, low, 4 * at_.key_depth, array<uint8_t>(at_.share_low));
            dots.pack(r, 0, high, 4 * at_.key_depth, array<uint8_t>(at_.share_high));
        }
    }

    void mix(float* y, const float* factor_of) {
        const Dots dots(rows_, at_.key_depth);
        alignas(64) int32_t low_sums[kRows * kPanel], high_sums[kRows * kPanel];
        const auto* values = array<int8_t>(at_.values);
        const auto *low = array<uint8_t>(at_.share_low), *high = array<uint8_t>(at_.share_high);
        for (size_t block = 0; block < at_.dim_blocks; block += kBlocks) {
            const int blocks = at_.dim_blocks - block < kBlocks ? static_cast<int>(at_.dim_blocks - block) : kBlocks;
            const int8_t* weight = values + block * at_.key_depth * 64;
            const int32_t* start = array<int32_t>(at_.value_start) + 16 * block;
            for (int row = 0; row < rows_; row += dots.height()) {
                const int rows = rows_ - row < dots.height() ? rows_ - row : dots.height();
                dots(low, row, rows, weight, blocks, start, low_sums, NoUnit(), 0, Ahead());
                dots(high, row, rows, weight, blocks, start, high_sums, NoUnit(), 0, Ahead());
                for (int r = 0; r < rows; ++r) {
                    const Lanes factor = fill(factor_of[row + r]);
                    for (int b = 0; b < blocks; ++b) {
                        const int at = kPanel * r + 16 * b;
                        const size_t column = 16 * (block + b), left = a_.dim - column, n = left < 16 ? left : 16;
                        float* to = y + (row + r) * a_.heads * a_.dim + column;
                        store(to, joined_wide(high_sums + at, low_sums + at) * factor, n);
                    }
                }
            }
        }
    }

    const Int8Heads& a_;
    size_t head_, begin_, tokens_;
    Int8AttentionLayout at_;
    char* memory_;
    int rows_ = 0;
    float top_ = 0;
};

inline void int8_attention(const Int8Heads& a, size_t head, size_t begin, size_t end, size_t first, size_t last,
                           void* scratch) {
    Int8Attention attention(a, head, begin, end, scratch);
    for (size_t query = first; query < last; query += kInt8Queries) {
        attention.run(query, last - query < kInt8Queries ? last : query + kInt8Queries);
    }
}

}  // namespace
}  // namespace moembed
