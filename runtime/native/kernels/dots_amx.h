// Dot products with AMX. A tile holds sixty-four values of up to sixteen rows, or their weights of sixteen columns in
// the layout of the file. AVX512-VNNI computes a few rows, and what is left of the depth after the last multiple of
// sixty-four.
//
// A block has two tiles of rows and two blocks of columns. A product of tiles takes as many cycles as its first operand
// has rows, so the rows of a task are divided into tiles of equal height, and the tiles are configured once. While the
// tile unit computes a block, the vector units finish the one before: `unit` is called between the products.
//
// The tile unit takes one of the two units for floats meanwhile (measured on Emerald Rapids), and only additions and integers
// keep their full rate: what is woven should multiply, convert and compare floats as little as possible.
#pragma once

#include <immintrin.h>

#include "row_count.h"
#include "rows_in_place.h"
#include "tile_vnni512.h"

namespace moembed {
namespace {

constexpr int kRows = 32;
constexpr int kBlocks = 2;
constexpr size_t kTaskRows = 256;
constexpr int kDotsZeroPoint = 0;
constexpr int kFew = 4;  // up to so many rows, tiles are slower
constexpr int kStride = 16 * kBlocks;

// The operand of _tile_loadconfig for palette 1: rows and bytes per row of each tile.
struct alignas(64) TileConfiguration {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t bytes[16] = {};
    uint8_t rows[16] = {};
};

class Dots {
public:
    Dots(int rows, size_t depth) : depth_(depth), halves_(rows > 16 ? 2 : 1), tile_(rows > kFew ? tile_rows(rows) : 0) {
        if (!tile_) return;
        per_row_ = (uint64_t{1} << 32) / static_cast<uint64_t>(tile_) + 1;
        configured_ = true;
        configure();
    }
    Dots(const Dots&) = delete;
    Dots& operator=(const Dots&) = delete;
    ~Dots() {
        if (configured_) _tile_release();  // switching to a thread with tiles in use takes longer
    }
    // The same rows with another depth, in the tiles of this one, which must outlive it.
    Dots with_depth(size_t depth) const { return Dots(*this, depth); }

    int height() const { return tile_ ? halves_ * tile_ : kFew; }

    static size_t depth_for(size_t values) { return (values + 63) / 64 * 16; }
    static size_t packed_bytes(int rows, size_t depth) {
        if (rows <= kFew) return static_cast<size_t>(rows) * 4 * depth;
        const size_t height = static_cast<size_t>(rows > 16 ? 2 * tile_rows(rows) : rows);
        return (rows + height - 1) / height * height * chunks(depth) * 64;
    }

    // A tile's values lie one after the other.
    uint8_t* place(int row, uint8_t* packed) const {
        if (!tile_) return packed + static_cast<size_t>(row) * 4 * depth_;
        // row / tile_ without a division, for rows below 2^28.
        const auto r = static_cast<uint64_t>(row), tile = r * per_row_ >> 32, height = static_cast<uint64_t>(tile_);
        return packed + (tile * chunks(depth_) * height + r - tile * height) * 64;
    }
    // No part of more than 64 values begins within a tile.
    void put(uint8_t* place, size_t column, const uint8_t* values, size_t count) const {
        if (!tile_) {
            std::memcpy(place + column, values, count);
            return;
        }
        const size_t stride = static_cast<size_t>(tile_) * 64;
        uint8_t* to = place + column / 64 * stride + column % 64;
        for (; count >= 64; values += 64, to += stride, count -= 64)
            _mm512_storeu_si512(to, _mm512_loadu_si512(values));
        if (count) std::memcpy(to, values, count);
    }

    template <class Unit>
    void operator()(const uint8_t* packed, int row, int rows, const int8_t* weight, int blocks, const int32_t* start,
                    int32_t* out, const Unit& unit, int units, Ahead ahead) const {
        if (!tile_) {
            with_row_count<kFew>(rows, [&](auto r) {
                constexpr int kR = decltype(r)::value;
                (blocks == 2 ? vnni_tile<kR, 2, kStride>
                             : vnni_tile<kR, 1, kStride>)(packed + static_cast<size_t>(row) * 4 * depth_, 4 * depth_,
                                                          weight, depth_ * 64, depth_, start, out);
            });
            for (int i = 0; i < units; ++i) unit(i);
            return;
        }
        const size_t whole = depth_ / 16, height = static_cast<size_t>(tile_);
        const uint8_t* upper = packed + static_cast<size_t>(row) * chunks(depth_) * 64;
        if (whole) {
            (halves_ == 2  ? blocks == 2 ? tiles<2, 2, Unit> : tiles<2, 1, Unit>
             : blocks == 2 ? tiles<1, 2, Unit>
                           : tiles<1, 1, Unit>)(upper, chunks(depth_), height, weight, depth_ * 64, whole, start, out,
                                                unit, units, ahead);
        } else {
            for (int i = 0; i < units; ++i) unit(i);
        }
        if (whole * 16 == depth_) return;
        for (size_t r = 0; r < static_cast<size_t>(rows); ++r) {
            const size_t tile = r / height * chunks(depth_) + whole;
            (blocks == 2 ? vnni_tile<1, 2, kStride>
                         : vnni_tile<1, 1, kStride>)(upper + (tile * height + r % height) * 64, 64,
                                                     weight + whole * 1024, depth_ * 64, depth_ - whole * 16,
                                                     whole ? out + kStride * r : start, out + kStride * r);
        }
    }

private:
    Dots(const Dots& other, size_t depth)
        : depth_(depth), halves_(other.halves_), tile_(other.tile_), per_row_(other.per_row_) {}

