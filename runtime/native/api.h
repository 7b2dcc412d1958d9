// The functions of the library. Plain C types, so that any language can load it; no function throws or prints.
//
// kAbi changes whenever a signature, a structure or a meaning here does; the Python side refuses any other.
#pragma once

#include <cstdint>

#if defined(_WIN32)
#define MOEMBED_API extern "C" __declspec(dllexport)
#else
#define MOEMBED_API extern "C" __attribute__((visibility("default")))
#endif

namespace moembed {
constexpr int32_t kAbi = 3;
}

struct moembed_tokenizer;

struct moembed_special {
    int32_t bos, eos, pad;
    uint8_t source[32];  // sha256 of the tokenizer.json that the vocabulary was made from
};

// The tokens of some texts, one after another; text i has those from rows[i] to rows[i + 1].
struct moembed_tokens {
    int64_t texts;
    const int64_t* rows;   // [texts + 1]
    const int32_t* ids;    // [rows[texts]]
    const int64_t* spans;  // [rows[texts], 2] characters of the text, or null
};

MOEMBED_API int32_t moembed_abi();

// `file` must stay where it is until the tokenizer is closed. Null on failure, with the reason in `reason` (static text).
MOEMBED_API moembed_tokenizer* moembed_tokenizer_open(const uint8_t* file, uint64_t size, const char** reason);
MOEMBED_API void moembed_tokenizer_close(moembed_tokenizer* tokenizer);
MOEMBED_API void moembed_tokenizer_special(const moembed_tokenizer* tokenizer, moembed_special* special);

// The UTF-8 bytes of a piece: its length, and where they are; 0 for an id that there is not.
MOEMBED_API uint32_t moembed_tokenizer_piece(const moembed_tokenizer* tokenizer, int64_t id, const uint8_t** text);

// Tokens of texts[starts[i] .. starts[i + 1]] for each i, which are valid UTF-8: framed by the two special tokens, or,
// with `spans`, bare and with the characters they come from. Unless `most` is negative, only the first `most` of each text,
// or with `last` the last ones, special tokens not counted. Null if there is not enough memory, or with `spans` if a text has
// 4 GiB. Any number of threads may call it at once.
MOEMBED_API const moembed_tokens* moembed_tokenizer_encode(const moembed_tokenizer* tokenizer, const uint8_t* texts,
                                                           const int64_t* starts, int64_t count, int32_t spans,
                                                           int64_t most, int32_t last);
MOEMBED_API void moembed_tokens_free(const moembed_tokens* tokens);

// Kernels for ONNX Runtime, one set for each instruction set of this kind of machine, best first. Whether the processor can
// run number `index`, and its name; the name is null behind the last one, which always can.
MOEMBED_API int32_t moembed_kernels_usable(int32_t index, const char** name);

// Which ones the calling thread registers when it next names this library to a session's options; 0 if that cannot be.
MOEMBED_API int32_t moembed_kernels_choose(const char* name);
