// The tables of kernels in this library, and which of them this machine can run.
#pragma once

#include "cpu.h"
#include "table.h"

namespace moembed {

extern const Kernels kPlain, kAvx2, kAvxVnni, kAvx512Vnni, kAmx, kNeon, kNeonI8mm;

struct Choice {
    const Kernels* kernels;
    Support support;
};

// The tables for this kind of processor, best first. The last one, "plain", is always usable; after it comes a null.
const Choice* choices();

// The usable table of this name, or null.
const Kernels* kernels_named(const char* name);

}  // namespace moembed
