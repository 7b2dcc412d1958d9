#include "lanes_plain.h"
// clang-format off: order matters
#include "dots_plain.h"
#include "kernels.h"
#include "select.h"

namespace moembed {
const Kernels kPlain = table_of("plain");
}
