// The functions of the library. They use plain C types, so that any language can load it. None throws or prints.
//
// Change kAbi whenever a signature, a structure or a meaning changes here: native/loader.py refuses any other number.
#pragma once

#include <cstdint>

#if defined(_WIN32)
#define MOEMBED_API extern "C" __declspec(dllexport)
#else
#define MOEMBED_API extern "C" __attribute__((visibility("default")))
#endif

namespace moembed {
constexpr int32_t kAbi = 5;
}

struct moembed_tokenizer;

struct moembed_special {
    int32_t bos, eos, pad;
    uint8_t source[32];  // sha256 of the tokenizer.json that the vocabulary was made from
};

// The tokens of several texts, one after the other. Those of text i are rows[i] to rows[i + 1].
struct moembed_tokens {
    int64_t texts;
    const int64_t* rows;   // [texts + 1]
    const int32_t* ids;    // [rows[texts]]
    const int64_t* spans;  // [rows[texts], 2] characters of the text, or null
};

MOEMBED_API int32_t moembed_abi();

// The name of this machine's processor, and its instruction sets as Linux names them in /proc/cpuinfo, separated by
// spaces: those that the operating system supports, and that matter to products of bytes. Each is "" if unknown.
MOEMBED_API void moembed_cpu(const char** name, const char** flags);

// Kernels for ONNX Runtime, one table per instruction set of this kind of processor, best first. Returns whether this
// process can run table `index`: 1 for yes, 0 for no, -1 if the system refused it to this process, although another one
// may have it. Stores the table's name, or null after the last table, which every machine can run; and if the processor
// has the instructions but they cannot be used, why not, otherwise null. A session uses the table that its config entry
// "moembed.kernels" names when the library is registered with RegisterCustomOps.
MOEMBED_API int32_t moembed_kernels_usable(int32_t index, const char** name, const char** reason);

// Sets the default floating-point mode in the calling thread (round to nearest, keep denormals) and returns the mode that it
// had, for `leave`, which sets that again.
MOEMBED_API uint64_t moembed_float_mode_enter();
MOEMBED_API void moembed_float_mode_leave(uint64_t mode);

// Opens a vocabulary. `file` must stay mapped until the tokenizer is
// closed. Returns null on failure, with a static text in `reason`.
MOEMBED_API moembed_tokenizer* moembed_tokenizer_open(const uint8_t* file, uint64_t size, const char** reason);
MOEMBED_API void moembed_tokenizer_close(moembed_tokenizer* tokenizer);
MOEMBED_API void moembed_tokenizer_special(const moembed_tokenizer* tokenizer, moembed_special* special);

// Stores the address of the UTF-8 bytes of a piece and returns their number; 0 if the id is out of range.
MOEMBED_API uint32_t moembed_tokenizer_piece(const moembed_tokenizer* tokenizer, int64_t id, const uint8_t** text);

// Tokenizes `count` texts; text i is texts[starts[i]] to texts[starts[i + 1]] and must be valid UTF-8.
// Without `spans`, tokens are between the two special tokens. With `spans`, there are no special tokens, and each token
// has the range of characters that it comes from. Unless `most` is negative, keeps only the first `most` tokens of each
// text, or the last with `last`; special tokens do not count. Returns null if memory runs out, or if a text with
// `spans` has 4 GiB. Safe to call from several threads at once.
MOEMBED_API const moembed_tokens* moembed_tokenizer_encode(const moembed_tokenizer* tokenizer, const uint8_t* texts,
                                                           const int64_t* starts, int64_t count, int32_t spans,
                                                           int64_t most, int32_t last);
MOEMBED_API void moembed_tokens_free(const moembed_tokens* tokens);
