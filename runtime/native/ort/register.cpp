// Registers the operators with a session. ONNX Runtime calls RegisterCustomOps
// when this library is added to session options.
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "../api.h"
#include "../kernels/select.h"
#include "ops.h"

namespace moembed::ort {

const std::vector<Operator>& operators() {
    constexpr auto kFloat = TensorType::Float;
    constexpr auto kFloat16 = TensorType::Float16;
    constexpr auto kInt64 = TensorType::Int64;
    constexpr auto kInt8 = TensorType::Int8;
    constexpr auto kUint8 = TensorType::Uint8;
    // A packed weight, its scales and its bias, three times after quantized rows and their scales; then those of a norm.
    const std::vector<TensorType> gated{kUint8, kFloat, kInt8, kFloat, kFloat, kInt8,
                                        kFloat, kFloat, kInt8, kFloat, kFloat};
    std::vector<TensorType> gated_norm = gated;
    gated_norm.insert(gated_norm.end(), 4, kFloat);
    static const auto& all = *new std::vector<Operator>{
        {"Quantize", quantize, {kFloat}, {kUint8, kFloat}},
        {"GeluMulQuantize", gelu_mul_quantize, {kFloat, kFloat}, {kUint8, kFloat}},
        {"SiluMulQuantize", silu_mul_quantize, {kFloat, kFloat}, {kUint8, kFloat}},
        {"Int8Embedding",
         int8_embedding,
         {kInt64, kInt8, kFloat, kFloat, kFloat, kFloat, kFloat},
         {kFloat, kUint8, kFloat}},
        {"Int4Embedding",
         int4_embedding,
         {kInt64, kUint8, kFloat16, kFloat, kFloat, kFloat, kFloat},
         {kFloat, kUint8, kFloat}},
        {"AddNorm", add_norm, {kFloat, kFloat, kFloat, kFloat}, {kFloat}},
        {"AddNormQuantize", add_norm_quantize, {kFloat, kFloat, kFloat, kFloat, kFloat}, {kFloat, kUint8, kFloat}},
        {"Int8Linear", int8_linear, {kUint8, kFloat, kInt8, kFloat, kFloat}, {kFloat}},
        {"Int8LinearNorm",
         int8_linear_norm,
         {kUint8, kFloat, kInt8, kFloat, kFloat, kFloat, kFloat, kFloat, kFloat},
         {kFloat, kUint8, kFloat}},
        {"Int8LinearGelu", int8_linear_gelu, {kUint8, kFloat, kInt8, kFloat, kFloat}, {kUint8, kFloat}},
        {"Int8FeedForward",
         int8_feed_forward,
         {kUint8, kFloat, kInt8, kFloat, kFloat, kInt8, kFloat, kFloat},
         {kFloat}},
        {"Int8FeedForwardNorm",
         int8_feed_forward_norm,
         {kUint8, kFloat, kInt8, kFloat, kFloat, kInt8, kFloat, kFloat, kFloat, kFloat, kFloat, kFloat},
         {kFloat, kUint8, kFloat}},
        {"Int8GeluMulFeedForward", int8_gelu_mul_feed_forward, gated, {kFloat}},
        {"Int8GeluMulFeedForwardNorm", int8_gelu_mul_feed_forward_norm, gated_norm, {kFloat, kUint8, kFloat}},
        {"Int8SiluMulFeedForward", int8_silu_mul_feed_forward, gated, {kFloat}},
        {"Int8SiluMulFeedForwardNorm", int8_silu_mul_feed_forward_norm, gated_norm, {kFloat, kUint8, kFloat}},
        {"Int8Experts", int8_experts, {kUint8, kFloat, kFloat, kInt64, kFloat, kFloat, kFloat, kInt8}, {kFloat}, true},
        {"Int8ExpertsNorm",
         int8_experts_norm,
         {kUint8, kFloat, kFloat, kInt64, kFloat, kFloat, kFloat, kFloat, kFloat, kFloat, kFloat, kInt8},
         {kFloat, kUint8, kFloat},
         true},
        {"Router", router, {kFloat, kFloat}, {kFloat, kInt64}},
        {"Attention", attention, {kFloat, kInt64, kInt64, kFloat, kFloat}, {kFloat}},
        {"Int8Attention",
         int8_attention,
         {kUint8, kFloat, kInt8, kFloat, kFloat, kInt64, kInt64, kFloat, kFloat},
         {kUint8, kFloat}},
        {"Pool", pool, {kFloat, kInt64, kInt64}, {kFloat}},
    };
    return all;
}

namespace {

constexpr const char* kDomain = "moembed";
constexpr const char* kKernelsEntry = "moembed.kernels";  // CONFIG_ENTRY of inference/kernels.py

constexpr const char* kThreadsEntry = "moembed.threads";  // THREADS_ENTRY there

// What the operators of a session have in common.
struct Execution {
    const Kernels* kernels = nullptr;
    size_t threads = 1;  // that work is divided for

