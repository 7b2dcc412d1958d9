// Dot products with AMX. A tile holds sixty-four values of sixteen rows, or their weights of sixteen columns in the
// layout of the file. AVX512-VNNI computes a few rows, and what
// is left of the depth after the last multiple of sixty-four.
#pragma once

#include <immintrin.h>

#include "tile_vnni512.h"

namespace moembed {
namespace {

constexpr int kRows = 32;
constexpr int kBlocks = 2;
constexpr int kDotsZeroPoint = 0;
constexpr int kFew = 4;  // up to so many rows, tiles are slower
constexpr int kStride = 16 * kBlocks;

class Dots {
public:
    Dots() = default;
    Dots(const Dots&) = delete;
    Dots& operator=(const Dots&) = delete;
    ~Dots() {
        if (upper_) _tile_release();  // switching to a thread with tiles in use takes longer
    }

    void operator()(const uint8_t* quantized, size_t stride, int rows, const int8_t* weight, size_t depth, int blocks,
                    const int32_t* start, int32_t* out) {
        const size_t whole = rows > kFew ? depth / 16 : 0;
        if (whole) {
            configure(rows);
            (rows > 16     ? blocks == 2 ? tiles<2, 2> : tiles<2, 1>
             : blocks == 2 ? tiles<1, 2>
                           : tiles<1, 1>)(quantized, stride, weight, depth * 64, whole, start, out);
        }
        if (whole * 16 == depth) return;
        quantized += whole * 64;
        weight += whole * 1024;
        for (int r = 0; r < rows; ++r, quantized += stride, out += kStride) {
            (blocks == 2 ? vnni_tile<1, 2, kStride> : vnni_tile<1, 1, kStride>)(quantized, stride, weight, depth * 64,
                                                                                depth - whole * 16, whole ? out : start,
                                                                                out);
        }
    }

private:
    // The operand of _tile_loadconfig for palette 1: rows and bytes per row of each tile.
    struct alignas(64) Configuration {
        uint8_t palette = 1, start_row = 0, reserved[14] = {};
        uint16_t bytes[16] = {};
        uint8_t rows[16] = {};
    };

    // Tiles 0 to 3 hold the sums of each half of the rows and block, 4 and 5 quantized rows, 6 and 7 weights.
    void configure(int rows) {
        const int upper = rows < 16 ? rows : 16, lower = rows > 16 ? rows - 16 : 1;
        if (upper == upper_ && lower == lower_) return;
        upper_ = upper;
        lower_ = lower;
        Configuration c;
        const int rows_of_tile[8] = {upper, upper, lower, lower, upper, lower, 16, 16};
        for (int i = 0; i < 8; ++i) {
            c.bytes[i] = 64;
            c.rows[i] = static_cast<uint8_t>(rows_of_tile[i]);
        }
#if defined(__GNUC__)
        // GCC 12 does not know that the instruction reads the configuration, and would drop the stores.
        __asm__ volatile("" : : "r"(&c) : "memory");
#endif
        _tile_loadconfig(&c);
    }

    template <int H, int B>
    static void tiles(const uint8_t* quantized, size_t stride, const int8_t* weight, size_t block, size_t whole,
                      const int32_t* start, int32_t* out) {
        // A stride of 0: every row starts with the same sums.
        _tile_loadd(0, start, 0);
        if constexpr (B == 2) _tile_loadd(1, start + 16, 0);
        if constexpr (H == 2) _tile_loadd(2, start, 0);
        if constexpr (H == 2 && B == 2) _tile_loadd(3, start + 16, 0);
        const uint8_t* below = quantized + 16 * stride;
        for (size_t k = 0; k < whole; ++k) {
            _tile_loadd(4, quantized + 64 * k, stride);
            _tile_loadd(6, weight + 1024 * k, 64);
            _tile_dpbusd(0, 4, 6);
            if constexpr (B == 2) {
                _tile_loadd(7, weight + block + 1024 * k, 64);
                _tile_dpbusd(1, 4, 7);
            }
            if constexpr (H == 2) {
                _tile_loadd(5, below + 64 * k, stride);
                _tile_dpbusd(2, 5, 6);
                if constexpr (B == 2) _tile_dpbusd(3, 5, 7);
            }
        }
        _tile_stored(0, out, 128);
        if constexpr (B == 2) _tile_stored(1, out + 16, 128);
        if constexpr (H == 2) _tile_stored(2, out + 16 * 32, 128);
        if constexpr (H == 2 && B == 2) _tile_stored(3, out + 16 * 32 + 16, 128);
    }

    int upper_ = 0, lower_ = 0;
};

}  // namespace
}  // namespace moembed
