// Attention within one text, over integers: both products are exact sums, and what lies between them depends on one query
// and all keys only. So the result does not depend on how an instruction set divides the work. See quantize/functions.py
// for the arithmetic, and kernel_heads.h for what comes before.
#pragma once

#include "kernel_heads.h"

namespace moembed {
namespace {

constexpr size_t kInt8Queries = kRows > 32 ? kRows : 32;  // whose scores are in memory at a time
// Up to so many keys, the sums of shares and values fit 32 bits: 32767 * 127 * 516 < 2^31.
constexpr size_t kNarrowKeys = 516;

struct Int8AttentionLayout : Layout {
    size_t query_low, query_high;  // packed
    size_t scores;                 // [kInt8Queries, across] float
    size_t top;                    // [kInt8Queries, 16] float
    size_t share_low, share_high;  // packed
    size_t share_bytes;            // of each of both

    Int8AttentionLayout(const PackedHead& at) {
        const int most = static_cast<int>(kInt8Queries) + kRows;
        query_low = take(Dots::packed_bytes(most, at.dim_depth));
        query_high = take(Dots::packed_bytes(most, at.dim_depth));
        scores = take(kInt8Queries * at.across * sizeof(float));
        top = take(kInt8Queries * 16 * sizeof(float));
        share_bytes = Dots::packed_bytes(most, at.key_depth);
        share_low = take(share_bytes);
        share_high = take(share_bytes);
    }
};

inline size_t int8_attention_scratch(const Int8Heads& a, size_t tokens) {
    return Int8AttentionLayout(PackedHead(a, tokens)).all;
}

class Int8Attention {
public:
    Int8Attention(const Int8Heads& a, size_t begin, size_t end, void* scratch)
        : a_(a), begin_(begin), tokens_(end - begin), head_at_(a, tokens_), at_(head_at_), scratch_(scratch) {
        // Bytes after the last key are multiplied with 0.
        std::memset(array<uint8_t>(at_.share_low), 0, at_.share_bytes);
        std::memset(array<uint8_t>(at_.share_high), 0, at_.share_bytes);
    }

    // Queries `first` to `last` of all heads, at most kInt8Queries; `y` is [last - first, heads * dim].
    void run(const char* packed, size_t first, size_t last, float* y) {
        rows_ = static_cast<int>(last - first);
        const Dots by_dim(rows_, head_at_.dim_depth), by_key = by_dim.with_depth(head_at_.key_depth);
        for (size_t head = 0; head < a_.heads; ++head) {
            packed_ = packed + head * head_at_.all;
            const size_t from = head * a_.tokens + begin_ + first;
            scores(by_dim, from);
            float factor[kInt8Queries];
            shares(by_key, a_.query_scale + from, factor);
            mix(by_key, y + head * a_.dim, factor);
        }
    }

private:
    template <class T>
    T* array(size_t offset) const {
        return reinterpret_cast<T*>(static_cast<char*>(scratch_) + offset);
    }
    template <class T>
    const T* packed(size_t offset) const {
        return reinterpret_cast<const T*>(packed_ + offset);
    }
    int rows_from(int row, const Dots& dots) const { return rows_ - row < dots.height() ? rows_ - row : dots.height(); }

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

    void scores(const Dots& dots, size_t from) {
        auto *low = array<uint8_t>(at_.query_low), *high = array<uint8_t>(at_.query_high);
        for (int r = 0; r < rows_; ++r) {
            dots.put(dots.place(r, low), 0, a_.query_low + (from + r) * a_.stride, a_.stride);
            dots.put(dots.place(r, high), 0, a_.query_high + (from + r) * a_.stride, a_.stride);
        }
        alignas(64) int32_t low_sums[2][kRows * kPanel], high_sums[2][kRows * kPanel];
        const auto *low_start = packed<int32_t>(head_at_.low_start), *high_start = packed<int32_t>(head_at_.high_start);
        auto* top = array<float>(at_.top);
        for (int r = 0; r < rows_; ++r) store(top + 16 * r, fill(-INFINITY));
        ToScores before;
        int units = 0, turn = 0;
        for (size_t block = 0; block < head_at_.blocks; block += kBlocks) {
            const size_t left = head_at_.blocks - block;
            const int blocks = left < kBlocks ? static_cast<int>(left) : kBlocks;
            const int8_t* weight = packed<int8_t>(head_at_.keys) + block * head_at_.dim_depth * 64;
            for (int row = 0; row < rows_; row += dots.height(), turn = 1 - turn) {
                const int rows = rows_from(row, dots);
                before.first = 0;
                dots(low, row, rows, weight, blocks, low_start + 16 * block, low_sums[turn], before, units / 2,
                     Ahead());
                before.first = units / 2;
                dots(high, row, rows, weight, blocks, high_start + 16 * block, high_sums[turn], before,
                     units - units / 2, Ahead());
                before.low = low_sums[turn];
                before.high = high_sums[turn];
                before.scale = packed<float>(head_at_.key_scale) + 16 * block;
                before.to = array<float>(at_.scores) + row * head_at_.across + 16 * block;
                before.top = top + 16 * row;
                before.across = head_at_.across;
                before.blocks = blocks;
                units = rows;
            }
        }
        before.first = 0;
        for (int i = 0; i < units; ++i) before(i);
    }