    bool operator==(const Execution& other) const { return kernels == other.kernels && threads == other.threads; }
};

// An operator, computed by the kernels of one instruction set.
struct CustomOp : OrtCustomOp {
    const Operator* op = nullptr;
    Execution execution;
};

// One node of a session.
struct Kernel {
    const OrtApi& api;
    const CustomOp& op;
    Attributes attributes;
    std::unique_ptr<ColumnSums[]> sums;  // one per input
};

const CustomOp& custom(const OrtCustomOp* op) { return *static_cast<const CustomOp*>(op); }

// Reads an attribute; a node without it keeps the default.
template <class T>
void read(const OrtApi& api, const OrtKernelInfo* info, const char* name,
          OrtStatus* (*get)(const OrtKernelInfo*, const char*, T*), T* value) {
    T found{};
    if (OrtStatus* status = get(info, name, &found)) {
        api.ReleaseStatus(status);
    } else {
        *value = found;
    }
}

// Runs f, and turns what it throws into a status whose message starts with `where`.
template <class F>
OrtStatus* guarded(const OrtApi& api, const std::string& where, F f) {
    const auto failure = [&](OrtErrorCode code, const char* message) {
        return api.CreateStatus(code, (where + ": " + message).c_str());
    };
    try {
        f();
        return nullptr;
    } catch (const InvalidInput& error) {
        return failure(OrtErrorCode::InvalidArgument, error.what());
    } catch (const std::bad_alloc&) {
        return failure(OrtErrorCode::Fail, "not enough memory");
    } catch (const std::exception& error) {
        return failure(OrtErrorCode::Fail, error.what());
    } catch (...) {
        return failure(OrtErrorCode::Fail, "unknown exception");
    }
}

OrtStatus* create(const OrtCustomOp* op, const OrtApi* api, const OrtKernelInfo* info, void** kernel) {
    return guarded(*api, kDomain, [&] {
        Attributes attributes;
        read(*api, info, "epsilon", api->KernelInfoGetAttribute_float, &attributes.epsilon);
        read(*api, info, "zero_point", api->KernelInfoGetAttribute_int64, &attributes.zero_point);
        read(*api, info, "top_k", api->KernelInfoGetAttribute_int64, &attributes.top_k);
        read(*api, info, "num_heads", api->KernelInfoGetAttribute_int64, &attributes.num_heads);
        size_t inputs = 0;
        check(*api, api->KernelInfo_GetInputCount(info, &inputs));
        auto sums = std::make_unique<ColumnSums[]>(inputs);
        for (size_t i = 0; i < inputs; ++i) {
            int constant = 0;
            const OrtValue* value = nullptr;
            if (OrtStatus* status = api->KernelInfoGetConstantInput_tensor(info, i, &constant, &value)) {
                api->ReleaseStatus(status);  // not a tensor, so not a packed weight
                constant = 0;
            }
            sums[i].constant = constant != 0;
        }
        *kernel = new Kernel{*api, custom(op), attributes, std::move(sums)};
    });
}

OrtStatus* compute(void* data, OrtKernelContext* context) {
    const auto& kernel = *static_cast<const Kernel*>(data);
    const Operator& op = *kernel.op.op;
    const DefaultFloatMode mode;
    return guarded(kernel.api, std::string(kDomain) + "." + op.name, [&] {
        const Execution& execution = kernel.op.execution;
        Call call(kernel.api, context, *execution.kernels, execution.threads, kernel.attributes, kernel.sums.get());
        op.compute(call);
    });
}

CustomOp described(const Operator& op, const Execution& execution) {
    CustomOp c;
    c.op = &op;
    c.execution = execution;
    c.GetName = [](const OrtCustomOp* o) { return custom(o).op->name; };
    c.GetExecutionProviderType = [](const OrtCustomOp*) -> const char* { return nullptr; };  // the CPU's
    c.GetInputType = [](const OrtCustomOp* o, size_t i) { return custom(o).op->inputs[i]; };
    c.GetInputTypeCount = [](const OrtCustomOp* o) { return custom(o).op->inputs.size(); };
    c.GetOutputType = [](const OrtCustomOp* o, size_t i) { return custom(o).op->outputs[i]; };
    c.GetOutputTypeCount = [](const OrtCustomOp* o) { return custom(o).op->outputs.size(); };
    c.KernelDestroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
    c.GetInputCharacteristic = [](const OrtCustomOp* o, size_t i) {
        const Operator& described = *custom(o).op;
        return described.variadic && i + 1 == described.inputs.size() ? Characteristic::Variadic
                                                                      : Characteristic::Required;
    };
    c.GetOutputCharacteristic = [](const OrtCustomOp*, size_t) { return Characteristic::Required; };
    c.GetInputMemoryType = [](const OrtCustomOp*, size_t) { return OrtMemType::Default; };
    c.GetVariadicInputMinArity = [](const OrtCustomOp*) { return 2; };
    c.GetVariadicInputHomogeneity = [](const OrtCustomOp*) { return 1; };
    c.GetVariadicOutputMinArity = [](const OrtCustomOp*) { return 1; };
    c.GetVariadicOutputHomogeneity = [](const OrtCustomOp*) { return 1; };
    c.CreateKernelV2 = create;
    c.KernelComputeV2 = compute;
    c.GetStartVersion = [](const OrtCustomOp*) { return 1; };
    c.GetEndVersion = [](const OrtCustomOp*) { return 1; };
    return c;
}

// The operators of some sessions. A session keeps pointers to them, so they live as long as the process.
struct Domain {
    Execution execution;
    std::vector<CustomOp> ops;
    OrtCustomOpDomain* domain = nullptr;
};

OrtCustomOpDomain* domain_of(const OrtApi& api, const Execution& execution) {
    static std::mutex mutex;
    static auto& domains = *new std::vector<std::unique_ptr<Domain>>;
    const std::lock_guard<std::mutex> lock(mutex);
    for (const auto& known : domains) {
        if (known->execution == execution) return known->domain;
    }
    auto made = std::make_unique<Domain>();
    made->execution = execution;
    for (const Operator& op : operators()) made->ops.push_back(described(op, execution));
    check(api, api.CreateCustomOpDomain(kDomain, &made->domain));
    for (const CustomOp& op : made->ops) check(api, api.CustomOpDomain_Add(made->domain, &op));
    domains.push_back(std::move(made));
    return domains.back()->domain;
}

// Value of an entry of the session options; empty if it is not set, or longer than any that is valid.
std::string entry(const OrtApi& api, const OrtSessionOptions* options, const char* key) {
    char value[32] = {};
    size_t size = sizeof value;
    if (OrtStatus* status = api.GetSessionConfigEntry(options, key, value, &size)) {
        api.ReleaseStatus(status);
        return {};
    }
    return value;
}

// The kernels that the session options name.
const Kernels* kernels_of(const OrtApi& api, const OrtSessionOptions* options) {
    const std::string name = entry(api, options, kKernelsEntry);
    if (name.empty()) {
        throw InvalidInput(std::string("set the session config entry '") + kKernelsEntry +
                           "' to the name of the kernels before you register this library");
    }
    const Kernels* kernels = kernels_named(name.c_str());
    if (!kernels) {
        throw InvalidInput(std::string("session config entry '") + kKernelsEntry + "' is '" + name +
                           "', which are no kernels that this machine can run");
    }
    return kernels;
}

// The threads of the session that the options name; by default those of this process's processors.
size_t threads_of(const OrtApi& api, const OrtSessionOptions* options) {
    const std::string threads = entry(api, options, kThreadsEntry);
    const long count = threads.empty() ? static_cast<long>(std::thread::hardware_concurrency())
                                       : std::strtol(threads.c_str(), nullptr, 10);
    return count > 1 ? static_cast<size_t>(count) : 1;
}

}  // namespace
}  // namespace moembed::ort

MOEMBED_API OrtStatus* RegisterCustomOps(OrtSessionOptions* options, const moembed::ort::OrtApiBase* base) {
    using namespace moembed::ort;
    const OrtApi* api = base->GetApi(kApiVersion);
    if (!api) {
        // CreateStatus is in every version.
        const std::string message =
            std::string("moembed's kernels need ONNX Runtime 1.24 or newer, found ") + base->GetVersionString();
        return base->GetApi(1)->CreateStatus(OrtErrorCode::Fail, message.c_str());
    }
    return guarded(*api, kDomain, [&] {
        const Execution execution{kernels_of(*api, options), threads_of(*api, options)};
        check(*api, api->AddCustomOpDomain(options, domain_of(*api, execution)));
    });
}
