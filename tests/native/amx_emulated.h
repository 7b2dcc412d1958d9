// AMX-INT8 tiles in software, for machines without: the compiler is told to include this file first and to define
// MOEMBED_AMX_EMULATED, so that the AMX kernels run on a processor
// with AVX512-VNNI. What the instructions forbid aborts.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace amx_emulated {

struct Tile {
    int rows = 0, bytes = 0;
    uint8_t data[16][64] = {};
};

inline Tile* tiles() {
    static thread_local Tile all[8];
    return all;
}

inline void expect(bool that) {
    if (!that) std::abort();
}

inline void configure(const void* memory) {
    const auto* c = static_cast<const uint8_t*>(memory);
    expect(c[0] == 1 && c[1] == 0);
    for (int i = 2; i < 16; ++i) expect(c[i] == 0);
    for (int i = 0; i < 16; ++i) {
        const int bytes = c[16 + 2 * i] | c[17 + 2 * i] << 8, rows = c[48 + i];
        expect(bytes <= 64 && rows <= 16 && (bytes == 0) == (rows == 0) && (i < 8 || rows == 0));
        if (i >= 8) continue;
        tiles()[i] = Tile();
        tiles()[i].rows = rows;
        tiles()[i].bytes = bytes;
    }
}

inline void release() {
    for (int i = 0; i < 8; ++i) tiles()[i] = Tile();
}

inline void load(int t, const void* from, size_t stride) {
    Tile& tile = tiles()[t];
    expect(tile.rows > 0);
    std::memset(tile.data, 0, sizeof tile.data);
    for (int r = 0; r < tile.rows; ++r)
        std::memcpy(tile.data[r], static_cast<const uint8_t*>(from) + r * stride, tile.bytes);
}

inline void store(int t, void* to, size_t stride) {
    const Tile& tile = tiles()[t];
    expect(tile.rows > 0);
    for (int r = 0; r < tile.rows; ++r) std::memcpy(static_cast<uint8_t*>(to) + r * stride, tile.data[r], tile.bytes);
}

// c[m][n] += sum over k and i of a[m][4k + i] (unsigned) * b[k][4n + i] (signed)
inline void multiply(int t, int u, int v) {
    Tile &c = tiles()[t], &a = tiles()[u], &b = tiles()[v];
    expect(t != u && t != v && u != v);
    expect(c.rows == a.rows && c.bytes == b.bytes && a.bytes == 4 * b.rows && a.rows > 0 && b.rows > 0);
    for (int m = 0; m < c.rows; ++m) {
        for (int n = 0; n < c.bytes / 4; ++n) {
            uint32_t sum;
            std::memcpy(&sum, c.data[m] + 4 * n, 4);
            for (int k = 0; k < a.bytes; ++k) {
                sum += static_cast<uint32_t>(a.data[m][k] * static_cast<int8_t>(b.data[k / 4][4 * n + k % 4]));
            }
            std::memcpy(c.data[m] + 4 * n, &sum, 4);
        }
    }
}

}  // namespace amx_emulated

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_loadd
#undef _tile_stream_loadd
#undef _tile_stored
#undef _tile_dpbusd
#define _tile_loadconfig amx_emulated::configure
#define _tile_release amx_emulated::release
#define _tile_loadd amx_emulated::load
#define _tile_stream_loadd amx_emulated::load
#define _tile_stored amx_emulated::store
#define _tile_dpbusd amx_emulated::multiply
