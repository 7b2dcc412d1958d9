#include "call.h"

namespace moembed::ort {
namespace {

std::string text(const Shape& shape) {
    std::string out = "[";
    for (size_t i = 0; i < shape.size(); ++i) {
        out += (i ? ", " : "") + (shape[i] == kAny ? std::string("any") : std::to_string(shape[i]));
    }
    return out + "]";
}

// Products of a few axes fit 64 bits. More than this has only a tensor without elements.
constexpr int64_t kLongestAxis = (int64_t{1} << 31) - 1;

bool matches(const Shape& found, const Shape& expected) {
    if (found.size() != expected.size()) return false;
    for (size_t i = 0; i < found.size(); ++i) {
        if (expected[i] != kAny && expected[i] != found[i]) return false;
    }
    return true;
}

}  // namespace

void refuse(const std::string& message) { throw Refusal{message}; }

void check(Functions api, OrtStatus* status) {
    if (!status) return;
    invoke<void>(api, Place::ReleaseStatus, status);
    refuse("ONNX Runtime did not give what was asked of it");
}

const void* Call::raw_input(size_t index, const char* name, const Shape& expected, Shape& found) const {
    const OrtValue* value = nullptr;
    check(api_,
          invoke(api_, Place::KernelContextGetInput, static_cast<const OrtKernelContext*>(context_), index, &value));
    if (!value) refuse(std::string(name) + " is missing");
    OrtTensorTypeAndShapeInfo* info = nullptr;
    check(api_, invoke(api_, Place::GetTensorTypeAndShape, value, &info));
    const auto* constant = static_cast<const OrtTensorTypeAndShapeInfo*>(info);
    size_t axes = 0;
    OrtStatus* status = invoke(api_, Place::GetDimensionsCount, constant, &axes);
    if (!status) {
        found.resize(axes);
        status = invoke(api_, Place::GetDimensions, constant, found.data(), axes);
    }
    invoke<void>(api_, Place::ReleaseTensorTypeAndShapeInfo, info);
    check(api_, status);
    for (const int64_t axis : found) {
        if (axis > kLongestAxis)
            refuse(std::string(name) + " is " + text(found) + ", longer than any tensor of a model");
    }
    if (!matches(found, expected)) refuse(std::string(name) + " is " + text(found) + ", expected " + text(expected));
    void* data = nullptr;
    check(api_, invoke(api_, Place::GetTensorMutableData, const_cast<OrtValue*>(value), &data));
    return data;
}

size_t Call::inputs() const {
    size_t count = 0;
    check(api_,
          invoke(api_, Place::KernelContextGetInputCount, static_cast<const OrtKernelContext*>(context_), &count));
    return count;
}

void* Call::raw_output(size_t index, std::initializer_list<size_t> shape) {
    const std::vector<int64_t> dims(shape.begin(), shape.end());
    OrtValue* value = nullptr;
    check(api_, invoke(api_, Place::KernelContextGetOutput, context_, index, dims.data(), dims.size(), &value));
    if (!value) refuse("an output is missing");
    void* data = nullptr;
    check(api_, invoke(api_, Place::GetTensorMutableData, value, &data));
    return data;
}

void Call::run(void (*task)(void*, size_t), size_t tasks, void* data) {
    check(api_, invoke(api_, Place::KernelContextParallelFor, static_cast<const OrtKernelContext*>(context_), task,
                       tasks, size_t{0}, data));
}

}  // namespace moembed::ort
