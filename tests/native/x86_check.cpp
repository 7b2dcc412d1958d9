// Prints the instruction sets of an x86 processor with the registers that the arguments name, and why others cannot be
// used; or Linux's answers to the request for tiles. test_x86.py compiles it.
//
//     x86_check ONE.C SEVEN.B SEVEN.C SEVEN.D SEVEN_MORE.A TILES.B TILES.C SAVED    (hexadecimal)
//     x86_check --answers
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "../../runtime/native/kernels/x86.h"

using namespace moembed;

namespace {

void print(const char* name, const Support& support) {
    const char* answer = support.usable ? "yes" : support.refused_here ? "refused" : "no";
    std::printf("%s|%s|%s\n", name, answer, support.reason ? support.reason : "");
}

}  // namespace

int main(int count, char** arguments) {
    if (count == 2 && !std::strcmp(arguments[1], "--answers")) {
        const struct {
            int error;
            const char* name;
        } answers[] = {{0, "0"},           {ENOSPC, "ENOSPC"}, {EPERM, "EPERM"},           {EACCES, "EACCES"},
                       {ENOSYS, "ENOSYS"}, {EINVAL, "EINVAL"}, {EOPNOTSUPP, "EOPNOTSUPP"}, {EBUSY, "EBUSY"}};
        for (const auto& answer : answers) print(answer.name, tiles_answer(answer.error));
        return 0;
    }
    if (count != 9) return 2;
    const auto value = [&](int i) { return std::strtoull(arguments[i], nullptr, 16); };
    X86Registers r;
    r.one.c = static_cast<uint32_t>(value(1));
    r.seven.b = static_cast<uint32_t>(value(2));
    r.seven.c = static_cast<uint32_t>(value(3));
    r.seven.d = static_cast<uint32_t>(value(4));
    r.seven_more.a = static_cast<uint32_t>(value(5));
    r.tiles.b = static_cast<uint32_t>(value(6));
    r.tiles.c = static_cast<uint32_t>(value(7));
    r.saved = value(8);
    const X86Features found = x86_features(r);
    print("avx2", found.avx2);
    print("avxvnni", found.avxvnni);
    print("avx512f", found.avx512f);
    print("avx512vnni", found.avx512vnni);
    print("amx", found.amx);
    return 0;
}
