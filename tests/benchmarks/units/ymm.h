// Rounds of an instruction out of registers of 256 bits: twelve sums in turn hide its latency on every processor.
#pragma once

#include "unit.h"

#define MOEMBED_YMM_SUMS \
    "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"
#define MOEMBED_YMM_TWELVE(op)                                                                                       \
    op " %[a], %[b], %%ymm4\n" op " %[a], %[b], %%ymm5\n" op " %[a], %[b], %%ymm6\n" op " %[a], %[b], %%ymm7\n" op   \
       " %[a], %[b], %%ymm8\n" op " %[a], %[b], %%ymm9\n" op " %[a], %[b], %%ymm10\n" op " %[a], %[b], %%ymm11\n" op \
       " %[a], %[b], %%ymm12\n" op " %[a], %[b], %%ymm13\n" op " %[a], %[b], %%ymm14\n" op " %[a], %[b], %%ymm15\n"
