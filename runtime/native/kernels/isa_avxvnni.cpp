#include "lanes_avx2.h"
// clang-format off: order matters
#include "dots_avxvnni.h"
#include "kernels.h"
#include "select.h"

namespace moembed {
const Kernels kAvxVnni = table_of("avxvnni");
}