    // share[r][j] = 2^(score - largest) * scale of value j, in 15 bits; factor_of[r] makes their mix a mean.
    void shares(const Dots& dots, const float* query_scale, float* factor_of) {
        const float share = *packed<float>(head_at_.top_value) / kProbabilityMax;
        const float root = 1.44269504f / sqrtf(static_cast<float>(a_.dim));
        const auto* weight = packed<float>(head_at_.value_weight);
        auto *low = array<uint8_t>(at_.share_low), *high = array<uint8_t>(at_.share_high);
        for (int r = 0; r < rows_; ++r) {
            const float* scores = array<float>(at_.scores) + r * head_at_.across;
            uint8_t *low_place = dots.place(r, low), *high_place = dots.place(r, high);
            Lanes sum = fill(0.0f);
            const Lanes largest = fill(max_of(load(array<float>(at_.top) + 16 * r))),
                        factor = fill(query_scale[r] * root);
            along(tokens_, [&](size_t i, size_t n) {
                const Lanes e = first(exp2_of((load(scores + i) - largest) * factor), n);
                sum = sum + e;
                uint8_t low_part[16], high_part[16];
                store_two_bytes(low_part, high_part, e * load(weight + i) + fill(kRound));
                dots.put(low_place, i, low_part, sizeof low_part);
                dots.put(high_place, i, high_part, sizeof high_part);
            });
            factor_of[r] = share / sum_of(sum);
        }
    }

    void mix(const Dots& dots, float* y, const float* factor_of) {
        const bool narrow = tokens_ <= kNarrowKeys;
        alignas(64) int32_t low_sums[kRows * kPanel], high_sums[kRows * kPanel];
        const auto *low = array<uint8_t>(at_.share_low), *high = array<uint8_t>(at_.share_high);
        for (size_t block = 0; block < head_at_.dim_blocks; block += kBlocks) {
            const size_t left = head_at_.dim_blocks - block;
            const int blocks = left < kBlocks ? static_cast<int>(left) : kBlocks;
            const int8_t* weight = packed<int8_t>(head_at_.values) + block * head_at_.key_depth * 64;
            const int32_t* start = packed<int32_t>(head_at_.value_start) + 16 * block;
            for (int row = 0; row < rows_; row += dots.height()) {
                const int rows = rows_from(row, dots);
                dots(low, row, rows, weight, blocks, start, low_sums, NoUnit(), 0, Ahead());
                dots(high, row, rows, weight, blocks, start, high_sums, NoUnit(), 0, Ahead());
                for (int r = 0; r < rows; ++r) {
                    const Lanes factor = fill(factor_of[row + r]);
                    for (int b = 0; b < blocks; ++b) {
                        const int32_t *h = high_sums + kPanel * r + 16 * b, *l = low_sums + kPanel * r + 16 * b;
                        const size_t column = 16 * (block + b), rest = a_.dim - column, n = rest < 16 ? rest : 16;
                        float* to = y + static_cast<size_t>(row + r) * a_.heads * a_.dim + column;
                        store(to, (narrow ? joined(h, l) : joined_wide(h, l)) * factor, n);
                    }
                }
            }
        }
    }

    const Int8Heads& a_;
    size_t begin_, tokens_;
    PackedHead head_at_;
    Int8AttentionLayout at_;
    void* scratch_;
    const char* packed_ = nullptr;
    int rows_ = 0;
};

inline void int8_attention(const Int8Heads& a, const void* packed, size_t begin, size_t end, size_t first, size_t last,
                           float* y, void* scratch) {
    Int8Attention attention(a, begin, end, scratch);
    for (size_t query = first; query < last; query += kInt8Queries) {
        const size_t after = last - query < kInt8Queries ? last : query + kInt8Queries;
        attention.run(static_cast<const char*>(packed), query, after, y + (query - first) * a.heads * a.dim);
    }
}

}  // namespace
}  // namespace moembed
