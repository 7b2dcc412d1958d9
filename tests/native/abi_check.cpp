// Compares ort/abi.h with ONNX Runtime's own header when it is compiled; test_abi.py compiles it.
#include <onnxruntime_c_api.h>

#include <type_traits>

#include "../../runtime/native/ort/abi.h"

namespace ours = moembed::ort;

namespace {

// Whether two types are the same to a caller: equal, enumerations of one size, functions of such types, or pointers to
// such types, where our structures stand for those of the header.
template <class A, class B>
constexpr bool same_enumeration() {
    if constexpr (std::is_enum_v<A> && std::is_enum_v<B>) return sizeof(A) == sizeof(B);
    return false;
}
template <class A, class B>
struct Same : std::bool_constant<std::is_same_v<A, B> || same_enumeration<A, B>()> {};
template <class A, class B>
struct Same<A*, B*> : Same<A, B> {};
template <class A, class B>
struct Same<const A, const B> : Same<A, B> {};
template <>
struct Same<ours::OrtApi, OrtApi> : std::true_type {};
template <>
struct Same<ours::OrtCustomOp, OrtCustomOp> : std::true_type {};
template <class R, class... A, class S, class... B>
struct Same<R(A...), S(B...)> {
    static constexpr bool value = [] {
        if constexpr (sizeof...(A) == sizeof...(B)) {
            return Same<R, S>::value && (Same<A, B>::value && ...);
        } else {
            return false;
        }
    }();
};
template <class R, class... A, class S, class... B>
struct Same<R(A...), S(B...) noexcept> : Same<R(A...), S(B...)> {};

#define SAME_MEMBER(type, member)                                                                       \
    static_assert(offsetof(ours::type, member) == offsetof(type, member), #type "::" #member " moved"); \
    static_assert(Same<decltype(ours::type::member), decltype(type::member)>::value,                    \
                  #type "::" #member " has another signature")

SAME_MEMBER(OrtApiBase, GetApi);
SAME_MEMBER(OrtApiBase, GetVersionString);

SAME_MEMBER(OrtApi, CreateStatus);
SAME_MEMBER(OrtApi, GetErrorMessage);
SAME_MEMBER(OrtApi, CreateCustomOpDomain);
SAME_MEMBER(OrtApi, CustomOpDomain_Add);
SAME_MEMBER(OrtApi, AddCustomOpDomain);
SAME_MEMBER(OrtApi, GetTensorMutableData);
SAME_MEMBER(OrtApi, GetDimensionsCount);
SAME_MEMBER(OrtApi, GetDimensions);
SAME_MEMBER(OrtApi, GetTensorTypeAndShape);
SAME_MEMBER(OrtApi, KernelInfoGetAttribute_float);
SAME_MEMBER(OrtApi, KernelInfoGetAttribute_int64);
SAME_MEMBER(OrtApi, KernelContext_GetInputCount);
SAME_MEMBER(OrtApi, KernelContext_GetInput);
SAME_MEMBER(OrtApi, KernelContext_GetOutput);
SAME_MEMBER(OrtApi, ReleaseStatus);
SAME_MEMBER(OrtApi, ReleaseTensorTypeAndShapeInfo);
SAME_MEMBER(OrtApi, KernelInfo_GetInputCount);
SAME_MEMBER(OrtApi, GetSessionConfigEntry);
SAME_MEMBER(OrtApi, KernelInfoGetConstantInput_tensor);
SAME_MEMBER(OrtApi, KernelContext_ParallelFor);

SAME_MEMBER(OrtCustomOp, version);
SAME_MEMBER(OrtCustomOp, CreateKernel);
SAME_MEMBER(OrtCustomOp, GetName);
SAME_MEMBER(OrtCustomOp, GetExecutionProviderType);
SAME_MEMBER(OrtCustomOp, GetInputType);
SAME_MEMBER(OrtCustomOp, GetInputTypeCount);
SAME_MEMBER(OrtCustomOp, GetOutputType);
SAME_MEMBER(OrtCustomOp, GetOutputTypeCount);
SAME_MEMBER(OrtCustomOp, KernelCompute);
SAME_MEMBER(OrtCustomOp, KernelDestroy);
SAME_MEMBER(OrtCustomOp, GetInputCharacteristic);
SAME_MEMBER(OrtCustomOp, GetOutputCharacteristic);
SAME_MEMBER(OrtCustomOp, GetInputMemoryType);
SAME_MEMBER(OrtCustomOp, GetVariadicInputMinArity);
SAME_MEMBER(OrtCustomOp, GetVariadicInputHomogeneity);
SAME_MEMBER(OrtCustomOp, GetVariadicOutputMinArity);
SAME_MEMBER(OrtCustomOp, GetVariadicOutputHomogeneity);
SAME_MEMBER(OrtCustomOp, CreateKernelV2);
SAME_MEMBER(OrtCustomOp, KernelComputeV2);
SAME_MEMBER(OrtCustomOp, InferOutputShapeFn);
SAME_MEMBER(OrtCustomOp, GetStartVersion);
SAME_MEMBER(OrtCustomOp, GetEndVersion);
SAME_MEMBER(OrtCustomOp, GetMayInplace);
SAME_MEMBER(OrtCustomOp, ReleaseMayInplace);
SAME_MEMBER(OrtCustomOp, GetAliasMap);
SAME_MEMBER(OrtCustomOp, ReleaseAliasMap);
static_assert(sizeof(ours::OrtCustomOp) == sizeof(OrtCustomOp), "OrtCustomOp has another size");

#define SAME_VALUE(own, theirs) static_assert(static_cast<int>(ours::own) == theirs, #theirs " has another value")

SAME_VALUE(OrtErrorCode::Fail, ORT_FAIL);
SAME_VALUE(OrtErrorCode::InvalidArgument, ORT_INVALID_ARGUMENT);
SAME_VALUE(TensorType::Float, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT);
SAME_VALUE(TensorType::Uint8, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8);
SAME_VALUE(TensorType::Int8, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8);
SAME_VALUE(TensorType::Int64, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64);
SAME_VALUE(TensorType::Float16, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16);
SAME_VALUE(Characteristic::Required, INPUT_OUTPUT_REQUIRED);
SAME_VALUE(Characteristic::Variadic, INPUT_OUTPUT_VARIADIC);
SAME_VALUE(OrtMemType::Default, OrtMemTypeDefault);

}  // namespace
