#include "lanes_neon.h"
// clang-format off: order matters
#include "dots_neon.h"
#include "kernels.h"
#include "select.h"

namespace moembed {
const Kernels kNeon = table_of("neon");
}
