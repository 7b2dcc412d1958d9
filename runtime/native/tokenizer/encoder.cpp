#include "encoder.h"

#include <cstring>

#include "utf8.h"

namespace moembed {
namespace {

constexpr uint8_t kMark[] = {0xE2, 0x96, 0x81};  // U+2581, the first character of every word

constexpr size_t kLongWord = 8192;  // bytes; the first tokens of a longer word are settled before its end is read

bool is_mark(const uint8_t* p, const uint8_t* end) { return end - p >= 3 && std::memcmp(p, kMark, sizeof kMark) == 0; }

template <class T>
void drop_front(std::vector<T>* all, size_t count) {
    all->erase(all->begin(), all->begin() + static_cast<std::ptrdiff_t>(count));
}

// Counts the characters of a text up to a byte. It continues from the byte of the previous call, so that ascending
// bytes read the text once.
class CharacterIndex {
public:
    explicit CharacterIndex(Bytes text) : text_(text) {}

    int64_t operator()(size_t byte) {
        for (; at_ < byte; ++at_) count_ += begins(at_);
        for (; at_ > byte; --at_) count_ -= begins(at_ - 1);
        return count_;
    }

private:
    int64_t begins(size_t byte) const { return (text_.data[byte] & 0xC0) != 0x80; }

    Bytes text_;
    size_t at_ = 0;
    int64_t count_ = 0;
};

}  // namespace

// Receives the tokens of a text and keeps the wanted ones.
class Encoder::Sink {
public:
    Sink(Wanted wanted, bool spans, std::vector<int32_t>* ids)
        : has_spans(spans), wanted_(wanted), ids_(ids), first_(ids->size()) {}

    const bool has_spans;
    std::vector<Span> spans;

    // Whether all wanted tokens are here. One more is needed to know where the last of them ends.
    bool is_full() const { return !wanted_.last && count() > wanted_.most; }

    void add(int32_t id, Span span) {
        if (is_full()) return;
        ids_->push_back(id);
        if (has_spans) spans.push_back(span);
        if (wanted_.last && count() >= kSpare && count() / 2 >= wanted_.most) trim();
    }

    // Adds a token of a word, given the origin of each of its bytes.
    void add(const Token& token, const std::vector<Span>& origins) {
        if (!token.goes_on) {
            add(token.id, has_spans ? Span{origins[token.start].start, origins[token.end - 1].end} : Span{0, 0});
        } else if (has_spans && !is_full()) {
            spans.back().end = origins[token.end - 1].end;
        }
    }

    void finish() {
        if (count() > wanted_.most) trim();
    }

private:
    static constexpr size_t kSpare = 4096;

    size_t count() const { return ids_->size() - first_; }

    void trim() {
        const size_t extra = count() - wanted_.most;
        drop(ids_, first_, extra);
        if (has_spans) drop(&spans, 0, extra);
    }

    template <class T>
    void drop(std::vector<T>* all, size_t first, size_t count) const {
        const auto begin = wanted_.last ? all->begin() + static_cast<std::ptrdiff_t>(first)
                                        : all->end() - static_cast<std::ptrdiff_t>(count);
        all->erase(begin, begin + static_cast<std::ptrdiff_t>(count));
    }

