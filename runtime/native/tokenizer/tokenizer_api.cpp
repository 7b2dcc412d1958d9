#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "../api.h"
#include "../float_mode.h"
#include "encoder.h"
#include "vocabulary.h"

struct moembed_tokenizer {
    moembed::Vocabulary vocabulary;
    std::unique_ptr<moembed::Encoder> encoder;
};

namespace {

struct OwnedTokens : moembed_tokens {
    std::vector<int64_t> all_rows;
    std::vector<int32_t> all_ids;
    std::vector<int64_t> all_spans;
};

}  // namespace

moembed_tokenizer* moembed_tokenizer_open(const uint8_t* file, uint64_t size, const char** reason) try {
    auto tokenizer = std::make_unique<moembed_tokenizer>();
    *reason = tokenizer->vocabulary.open({file, static_cast<size_t>(size)});
    if (*reason) return nullptr;
    tokenizer->encoder = std::make_unique<moembed::Encoder>(tokenizer->vocabulary);
    return tokenizer.release();
} catch (const std::bad_alloc&) {
    *reason = "not enough memory";
    return nullptr;
}

void moembed_tokenizer_close(moembed_tokenizer* tokenizer) { delete tokenizer; }

void moembed_tokenizer_special(const moembed_tokenizer* tokenizer, moembed_special* special) {
    const moembed::Vocabulary& vocabulary = tokenizer->vocabulary;
    *special = {vocabulary.bos(), vocabulary.eos(), vocabulary.pad(), {}};
    std::memcpy(special->source, vocabulary.source(), sizeof special->source);
}

uint32_t moembed_tokenizer_piece(const moembed_tokenizer* tokenizer, int64_t id, const uint8_t** text) {
    if (id < 0 || id >= tokenizer->vocabulary.size()) return 0;
    const moembed::Bytes piece = tokenizer->vocabulary.piece(static_cast<uint32_t>(id));
    *text = piece.data;
    return static_cast<uint32_t>(piece.size);
}

const moembed_tokens* moembed_tokenizer_encode(const moembed_tokenizer* tokenizer, const uint8_t* texts,
                                               const int64_t* starts, int64_t count, int32_t spans, int64_t most,
                                               int32_t last) try {
    const moembed::DefaultFloatMode mode;  // sums of scores decide between segmentations
    moembed::Wanted wanted;
    if (most >= 0) wanted = {static_cast<size_t>(most), last != 0};
    auto tokens = std::make_unique<OwnedTokens>();
    moembed::Encoder::Workspace work(tokenizer->vocabulary);
    tokens->all_rows.reserve(static_cast<size_t>(count) + 1);
    tokens->all_rows.push_back(0);
    for (int64_t i = 0; i < count; ++i) {
        const moembed::Bytes text{texts + starts[i], static_cast<size_t>(starts[i + 1] - starts[i])};
        if (spans) {
            if (text.size > moembed::kMostBytesWithSpans) return nullptr;
            tokenizer->encoder->encode_with_spans(text, wanted, &work, &tokens->all_ids, &tokens->all_spans);
        } else {
            tokenizer->encoder->encode(text, wanted, &work, &tokens->all_ids);
        }
        tokens->all_rows.push_back(static_cast<int64_t>(tokens->all_ids.size()));
    }
    tokens->texts = count;
    tokens->rows = tokens->all_rows.data();
    tokens->ids = tokens->all_ids.data();
    tokens->spans = spans ? tokens->all_spans.data() : nullptr;
    return tokens.release();
} catch (const std::exception&) {
    return nullptr;
}

void moembed_tokens_free(const moembed_tokens* tokens) { delete static_cast<const OwnedTokens*>(tokens); }
