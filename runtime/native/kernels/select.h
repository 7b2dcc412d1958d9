// Which tables this library has and this processor can run.
#pragma once

#include "table.h"

namespace moembed {

extern const Kernels kPlain, kAvx2, kAvxVnni, kAvx512Vnni, kAmx, kNeon, kNeonI8mm;

struct Choice {
    const Kernels* kernels;
    bool usable;  // the processor has the instructions, and the system saves their registers
};

// All of this machine's kind, best first, the last one null.
const Choice* choices();

// By name; null for a name that is not there or not usable.
const Kernels* kernels_named(const char* name);

}  // namespace moembed
