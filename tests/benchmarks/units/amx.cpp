// AMX: products of tiles of unsigned and signed bytes.
#include <immintrin.h>

#include "cpu.h"
#include "unit.h"

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace moembed::limits {
namespace {

struct alignas(64) TileConfiguration {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t bytes[16] = {};
    uint8_t rows[16] = {};
};

void configure() {
    TileConfiguration c;
    for (int i = 0; i < 8; ++i) {
        c.bytes[i] = 64;
        c.rows[i] = 16;
    }
    // GCC 12 does not know that the instruction reads the configuration, and would drop the stores.
    __asm__ volatile("" : : "r"(&c) : "memory");
    _tile_loadconfig(&c);
}

bool usable() {
#if defined(__linux__) && defined(SYS_arch_prctl)
    constexpr int kRequestPermission = 0x1023, kTileData = 18;
    return cpu().amx.usable && syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
    return false;
#endif
}

double registers(long rounds) {
    configure();
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_zero(4);
    _tile_zero(5);
    _tile_zero(6);
    _tile_zero(7);
    for (long i = 0; i < rounds; ++i) {
        MOEMBED_UNROLL
        for (int j = 0; j < 16; ++j) {
            _tile_dpbusd(0, 4, 6);
            _tile_dpbusd(1, 4, 7);
            _tile_dpbusd(2, 5, 6);
            _tile_dpbusd(3, 5, 7);
        }
    }
    _tile_release();
    return static_cast<double>(rounds) * 64 * 2 * 16 * 16 * 64;
}

// Rows as tiles of 16 x 64, weights as panels of 32 columns. A panel stays in the first-level cache for all rows, which come
// from the second; the next panel is prefetched from there.
double product(const Operands& o) {
    constexpr size_t kSteps = kDepth / 64, kPanel = 32 * kDepth, kTile = 1024;
    configure();
    for (size_t column = 0; column < kColumns; column += 32) {
        const int8_t* weights = o.weights + column * kDepth;
        const auto* next = reinterpret_cast<const char*>(weights + (column + 32 < kColumns ? kPanel : 0));
        for (size_t row = 0; row < kRows; row += 32) {
            const uint8_t *upper = o.rows + row * kDepth, *lower = upper + 16 * kDepth;
            __asm__ volatile("" : : : "memory");  // GCC 12 does not know either that tiles read and write memory
            _tile_zero(0);
            _tile_zero(1);
            _tile_zero(2);
            _tile_zero(3);
            for (size_t k = 0; k < kSteps; ++k) {
                for (size_t i = 0; i < kPanel / 64 * 32 / kRows / kSteps; ++i, next += 64)
                    _mm_prefetch(next, _MM_HINT_T0);
                _tile_stream_loadd(4, upper + k * kTile, 64);
                _tile_loadd(6, weights + k * kTile, 64);
                _tile_dpbusd(0, 4, 6);
                _tile_loadd(7, weights + kPanel / 2 + k * kTile, 64);
                _tile_dpbusd(1, 4, 7);
                _tile_stream_loadd(5, lower + k * kTile, 64);
                _tile_dpbusd(2, 5, 6);
                _tile_dpbusd(3, 5, 7);
            }
            int32_t* sums = o.sums + row / 32 % 2 * 1024;
            _tile_stored(0, sums, 128);
            _tile_stored(1, sums + 16, 128);
            _tile_stored(2, sums + 512, 128);
            _tile_stored(3, sums + 528, 128);
            __asm__ volatile("" : : : "memory");
        }
    }
    _tile_release();
    return operations(32, 32);
}

}  // namespace

// A product of tiles takes a cycle for each of its sixteen rows.
const Unit kAmxUnit = {"amx", usable, registers, product, 2.0 * 16 * 64};

}  // namespace moembed::limits
