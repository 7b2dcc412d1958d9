// Dots with AMX: a tile is sixteen rows of sixty-four codes, or the weights that these meet in sixteen columns, as they lie in
// the file. Few rows, and a depth beyond the last multiple of sixty-four, are AVX512-VNNI's.
#pragma once

#include <immintrin.h>

namespace moembed {
namespace {

constexpr int kRows = 32;
constexpr int kBlocks = 2;
constexpr int kZero = 0;

}  // namespace
}  // namespace moembed

#define MOEMBED_DOTS_AMX
#include "dots_avx512vnni.h"

namespace moembed {
namespace {

constexpr int kFew = 4;  // rows for which a tile is not worth it

class Dots {
public:
    Dots() = default;
    Dots(const Dots&) = delete;
    Dots& operator=(const Dots&) = delete;
    ~Dots() {
        if (upper_) _tile_release();  // a thread with tiles in use is slower to switch to
    }

    void operator()(const uint8_t* codes, size_t stride, int rows, const int8_t* weight, size_t depth, int blocks,
                    const int32_t* start, int32_t* out) {
        const size_t whole = rows > kFew ? depth / 16 : 0;
        if (whole) {
            configure(rows);
            (rows > 16     ? blocks == 2 ? tiles<2, 2> : tiles<2, 1>
             : blocks == 2 ? tiles<1, 2>
                           : tiles<1, 1>)(codes, stride, weight, depth * 64, whole, start, out);
        }
        if (whole * 16 == depth) return;
        codes += whole * 64;
        weight += whole * 1024;
        for (int r = 0; r < rows; ++r, codes += stride, out += 32) {
            (blocks == 2 ? vnni_tile<1, 2> : vnni_tile<1, 1>)(codes, stride, weight, depth * 64, depth - whole * 16,
                                                              whole ? out : start, 0, out);
        }
    }

private:
    // Palette 1: rows and bytes per row of each tile.
    struct alignas(64) Configuration {
        uint8_t palette = 1, start_row = 0, reserved[14] = {};
        uint16_t bytes[16] = {};
        uint8_t rows[16] = {};
    };

    // Tiles 0-3 are sums (row half, block), 4 and 5 codes, 6 and 7 weights.
    void configure(int rows) {
        const int upper = rows < 16 ? rows : 16, lower = rows > 16 ? rows - 16 : 1;
        if (upper == upper_ && lower == lower_) return;
        upper_ = upper;
        lower_ = lower;
        Configuration c;
        const int tall[8] = {upper, upper, lower, lower, upper, lower, 16, 16};
        for (int i = 0; i < 8; ++i) {
            c.bytes[i] = 64;
            c.rows[i] = static_cast<uint8_t>(tall[i]);
        }
#if defined(__GNUC__)
        // GCC 12 does not see that the instruction reads what was stored.
        __asm__ volatile("" : : "r"(&c) : "memory");
#endif
        _tile_loadconfig(&c);
    }

    template <int H, int B>
    static void tiles(const uint8_t* codes, size_t stride, const int8_t* weight, size_t block, size_t whole,
                      const int32_t* start, int32_t* out) {
        // Every row begins with the same sums: a stride of 0.
        _tile_loadd(0, start, 0);
        if constexpr (B == 2) _tile_loadd(1, start + 16, 0);
        if constexpr (H == 2) _tile_loadd(2, start, 0);
        if constexpr (H == 2 && B == 2) _tile_loadd(3, start + 16, 0);
        const uint8_t* below = codes + 16 * stride;
        for (size_t k = 0; k < whole; ++k) {
            _tile_loadd(4, codes + 64 * k, stride);
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