    static size_t chunks(size_t depth) { return (depth + 15) / 16; }
    static int tile_rows(int rows) {
        const int tiles = rows > 16 ? (rows + kRows - 1) / kRows * 2 : 1;
        return (rows + tiles - 1) / tiles;
    }

    // Tiles 0 to 3 hold the sums of each half of the rows and block, 4 and 5 quantized rows, 6 and 7 weights.
    void configure() const {
        TileConfiguration c;
        for (int i = 0; i < 8; ++i) {
            c.bytes[i] = 64;
            c.rows[i] = static_cast<uint8_t>(i < 6 ? tile_ : 16);
        }
#if defined(__GNUC__)
        // GCC 12 does not know that the instruction reads the configuration, and would drop the stores.
        __asm__ volatile("" : : "r"(&c) : "memory");
#endif
        _tile_loadconfig(&c);
    }

    // Calls `unit` for each row of the block before, in the gaps between the products: `Gaps` of four, `Each` times.
    template <class Unit>
    struct Weaver {
        const Unit& unit;
        int units, next = 0;
        MOEMBED_INLINE void operator()() {
            if (next < units) unit(next++);
        }
    };

    template <int H, int B, class Unit>
    static void tiles(const uint8_t* upper, size_t chunks, size_t height, const int8_t* weight, size_t block,
                      size_t whole, const int32_t* start, int32_t* out, const Unit& unit, int units, Ahead ahead) {
        Weaver<Unit> weaver{unit, units};
        if (whole >= 32) {
            products<H, B, 1, 1>(upper, chunks, height, weight, block, whole, start, out, weaver, ahead);
        } else if (whole >= 16) {
            products<H, B, 2, 1>(upper, chunks, height, weight, block, whole, start, out, weaver, ahead);
        } else if (whole >= 8) {
            products<H, B, 4, 1>(upper, chunks, height, weight, block, whole, start, out, weaver, ahead);
        } else {
            products<H, B, 4, 2>(upper, chunks, height, weight, block, whole, start, out, weaver, ahead);
        }
        while (weaver.next < units) weaver();
    }

    template <int H, int B, int Gaps, int Each, class W>
    static inline void products(const uint8_t* upper, size_t chunks, size_t height, const int8_t* weight, size_t block,
                                size_t whole, const int32_t* start, int32_t* out, W& weaver, Ahead ahead) {
        const auto gap = [&](int i) {
            if (i >= Gaps) return;
            MOEMBED_UNROLL
            for (int j = 0; j < Each; ++j) weaver();
        };
        const uint8_t* lower = upper + chunks * height * 64;
        const size_t lines = (ahead.lines + whole - 1) / whole, beside = ahead.beside;
        const char* next = reinterpret_cast<const char*>(ahead.weight);
#if defined(__GNUC__)
        __asm__ volatile("" : : : "memory");  // nor that _tile_loadd reads memory
#endif
        // A stride of 0: every row starts with the same sums.
        _tile_loadd(0, start, 0);
        if constexpr (B == 2) _tile_loadd(1, start + 16, 0);
        if constexpr (H == 2) _tile_loadd(2, start, 0);
        if constexpr (H == 2 && B == 2) _tile_loadd(3, start + 16, 0);
        for (size_t k = 0; k < whole; ++k, upper += height * 64, lower += height * 64, weight += 1024) {
            for (size_t i = 0; i < lines; ++i, next += 64) {
                _mm_prefetch(next, _MM_HINT_T1);
                if (beside) _mm_prefetch(next + beside, _MM_HINT_T1);
            }
            _tile_stream_loadd(4, upper, 64);
            _tile_loadd(6, weight, 64);
            _tile_dpbusd(0, 4, 6);
            gap(0);
            if constexpr (B == 2) {
                _tile_loadd(7, weight + block, 64);
                _tile_dpbusd(1, 4, 7);
            }
            gap(2);
            if constexpr (H == 2) {
                _tile_stream_loadd(5, lower, 64);
                _tile_dpbusd(2, 5, 6);
            }
            gap(1);
            if constexpr (H == 2 && B == 2) _tile_dpbusd(3, 5, 7);
            gap(3);
        }
        _tile_stored(0, out, 4 * kStride);
        if constexpr (B == 2) _tile_stored(1, out + 16, 4 * kStride);
        out += kStride * height;
        if constexpr (H == 2) _tile_stored(2, out, 4 * kStride);
        if constexpr (H == 2 && B == 2) _tile_stored(3, out + 16, 4 * kStride);
#if defined(__GNUC__)
        __asm__ volatile("" : : : "memory");
#endif
    }

    size_t depth_;
    int halves_, tile_;        // tiles of rows in a block, rows in a tile
    uint64_t per_row_ = 0;     // 2^32 / tile_
    bool configured_ = false;  // by this object
};

}  // namespace
}  // namespace moembed
