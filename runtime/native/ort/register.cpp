// Registers the operators with a session: ONNX Runtime calls RegisterCustomOps when a session's options name this library.
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <vector>

#include "../api.h"
#include "../kernels/select.h"
#include "ops.h"

namespace moembed::ort {

const Operator kOperators[] = {
    {"Quantize", 1, 2, {Type::Float}, {Type::Uint8, Type::Float}, false, quantize},
    {"Int8Embedding",
     7,
     3,
     {Type::Int64, Type::Int8, Type::Float, Type::Float, Type::Float, Type::Float, Type::Float},
     {Type::Float, Type::Uint8, Type::Float},
     false,
     int8_embedding},
    {"Int4Embedding",
     7,
     3,
     {Type::Int64, Type::Uint8, Type::Float16, Type::Float, Type::Float, Type::Float, Type::Float},
     {Type::Float, Type::Uint8, Type::Float},
     false,
     int4_embedding},
    {"AddNorm", 4, 1, {Type::Float, Type::Float, Type::Float, Type::Float}, {Type::Float}, false, add_norm},
    {"AddNormQuantize",
     5,
     3,
     {Type::Float, Type::Float, Type::Float, Type::Float, Type::Float},
     {Type::Float, Type::Uint8, Type::Float},
     false,
     add_norm_quantize},
    {"Int8Linear",
     5,
     1,
     {Type::Uint8, Type::Float, Type::Int8, Type::Float, Type::Float},
     {Type::Float},
     false,
     int8_linear},
    {"Int8LinearGelu",
     5,
     2,
     {Type::Uint8, Type::Float, Type::Int8, Type::Float, Type::Float},
     {Type::Uint8, Type::Float},
     false,
     int8_linear_gelu},
    {"Int8Experts",
     8,
     1,
     {Type::Uint8, Type::Float, Type::Float, Type::Int64, Type::Float, Type::Float, Type::Float, Type::Int8},
     {Type::Float},
     true,
     int8_experts},
    {"Router", 2, 2, {Type::Float, Type::Float}, {Type::Float, Type::Int64}, false, router},
    {"Attention",
     5,
     1,
     {Type::Float, Type::Int64, Type::Int64, Type::Float, Type::Float},
     {Type::Float},
     false,
     attention},
    {"Pool", 3, 1, {Type::Float, Type::Int64, Type::Int64}, {Type::Float}, false, pool},
};
const size_t kOperatorCount = sizeof kOperators / sizeof *kOperators;

namespace {

// One operator as one instruction set computes it.
struct Registered : CustomOp {
    const Operator* op = nullptr;
    const Kernels* kernels = nullptr;
};

struct Kernel {
    Functions api;
    const Operator* op;
    Settings settings;
    std::unique_ptr<ColumnSums[]> sums;  // of each input
};

const Operator& op_of(const CustomOp* op) { return *static_cast<const Registered*>(op)->op; }

int64_t int_attribute(Functions api, const OrtKernelInfo* info, const char* name) {
    int64_t value = 0;
    if (auto* status = invoke(api, Place::KernelInfoGetAttributeInt, info, name, &value)) {
        invoke<void>(api, Place::ReleaseStatus, status);  // not an attribute of this operator
        return 0;
    }
    return value;
}

float float_attribute(Functions api, const OrtKernelInfo* info, const char* name) {
    float value = 0;
    if (auto* status = invoke(api, Place::KernelInfoGetAttributeFloat, info, name, &value)) {
        invoke<void>(api, Place::ReleaseStatus, status);
        return 0;
    }
    return value;
}

OrtStatus* failure(Functions api, Error code, const std::string& message) {
    return invoke(api, Place::CreateStatus, code, message.c_str());
}

OrtStatus* create(const CustomOp* op, Functions api, const OrtKernelInfo* info, void** kernel) {
    auto* made = new (std::nothrow) Kernel;
    if (!made) return failure(api, Error::Fail, "moembed: not enough memory");
    made->api = api;
    made->op = &op_of(op);
    made->settings.kernels = static_cast<const Registered*>(op)->kernels;
    made->settings.epsilon = float_attribute(api, info, "epsilon");
    made->settings.middle = int_attribute(api, info, "zero_point");
    made->settings.top_k = int_attribute(api, info, "top_k");
    made->settings.heads = int_attribute(api, info, "num_heads");
    size_t inputs = 0;
    if (auto* status = invoke(api, Place::KernelInfoGetInputCount, info, &inputs)) return delete made, status;
    made->sums.reset(new (std::nothrow) ColumnSums[inputs]);
    if (!made->sums) return delete made, failure(api, Error::Fail, "moembed: not enough memory");
    for (size_t i = 0; i < inputs; ++i) {
        int constant = 0;
        const OrtValue* value = nullptr;
        if (auto* status = invoke(api, Place::KernelInfoGetConstantInput, info, i, &constant, &value)) {
            invoke<void>(api, Place::ReleaseStatus, status);  // then it is none
        }
        made->sums[i].constant = constant != 0;
    }
    *kernel = made;
    return nullptr;
}

OrtStatus* compute(void* data, OrtKernelContext* context) {
    const auto& kernel = *static_cast<const Kernel*>(data);
    const std::string name = std::string("moembed.") + kernel.op->name + ": ";
    try {
        Call call(kernel.api, context, kernel.settings, kernel.sums.get());
        kernel.op->compute(call);
        return nullptr;
    } catch (const Refusal& refusal) {
        return failure(kernel.api, Error::InvalidArgument, name + refusal.message);
    } catch (...) {
        return failure(kernel.api, Error::Fail, name + "not enough memory");
    }
}

Registered described(const Operator& op, const Kernels* kernels) {
    Registered r;
    r.op = &op;
    r.kernels = kernels;
    r.name = [](const CustomOp* o) { return op_of(o).name; };
    r.provider = [](const CustomOp*) -> const char* { return nullptr; };  // the CPU's
    r.input_type = [](const CustomOp* o, size_t i) { return op_of(o).input[i]; };
    r.inputs = [](const CustomOp* o) { return op_of(o).inputs; };
    r.output_type = [](const CustomOp* o, size_t i) { return op_of(o).output[i]; };
    r.outputs = [](const CustomOp* o) { return op_of(o).outputs; };
    r.destroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
    r.input_characteristic = [](const CustomOp* o, size_t i) {
        return op_of(o).variadic && i + 1 == op_of(o).inputs ? Characteristic::Variadic : Characteristic::Required;
    };
    r.output_characteristic = [](const CustomOp*, size_t) { return Characteristic::Required; };
    r.input_memory = [](const CustomOp*, size_t) { return 0; };
    r.variadic_inputs_least = [](const CustomOp*) { return 2; };
    r.variadic_inputs_alike = [](const CustomOp*) { return 1; };
    r.variadic_outputs_least = [](const CustomOp*) { return 1; };
    r.variadic_outputs_alike = [](const CustomOp*) { return 1; };
    r.create2 = create;
    r.compute2 = compute;
    r.start_version = [](const CustomOp*) { return 1; };
    r.end_version = [](const CustomOp*) { return 1; };
    return r;
}

// A session keeps pointers to its operators: these live as long as the process.
struct Domain {
    const Kernels* kernels;
    std::vector<Registered> ops;
    OrtCustomOpDomain* domain = nullptr;
};

OrtStatus* domain_of(Functions api, const Kernels* kernels, OrtCustomOpDomain** found) {
    static std::mutex mutex;
    static auto& domains = *new std::vector<Domain*>;
    const std::lock_guard<std::mutex> lock(mutex);
    for (const Domain* domain : domains) {
        if (domain->kernels == kernels) return *found = domain->domain, nullptr;
    }
    auto* made = new Domain{kernels, {}, nullptr};
    for (size_t i = 0; i < kOperatorCount; ++i) made->ops.push_back(described(kOperators[i], kernels));
    const char* name = "moembed";
    if (auto* status = invoke(api, Place::CreateCustomOpDomain, name, &made->domain)) return status;
    for (const CustomOp& op : made->ops) {
        if (auto* status = invoke(api, Place::CustomOpDomainAdd, made->domain, &op)) return status;
    }
    domains.push_back(made);
    *found = made->domain;
    return nullptr;
}

thread_local const Kernels* chosen = nullptr;

}  // namespace
}  // namespace moembed::ort

int32_t moembed_kernels_usable(int32_t index, const char** name) {
    const moembed::Choice* choice = moembed::choices() + index;
    *name = choice->kernels ? choice->kernels->name : nullptr;
    return choice->usable;
}

int32_t moembed_kernels_choose(const char* name) {
    moembed::ort::chosen = moembed::kernels_named(name);
    return moembed::ort::chosen != nullptr;
}

MOEMBED_API OrtStatus* RegisterCustomOps(OrtSessionOptions* options, const moembed::ort::ApiBase* base) {
    using namespace moembed::ort;
    Functions api = base->get_api(kApiVersion);
    if (!api) {
        // Statuses are made as they always were.
        return failure(base->get_api(1), Error::Fail,
                       std::string("moembed's kernels need ONNX Runtime 1.24 or newer, found ") + base->version());
    }
    if (!chosen)
        return failure(api, Error::InvalidArgument, "moembed: no kernels were chosen: call moembed_kernels_choose");
    try {
        OrtCustomOpDomain* domain = nullptr;
        if (auto* status = domain_of(api, chosen, &domain)) return status;
        return invoke(api, Place::AddCustomOpDomain, options, domain);
    } catch (...) {
        return failure(api, Error::Fail, "moembed: not enough memory");
    }
}
