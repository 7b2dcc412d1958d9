// What this library uses of ONNX Runtime's C interface, which only ever grows at its ends: places in the table of functions, and
// the structure that describes an operator.
#pragma once

#include <cstddef>
#include <cstdint>

struct OrtStatus;
struct OrtValue;
struct OrtKernelInfo;
struct OrtKernelContext;
struct OrtSessionOptions;
struct OrtCustomOpDomain;
struct OrtTensorTypeAndShapeInfo;

namespace moembed::ort {

using Functions = void (*const*)();

struct ApiBase {
    Functions (*get_api)(uint32_t version);  // null if that is newer than the runtime
    const char* (*version)();
};

// ONNX Runtime 1.24; nothing below is younger than 1.18.
constexpr uint32_t kApiVersion = 24;

enum class Place : size_t {
    CreateStatus = 0,
    CreateCustomOpDomain = 26,
    CustomOpDomainAdd = 27,
    AddCustomOpDomain = 28,
    GetTensorMutableData = 51,
    GetTensorElementType = 60,
    GetDimensionsCount = 61,
    GetDimensions = 62,
    GetTensorTypeAndShape = 65,
    KernelInfoGetAttributeFloat = 85,
    KernelInfoGetAttributeInt = 86,
    KernelContextGetInputCount = 88,
    KernelContextGetInput = 90,
    KernelContextGetOutput = 91,
    ReleaseStatus = 93,
    ReleaseTensorTypeAndShapeInfo = 99,
    KernelInfoGetInputCount = 230,
    KernelInfoGetConstantInput = 249,
    KernelContextParallelFor = 274,
};

enum class Error : int { Fail = 1, InvalidArgument = 2 };

// ONNXTensorElementDataType
enum class Type : int { Float = 1, Uint8 = 2, Int8 = 3, Int64 = 7, Float16 = 10 };

enum class Characteristic : int { Required = 0, Optional = 1, Variadic = 2 };

// OrtCustomOp as of API version 18; a null function is one that is not there.
struct CustomOp {
    uint32_t version = 18;
    void* (*create)(const CustomOp*, Functions, const OrtKernelInfo*) = nullptr;
    const char* (*name)(const CustomOp*) = nullptr;
    const char* (*provider)(const CustomOp*) = nullptr;
    Type (*input_type)(const CustomOp*, size_t) = nullptr;
    size_t (*inputs)(const CustomOp*) = nullptr;
    Type (*output_type)(const CustomOp*, size_t) = nullptr;
    size_t (*outputs)(const CustomOp*) = nullptr;
    void (*compute)(void*, OrtKernelContext*) = nullptr;
    void (*destroy)(void*) = nullptr;
    Characteristic (*input_characteristic)(const CustomOp*, size_t) = nullptr;
    Characteristic (*output_characteristic)(const CustomOp*, size_t) = nullptr;
    int (*input_memory)(const CustomOp*, size_t) = nullptr;
    int (*variadic_inputs_least)(const CustomOp*) = nullptr;
    int (*variadic_inputs_alike)(const CustomOp*) = nullptr;
    int (*variadic_outputs_least)(const CustomOp*) = nullptr;
    int (*variadic_outputs_alike)(const CustomOp*) = nullptr;
    OrtStatus* (*create2)(const CustomOp*, Functions, const OrtKernelInfo*, void**) = nullptr;
    OrtStatus* (*compute2)(void*, OrtKernelContext*) = nullptr;
    OrtStatus* (*infer_shapes)(const CustomOp*, void*) = nullptr;
    int (*start_version)(const CustomOp*) = nullptr;
    int (*end_version)(const CustomOp*) = nullptr;
    void* in_place[4] = {};
};

}  // namespace moembed::ort