    const Wanted wanted_;
    std::vector<int32_t>* const ids_;
    const size_t first_;
};

Encoder::Encoder(const Vocabulary& vocabulary) : vocabulary_(vocabulary), normalizer_(vocabulary.charsmap()) {
    for (const AddedToken& token : vocabulary.added()) begins_added_[token.text.data[0]] = true;
}

void Encoder::encode(Bytes text, Wanted wanted, Workspace* work, std::vector<int32_t>* ids) const {
    ids->push_back(vocabulary_.bos());
    Sink sink(wanted, false, ids);
    pieces(text, work, &sink);
    ids->push_back(vocabulary_.eos());
}

void Encoder::encode_with_spans(Bytes text, Wanted wanted, Workspace* work, std::vector<int32_t>* ids,
                                std::vector<int64_t>* spans) const {
    Sink sink(wanted, true, ids);
    pieces(text, work, &sink);
    CharacterIndex index(text);
    spans->reserve(spans->size() + 2 * sink.spans.size());
    for (const Span& span : sink.spans) {
        spans->push_back(index(span.start));
        spans->push_back(index(span.end));
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

// Finds added tokens in the original text. The text between them is normalized part by part.
void Encoder::pieces(Bytes text, Workspace* work, Sink* sink) const {
    const uint8_t *const begin = text.data, *const end = text.data + text.size;
    const uint8_t* done = begin;
    for (const uint8_t* p = begin; p < end && !sink->is_full();) {
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
        sink->add(token->id, {static_cast<uint32_t>(start - begin), static_cast<uint32_t>(p - begin)});
        done = p;
    }
    plain(begin, static_cast<size_t>(done - begin), text.size, work, sink);
    sink->finish();
}

void Encoder::plain(const uint8_t* text, size_t begin, size_t end, Workspace* work, Sink* sink) const {
    Normalized& part = work->part;
    part.text.clear();
    part.origins.clear();
    NormalizedParts parts(normalizer_, text, begin, end, sink->has_spans);
    while (!sink->is_full() && parts.read(&part)) {
        const size_t known = sink->has_spans ? part.origins.size() : part.text.size();
        words(known, work, sink);
        drop_front(&part.text, known);
        part.origins.clear();
    }
    end_word(work, sink);
}

// Reads the words in the first `known` bytes of a part.
void Encoder::words(size_t known, Workspace* work, Sink* sink) const {
    const uint8_t *const first = work->part.text.data(), *const last = first + known;
    const uint8_t* start = first;  // of the part of the current word that was not passed on yet
    for (const uint8_t* p = first; p < last;) {
        const Character character = character_at(p, last);
        const bool space = is_space(character.code);
        if (space || is_mark(p, last)) {
            extend_word(static_cast<size_t>(start - first), static_cast<size_t>(p - first), work, sink);
            end_word(work, sink);
            start = p;
        }
        p += character.length;
        if (space) start = p;
    }
    extend_word(static_cast<size_t>(start - first), known, work, sink);
}

// Appends to the current word. A word without a mark gets one, which counts as part of its first character.
void Encoder::extend_word(size_t begin, size_t end, Workspace* work, Sink* sink) const {
    if (begin == end) return;
    const uint8_t* const text = work->part.text.data();
    const Span* const origins = work->part.origins.data();
    Normalized& word = work->word;
    if (word.text.empty()) {
        work->word_limit = kLongWord;
        if (!is_mark(text + begin, text + end)) {
            word.text.assign(kMark, kMark + sizeof kMark);
            if (sink->has_spans) word.origins.assign(sizeof kMark, origins[begin]);
        }
    }
    word.text.insert(word.text.end(), text + begin, text + end);
    if (sink->has_spans) word.origins.insert(word.origins.end(), origins + begin, origins + end);
    if (word.text.size() < work->word_limit) return;
    const size_t settled = work->unigram.settle(word.text.data(), word.text.size(),
                                                [&](const Token& token) { sink->add(token, word.origins); });
    drop_front(&word.text, settled);
    if (sink->has_spans) drop_front(&word.origins, settled);
    work->word_limit = 2 * word.text.size() + kLongWord;
}

void Encoder::end_word(Workspace* work, Sink* sink) const {
    Normalized& word = work->word;
    if (sink->is_full()) {
        work->unigram.reset();
    } else if (!word.text.empty()) {
        work->unigram.finish(word.text.data(), word.text.size(),
                             [&](const Token& token) { sink->add(token, word.origins); });
    }
    word.text.clear();
    word.origins.clear();
}

}  // namespace moembed
