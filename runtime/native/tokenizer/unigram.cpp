#include "unigram.h"

#include <algorithm>

#include "utf8.h"

namespace moembed {

void Unigram::segment(const uint8_t* word, size_t size, std::vector<Token>* out) {
    out->clear();
    steps_.assign(size + 1, Step{0.0, 0, 0});
    const auto unknown = static_cast<uint32_t>(vocabulary_.unknown());
    for (size_t start = 0; start < size;) {
        const double so_far = steps_[start].score;
        const size_t character = character_at(word + start, word + size).length;
        bool covered = false;
        const auto offer = [&](size_t length, uint32_t id, double score) {
            Step& step = steps_[start + length];
            if (step.length != 0 && !(score + so_far > step.score)) return;  // among equals, the first found
            step = {score + so_far, id, static_cast<uint32_t>(length)};
        };
        vocabulary_.prefixes(word + start, size - start, [&](size_t length, uint32_t id) {
            offer(length, id, vocabulary_.score(id));
            covered = covered || length == character;
        });
        if (!covered) offer(character, unknown, vocabulary_.unknown_score());
        start += character;
    }
    size_t unknown_end = 0;  // end of the run of unknown pieces that is being walked back; they become one token
    const auto flush = [&](size_t start) {
        if (unknown_end == 0) return;
        const int64_t id = vocabulary_.find(word + start, unknown_end - start);
        out->push_back({id < 0 ? vocabulary_.unknown() : static_cast<int32_t>(id), start, unknown_end});
        unknown_end = 0;
    };
    size_t end = size;
    while (end > 0) {  // every character's end has a step
        const Step& step = steps_[end];
        if (step.id == unknown) {
            if (unknown_end == 0) unknown_end = end;
        } else {
            flush(end);
            out->push_back({static_cast<int32_t>(step.id), end - step.length, end});
        }
        end -= step.length;
    }
    flush(end);
    std::reverse(out->begin(), out->end());
}

}  // namespace moembed
