// The part of ONNX Runtime's C interface that this library uses, with the names of onnxruntime_c_api.h.
//
// The library is compiled where moembed is installed, and no package that pip can install contains that header. The
// interface is stable: OrtApi only grows at its end. tests/native/test_abi.py
// compares every declaration here with the real header.
#pragma once

#include <cstddef>
#include <cstdint>

struct OrtStatus;
struct OrtValue;
struct OrtKernelInfo;
struct OrtKernelContext;
struct OrtSessionOptions;
struct OrtCustomOpDomain;
struct OrtShapeInferContext;
struct OrtTensorTypeAndShapeInfo;

namespace moembed::ort {

struct OrtCustomOp;

// Requested of ONNX Runtime: 1.24. No member below is newer than 1.18.
constexpr uint32_t kApiVersion = 24;

enum class OrtErrorCode : int { Fail = 1, InvalidArgument = 2 };

// ONNXTensorElementDataType
enum class TensorType : int { Float = 1, Uint8 = 2, Int8 = 3, Int64 = 7, Float16 = 10 };

// OrtCustomOpInputOutputCharacteristic
enum class Characteristic : int { Required = 0, Variadic = 2 };

enum class OrtMemType : int { Default = 0 };

// The arrays `unused` stand for the members that this library does not call.
struct OrtApi {
    using Unused = void (*)();

    OrtStatus* (*CreateStatus)(OrtErrorCode code, const char* message);
    Unused unused1[1];
    const char* (*GetErrorMessage)(const OrtStatus* status);
    Unused unused3[23];
    OrtStatus* (*CreateCustomOpDomain)(const char* domain, OrtCustomOpDomain** out);
    OrtStatus* (*CustomOpDomain_Add)(OrtCustomOpDomain* domain, const OrtCustomOp* op);
    OrtStatus* (*AddCustomOpDomain)(OrtSessionOptions* options, OrtCustomOpDomain* domain);
    Unused unused29[22];
    OrtStatus* (*GetTensorMutableData)(OrtValue* value, void** out);
    Unused unused52[9];
    OrtStatus* (*GetDimensionsCount)(const OrtTensorTypeAndShapeInfo* info, size_t* out);
    OrtStatus* (*GetDimensions)(const OrtTensorTypeAndShapeInfo* info, int64_t* values, size_t count);
    Unused unused63[2];
    OrtStatus* (*GetTensorTypeAndShape)(const OrtValue* value, OrtTensorTypeAndShapeInfo** out);
    Unused unused66[19];
    OrtStatus* (*KernelInfoGetAttribute_float)(const OrtKernelInfo* info, const char* name, float* out);
    OrtStatus* (*KernelInfoGetAttribute_int64)(const OrtKernelInfo* info, const char* name, int64_t* out);
    Unused unused87[1];
    OrtStatus* (*KernelContext_GetInputCount)(const OrtKernelContext* context, size_t* out);
    Unused unused89[1];
    OrtStatus* (*KernelContext_GetInput)(const OrtKernelContext* context, size_t index, const OrtValue** out);
    OrtStatus* (*KernelContext_GetOutput)(OrtKernelContext* context, size_t index, const int64_t* shape, size_t axes,
                                          OrtValue** out);
    Unused unused92[1];
    void (*ReleaseStatus)(OrtStatus* status);
    Unused unused94[5];
    void (*ReleaseTensorTypeAndShapeInfo)(OrtTensorTypeAndShapeInfo* info);
    Unused unused100[130];
    OrtStatus* (*KernelInfo_GetInputCount)(const OrtKernelInfo* info, size_t* out);
    Unused unused231[7];
    OrtStatus* (*GetSessionConfigEntry)(const OrtSessionOptions* options, const char* key, char* value, size_t* size);
    Unused unused239[10];
    OrtStatus* (*KernelInfoGetConstantInput_tensor)(const OrtKernelInfo* info, size_t index, int* is_constant,
                                                    const OrtValue** out);
    Unused unused250[24];
    OrtStatus* (*KernelContext_ParallelFor)(const OrtKernelContext* context, void (*function)(void*, size_t),
                                            size_t total, size_t batches, void* data);
};

struct OrtApiBase {
    const OrtApi* (*GetApi)(uint32_t version);  // null if the version is newer than the runtime
    const char* (*GetVersionString)();
};

// The structure as of API version 18. A null function is not implemented.
struct OrtCustomOp {
    uint32_t version = 18;
    void* (*CreateKernel)(const OrtCustomOp*, const OrtApi*, const OrtKernelInfo*) = nullptr;
    const char* (*GetName)(const OrtCustomOp*) = nullptr;
    const char* (*GetExecutionProviderType)(const OrtCustomOp*) = nullptr;
    TensorType (*GetInputType)(const OrtCustomOp*, size_t index) = nullptr;
    size_t (*GetInputTypeCount)(const OrtCustomOp*) = nullptr;
    TensorType (*GetOutputType)(const OrtCustomOp*, size_t index) = nullptr;
    size_t (*GetOutputTypeCount)(const OrtCustomOp*) = nullptr;
    void (*KernelCompute)(void* kernel, OrtKernelContext*) = nullptr;
    void (*KernelDestroy)(void* kernel) = nullptr;
    Characteristic (*GetInputCharacteristic)(const OrtCustomOp*, size_t index) = nullptr;
    Characteristic (*GetOutputCharacteristic)(const OrtCustomOp*, size_t index) = nullptr;
    OrtMemType (*GetInputMemoryType)(const OrtCustomOp*, size_t index) = nullptr;
    int (*GetVariadicInputMinArity)(const OrtCustomOp*) = nullptr;
    int (*GetVariadicInputHomogeneity)(const OrtCustomOp*) = nullptr;
    int (*GetVariadicOutputMinArity)(const OrtCustomOp*) = nullptr;
    int (*GetVariadicOutputHomogeneity)(const OrtCustomOp*) = nullptr;
    OrtStatus* (*CreateKernelV2)(const OrtCustomOp*, const OrtApi*, const OrtKernelInfo*, void** kernel) = nullptr;
    OrtStatus* (*KernelComputeV2)(void* kernel, OrtKernelContext*) = nullptr;
    OrtStatus* (*InferOutputShapeFn)(const OrtCustomOp*, OrtShapeInferContext*) = nullptr;
    int (*GetStartVersion)(const OrtCustomOp*) = nullptr;
    int (*GetEndVersion)(const OrtCustomOp*) = nullptr;
    size_t (*GetMayInplace)(int** inputs, int** outputs) = nullptr;
    void (*ReleaseMayInplace)(int* inputs, int* outputs) = nullptr;
    size_t (*GetAliasMap)(int** inputs, int** outputs) = nullptr;
    void (*ReleaseAliasMap)(int* inputs, int* outputs) = nullptr;
};

}  // namespace moembed::ort
