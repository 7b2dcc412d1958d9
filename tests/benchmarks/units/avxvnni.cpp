// AVX-VNNI: products of bytes in registers of 256 bits.
#include <immintrin.h>

#include "cpu.h"
#include "ymm.h"

namespace moembed::limits {
namespace {

bool usable() { return cpu().avxvnni.usable; }

double registers(long rounds) {
    const __m256i a = _mm256_setzero_si256(), b = a;
    for (long i = 0; i < rounds; ++i) {
        MOEMBED_UNROLL
        for (int j = 0; j < 8; ++j) {
            __asm__ volatile(MOEMBED_YMM_TWELVE("%{vex%} vpdpbusd") : : [a] "x"(a), [b] "x"(b) : MOEMBED_YMM_SUMS);
        }
    }
    return static_cast<double>(rounds) * 96 * 64;
}

// Six rows and sixteen columns: twelve sums, and 8 loads for 12 products.
void tile(const uint8_t* rows, size_t depth, const int8_t* weights, __m256i* out) {
    __m256i sums[6][2];
    MOEMBED_UNROLL
    for (int r = 0; r < 6; ++r) {
        MOEMBED_UNROLL
        for (int b = 0; b < 2; ++b) sums[r][b] = _mm256_load_si256(out + 2 * r + b);
    }
    for (size_t k = 0; k < depth; k += 4) {
        const auto* w = reinterpret_cast<const __m256i*>(weights + 16 * k);
        const __m256i left = _mm256_load_si256(w), right = _mm256_load_si256(w + 1);
        MOEMBED_UNROLL
        for (int r = 0; r < 6; ++r) {
            const __m256i q = _mm256_set1_epi32(load_int(rows + r * depth + k));
            sums[r][0] = _mm256_dpbusd_avx_epi32(sums[r][0], q, left);
            sums[r][1] = _mm256_dpbusd_avx_epi32(sums[r][1], q, right);
        }
    }
    MOEMBED_UNROLL
    for (int r = 0; r < 6; ++r) {
        MOEMBED_UNROLL
        for (int b = 0; b < 2; ++b) _mm256_store_si256(out + 2 * r + b, sums[r][b]);
    }
}

double product(const Operands& o) {
    const size_t depth = hidden(kDepth);
    for (size_t column = 0; column < kColumns; column += 16) {
        for (size_t row = 0; row < kRows; row += 6) {
            tile(o.rows + row * kDepth, depth, o.weights + column * kDepth, reinterpret_cast<__m256i*>(o.sums));
        }
    }
    return operations(6, 16);
}

}  // namespace

const Unit kAvxVnniUnit = {"avxvnni", usable, registers, product, 0};

}  // namespace moembed::limits
