#include "encoder.h"

#include <cstring>

#include "utf8.h"

namespace moembed {
namespace {

constexpr uint8_t kMark[] = {0xE2, 0x96, 0x81};  // U+2581, in front of every word

bool is_mark(const uint8_t* p, const uint8_t* end) { return end - p >= 3 && std::memcmp(p, kMark, sizeof kMark) == 0; }

}  // namespace

Encoder::Encoder(const Vocabulary& vocabulary) : vocabulary_(vocabulary), normalizer_(vocabulary.charsmap()) {
    for (const AddedToken& token : vocabulary.added()) begins_added_[token.text.data[0]] = true;
}

void Encoder::encode(Bytes text, Workspace* work, std::vector<int32_t>* ids) const {
    ids->push_back(vocabulary_.bos());
    pieces(text, work, {ids, nullptr});
    ids->push_back(vocabulary_.eos());
}

void Encoder::encode_with_spans(Bytes text, Workspace* work, std::vector<int32_t>* ids, std::vector<int64_t>* spans) const {
    std::vector<Span> origins;
    pieces(text, work, {ids, &origins});
    std::vector<int64_t> index(text.size + 1);  // the character that a byte belongs to
    int64_t count = 0;
    for (size_t i = 0; i < text.size; ++i) {
        if (i > 0 && (text.data[i] & 0xC0) != 0x80) ++count;
        index[i] = count;
    }
    index[text.size] = text.size == 0 ? 0 : count + 1;
    for (const Span& origin : origins) {
        spans->push_back(index[origin.start]);
        spans->push_back(index[origin.end]);
    }
}

const AddedToken* Encoder::added_at(const uint8_t* text, const uint8_t* end) const {
    const AddedToken* longest = nullptr;
    for (const AddedToken& token : vocabulary_.added()) {
        if (token.text.size > static_cast<size_t>(end - text)) continue;
        if (longest && token.text.size <= longest->text.size) continue;
        if (std::memcmp(token.text.data, text, token.text.size) == 0) longest = &token;
    }
    return longest;
}

// Added tokens are found in the text as it was given; what lies between is normalised piece by piece.
void Encoder::pieces(Bytes text, Workspace* work, const Sink& sink) const {
    const uint8_t *const begin = text.data, *const end = text.data + text.size;
    const uint8_t* done = begin;
    for (const uint8_t* p = begin; p < end;) {
        const AddedToken* token = begins_added_[*p] ? added_at(p, end) : nullptr;
        if (!token) {
            ++p;
            continue;
        }
        const uint8_t* start = p;
        while (token->strips_left && start > done) {
            const uint8_t* character = before(done, start);
            if (!is_space(character_at(character, start).code)) break;
            start = character;
        }
        plain(begin, static_cast<size_t>(done - begin), static_cast<size_t>(start - begin), work, sink);
        p += token->text.size;
        sink.ids->push_back(token->id);
        if (sink.origins) sink.origins->push_back({static_cast<size_t>(start - begin), static_cast<size_t>(p - begin)});
        done = p;
    }
    plain(begin, static_cast<size_t>(done - begin), text.size, work, sink);
}

void Encoder::plain(const uint8_t* text, size_t begin, size_t end, Workspace* work, const Sink& sink) const {
    if (begin == end) return;
    if (sink.origins) {
        normalizer_.run_with_origins(text + begin, end - begin, begin, &work->normalized);
    } else {
        normalizer_.run(text + begin, end - begin, &work->normalized);
    }
    const uint8_t *const first = work->normalized.text.data(), *const last = first + work->normalized.text.size();
    const uint8_t* start = first;  // of the word that is being read
    for (const uint8_t* p = first; p < last;) {
        const Character character = character_at(p, last);
        const bool space = is_space(character.code);
        if ((space || is_mark(p, last)) && p > start) {
            word(first, static_cast<size_t>(start - first), static_cast<size_t>(p - first), work, sink);
            start = p;
        }
        p += character.length;
        if (space) start = p;
    }
    if (last > start) {
        word(first, static_cast<size_t>(start - first), static_cast<size_t>(last - first), work, sink);
    }
}

// A mark is put in front unless the word has one, and counts as part of the first character.
void Encoder::word(const uint8_t* text, size_t begin, size_t end, Workspace* work, const Sink& sink) const {
    const size_t added = is_mark(text + begin, text + end) ? 0 : sizeof kMark;
    const uint8_t* bytes = text + begin;
    if (added) {
        work->word.assign(kMark, kMark + added);
        work->word.insert(work->word.end(), text + begin, text + end);
        bytes = work->word.data();
    }
    work->unigram.segment(bytes, end - begin + added, &work->tokens);
    for (const Token& token : work->tokens) {
        sink.ids->push_back(token.id);
        if (!sink.origins) continue;
        const auto origin = [&](size_t at) { return work->normalized.origins[begin + (at < added ? 0 : at - added)]; };
        sink.origins->push_back({origin(token.start).start, origin(token.end - 1).end});
    }
}

}  // namespace moembed
