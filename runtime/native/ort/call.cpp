#include "call.h"

namespace moembed::ort {
namespace {

std::string text(const Shape& shape) {
    std::string out = "[";
    for (size_t i = 0; i < shape.size(); ++i) {
        if (i) out += ", ";
        out += shape[i] == kAny ? "any" : std::to_string(shape[i]);
    }
    return out + "]";
}

// Products of a few axes of this size fit 64 bits. Only a tensor without elements can have a longer axis.
constexpr int64_t kLongestAxis = (int64_t{1} << 31) - 1;

bool matches(const Shape& found, const Shape& expected) {
    if (found.size() != expected.size()) return false;
    for (size_t i = 0; i < found.size(); ++i) {
        if (expected[i] != kAny && expected[i] != found[i]) return false;
    }
    return true;
}

}  // namespace

void check(const OrtApi& api, OrtStatus* status) {
    if (!status) return;
    const std::string message = api.GetErrorMessage(status);
    api.ReleaseStatus(status);
    throw std::runtime_error(message);
}

const void* Call::raw_input(size_t index, const char* name, const Shape& expected, const Shape& other,
                            Shape& found) const {
    const OrtValue* value = nullptr;
    check(api_, api_.KernelContext_GetInput(context_, index, &value));
    if (!value) throw InvalidInput(std::string(name) + " is missing");
    OrtTensorTypeAndShapeInfo* info = nullptr;
    check(api_, api_.GetTensorTypeAndShape(value, &info));
    size_t axes = 0;
    OrtStatus* status = api_.GetDimensionsCount(info, &axes);
    if (!status) {
        found.resize(axes);
        status = api_.GetDimensions(info, found.data(), axes);
    }
    api_.ReleaseTensorTypeAndShapeInfo(info);
    check(api_, status);
    for (const int64_t axis : found) {
        if (axis > kLongestAxis) {
            throw InvalidInput(std::string(name) + " is " + text(found) + ", expected axes of at most " +
                               std::to_string(kLongestAxis));
        }
    }
    if (!matches(found, expected) && !matches(found, other)) {
        const std::string also = other == expected ? "" : " or " + text(other);
        throw InvalidInput(std::string(name) + " is " + text(found) + ", expected " + text(expected) + also);
    }
    void* data = nullptr;
    check(api_, api_.GetTensorMutableData(const_cast<OrtValue*>(value), &data));  // there is no function for const ones
    return data;
}

size_t Call::inputs() const {
    size_t count = 0;
    check(api_, api_.KernelContext_GetInputCount(context_, &count));
    return count;
}

void* Call::raw_output(size_t index, std::initializer_list<size_t> shape) {
    const Shape axes(shape.begin(), shape.end());
    OrtValue* value = nullptr;
    check(api_, api_.KernelContext_GetOutput(context_, index, axes.data(), axes.size(), &value));
    if (!value) throw InvalidInput("output " + std::to_string(index) + " is missing");
    void* data = nullptr;
    check(api_, api_.GetTensorMutableData(value, &data));
    return data;
}

void Call::run(void (*task)(void*, size_t), size_t tasks, void* data) {
    check(api_, api_.KernelContext_ParallelFor(context_, task, tasks, 0, data));
}

}  // namespace moembed::ort
