// AVX-512: products of bytes (VNNI), and floats.
#include <immintrin.h>

#include "cpu.h"
#include "unit.h"

namespace moembed::limits {
namespace {

bool has_vnni() { return cpu().avx512vnni.usable; }
bool has_floats() { return cpu().avx512f.usable; }

// Twelve sums in turn hide the latency of an instruction on every processor.
#define TWELVE(op)                                                                                                   \
    op " %[a], %[b], %%zmm4\n" op " %[a], %[b], %%zmm5\n" op " %[a], %[b], %%zmm6\n" op " %[a], %[b], %%zmm7\n" op   \
       " %[a], %[b], %%zmm8\n" op " %[a], %[b], %%zmm9\n" op " %[a], %[b], %%zmm10\n" op " %[a], %[b], %%zmm11\n" op \
       " %[a], %[b], %%zmm12\n" op " %[a], %[b], %%zmm13\n" op " %[a], %[b], %%zmm14\n" op " %[a], %[b], %%zmm15\n"
#define SUMS "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"

double bytes_in_registers(long rounds) {
    const __m512i a = _mm512_setzero_si512(), b = a;
    for (long i = 0; i < rounds; ++i) {
        MOEMBED_UNROLL
        for (int j = 0; j < 8; ++j) __asm__ volatile(TWELVE("vpdpbusd") : : [a] "v"(a), [b] "v"(b) : SUMS);
    }
    return static_cast<double>(rounds) * 96 * 128;
}

double floats_in_registers(long rounds) {
    const __m512 a = _mm512_setzero_ps(), b = a;
    for (long i = 0; i < rounds; ++i) {
        MOEMBED_UNROLL
        for (int j = 0; j < 8; ++j) __asm__ volatile(TWELVE("vfmadd231ps") : : [a] "v"(a), [b] "v"(b) : SUMS);
    }
    return static_cast<double>(rounds) * 96 * 32;
}

// Eight rows and three blocks of sixteen columns: 24 sums, and 11 loads for 24 products.
void tile(const uint8_t* rows, size_t depth, const int8_t* weights, int32_t* out) {
    __m512i sums[8][3];
    MOEMBED_UNROLL
    for (int r = 0; r < 8; ++r) {
        MOEMBED_UNROLL
        for (int b = 0; b < 3; ++b) sums[r][b] = _mm512_load_si512(out + 16 * (3 * r + b));
    }
    for (size_t k = 0; k < depth; k += 4) {
        __m512i w[3];
        MOEMBED_UNROLL
        for (int b = 0; b < 3; ++b) w[b] = _mm512_load_si512(weights + 16 * (b * depth + k));
        MOEMBED_UNROLL
        for (int r = 0; r < 8; ++r) {
            const __m512i q = _mm512_set1_epi32(load_int(rows + r * depth + k));
            MOEMBED_UNROLL
            for (int b = 0; b < 3; ++b) sums[r][b] = _mm512_dpbusd_epi32(sums[r][b], q, w[b]);
        }
    }
    MOEMBED_UNROLL
    for (int r = 0; r < 8; ++r) {
        MOEMBED_UNROLL
        for (int b = 0; b < 3; ++b) _mm512_store_si512(out + 16 * (3 * r + b), sums[r][b]);
    }
}

// Rows come from the second-level cache, and each panel of columns stays in the first for all of them.
double product(const Operands& o) {
    const size_t depth = hidden(kDepth);
    for (size_t column = 0; column < kColumns; column += 48) {
        for (size_t row = 0; row < kRows; row += 8)
            tile(o.rows + row * kDepth, depth, o.weights + column * kDepth, o.sums);
    }
    return operations(8, 48);
}

}  // namespace

const Unit kAvx512VnniUnit = {"avx512vnni", has_vnni, bytes_in_registers, product, 0};
const Unit kAvx512Float = {"float32", has_floats, floats_in_registers, nullptr, 0};

}  // namespace moembed::limits
