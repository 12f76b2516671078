#include "device.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <memory>

#include <ggml-cpp.h>

#include "abi.h"
#include "buffer.h"
#include "graph.h"
#include "guard.h"
#include "kv_nodes.h"
#include "log.h"

namespace tq::plugin {
namespace {

// One per process: ggml never unloads a device that is in use.
struct Context {
    Config config;
    std::string description;
};
Context g_context;  // NOLINT(cert-err58-cpp)

std::string describe(const Config& config) {
    return "TurboQuant KV cache: " + config.description();
}

// The CPU device is registered before ours in every host, but maybe not yet when ggml asks for our name.
ggml_backend_dev_t cpu_device() {
    return ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
}

template <class Function>
Function cpu_function(const char* name) {
    return reinterpret_cast<Function>(
        ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(cpu_device()), name));
}

bool host_cpu_uses_openmp() {
    auto get_features = cpu_function<ggml_backend_get_features_t>("ggml_backend_get_features");
    if (!get_features) return false;
    for (const ggml_backend_feature* f = get_features(ggml_backend_dev_backend_reg(cpu_device())); f && f->name; ++f) {
        if (std::strcmp(f->name, "OPENMP") == 0) return true;
    }
    return false;
}

// Programs that compare caches in one process call this: buffers made from now on take these presets and calibration
// file (null: none). Returns what is wrong with them, or null. No other thread may make a context meanwhile.
const char* configure(const char* preset_names, const char* calibration_file) try {
    static std::string problem;
    const Result<LayerPresets> presets = LayerPresets::parse(preset_names);
    if (!presets.ok()) {
        problem = presets.status().message();
        return problem.c_str();
    }
    std::shared_ptr<const Calibration> calibration;
    if (calibration_file) {
        const auto read = Calibration::read(calibration_file);
        if (!read.ok()) {
            problem = read.status().message();
            return problem.c_str();
        }
        calibration = read.value();
    }
    g_context.config.presets = presets.value();
    g_context.config.calibration = std::move(calibration);
    g_context.description = describe(g_context.config);
    return nullptr;
} catch (const std::exception&) {
    return "there is not enough memory";
}

// ---- backend --------------------------------------------------------------------------------------------------------

// Runs graphs on an inner CPU backend.
class Backend {
  public:
    explicit Backend(ggml_backend_t cpu) : cpu_(cpu), rewriter_(g_context.config) {}
    ~Backend() {
        ggml_backend_free(cpu_);
        free_threadpool();
    }
    Backend(const Backend&) = delete;
    Backend& operator=(const Backend&) = delete;

    static Backend& of(ggml_backend_t backend) {
        return *static_cast<Backend*>(reinterpret_cast<abi::Backend*>(backend)->context);
    }

    void set_n_threads(int n) {
        const bool wants_pool = !openmp_ && !threadpool_;
        if (n == n_threads_ && !wants_pool) return;
        n_threads_ = n;
        if (auto set = cpu_function<ggml_backend_set_n_threads_t>("ggml_backend_set_n_threads")) set(cpu_, n);
        if (!openmp_) replace_threadpool();
    }

    void set_abort_callback(ggml_abort_callback callback, void* data) {
        if (auto set = cpu_function<ggml_backend_set_abort_callback_t>("ggml_backend_set_abort_callback"))
            set(cpu_, callback, data);
    }

    ggml_status compute(ggml_cgraph* graph) {
        ggml_cgraph* rewritten = rewriter_.rewrite(graph, n_threads_);
        if (!rewritten) return GGML_STATUS_FAILED;
        const ggml_status status = ggml_backend_graph_compute(cpu_, rewritten);
        if (rewritten == graph || status != GGML_STATUS_SUCCESS) return status;
        return rewriter_.succeeded() ? GGML_STATUS_SUCCESS : GGML_STATUS_FAILED;
    }

  private:
    using NewThreadpool = ggml_threadpool_t (*)(ggml_threadpool_params*);
    using FreeThreadpool = void (*)(ggml_threadpool_t);
    using SetThreadpool = void (*)(ggml_backend_t, ggml_threadpool_t);

    // Without OpenMP the CPU backend would start its threads anew for every graph.
    void replace_threadpool() {
        auto create = cpu_function<NewThreadpool>("ggml_threadpool_new");
        auto set = cpu_function<SetThreadpool>("ggml_backend_cpu_set_threadpool");
        if (!create || !set) return;
        ggml_threadpool_params params = ggml_threadpool_params_default(n_threads_);
        ggml_threadpool_t pool = create(&params);
        set(cpu_, pool);
        free_threadpool();
        threadpool_ = pool;
    }

    void free_threadpool() {
        if (!threadpool_) return;
        if (auto free = cpu_function<FreeThreadpool>("ggml_threadpool_free")) free(threadpool_);
        threadpool_ = nullptr;
    }

    ggml_backend_t cpu_;
    ggml_threadpool_t threadpool_ = nullptr;
    GraphRewriter rewriter_;
    const bool openmp_ = host_cpu_uses_openmp();
    int n_threads_ = GGML_DEFAULT_N_THREADS;
};

ggml_backend_t make_backend(ggml_backend_dev_t device) {
    static ggml_guid guid = {0x74, 0x75, 0x72, 0x62, 0x6f, 0x71, 0x75, 0x61,
                             0x6e, 0x74, 0x2d, 0x67, 0x67, 0x6d, 0x6c, 0x31};
    ggml_backend_ptr cpu(ggml_backend_dev_init(cpu_device(), nullptr));
    if (!cpu) return nullptr;
    auto backend = std::make_unique<abi::Backend>();
    backend->guid = &guid;
    backend->device = device;
    auto context = std::make_unique<Backend>(cpu.get());
    (void)cpu.release();  // it is the context's now
    backend->context = context.release();
    backend->iface.get_name = [](ggml_backend_t) { return kDeviceName; };
    backend->iface.free = [](ggml_backend_t b) {
        delete &Backend::of(b);
        delete reinterpret_cast<abi::Backend*>(b);
    };
    backend->iface.graph_compute = [](ggml_backend_t b, ggml_cgraph* graph) {
        return guarded("computing attention", GGML_STATUS_ALLOC_FAILED, [&] { return Backend::of(b).compute(graph); });
    };
    return reinterpret_cast<ggml_backend_t>(backend.release());
}

// llama.cpp takes a device of this type if the user names it, or if there is no GPU; never beside a GPU unasked.
constexpr enum ggml_backend_dev_type kDeviceType = GGML_BACKEND_DEVICE_TYPE_IGPU;

// ---- device ---------------------------------------------------------------------------------------------------------

template <int api>
struct Host {
    static inline abi::BufferType<api> buffer_type;
    static inline abi::Device device;
    static inline abi::Registry registry;

    static ggml_backend_buffer_type_t buft() { return reinterpret_cast<ggml_backend_buffer_type_t>(&buffer_type); }
    static ggml_backend_dev_t dev() { return reinterpret_cast<ggml_backend_dev_t>(&device); }
    static ggml_backend_reg_t reg() { return reinterpret_cast<ggml_backend_reg_t>(&registry); }

    // llama.cpp probes every weight with an empty buffer of our type: weights belong to the CPU. Caches have such a
    // buffer in its dry runs.
    static bool is_probed_weight(const ggml_tensor* tensor) {
        if (!tensor) return false;
        const ggml_tensor* root = root_of(tensor);
        return KvBuffer::is_dummy(root) && !has_cache_name(root);
    }

    static bool supports_op(const ggml_tensor* op) {
        if (has_kv(op)) {
            if (std::string reason = rejection(op); !reason.empty()) log_once(GGML_LOG_LEVEL_ERROR, reason);
            learn_head_dim(op);
            return is_kv(op) || ggml_backend_dev_supports_op(cpu_device(), op);
        }
        if (std::any_of(std::begin(op->src), std::end(op->src), is_probed_weight)) return false;
        return ggml_backend_dev_supports_op(cpu_device(), op);
    }

    // ggml never asks for less than a tensor's nominal size where it is built with assertions, and tells us only by
    // alloc_buffer_n (API 3) for which tensors it wants memory. With API 2 there is no other way: such builds stop
    // there.
    static void fill_allocation() {
        auto& iface = buffer_type.iface;
        if constexpr (api == 2) {
            iface.alloc_buffer = [](ggml_backend_buffer_type_t, size_t size) {
                return guarded("allocating a buffer", ggml_backend_buffer_t{},
                               [&] { return KvBuffer::allocate(size, g_context.config, true); });
            };
            iface.get_alloc_size = [](ggml_backend_buffer_type_t, const ggml_tensor* tensor) {
                return guarded("sizing a buffer", ggml_nbytes(tensor),
                               [&] { return KvBuffer::alloc_size(tensor, g_context.config); });
            };
        } else {
            iface.alloc_buffer = [](ggml_backend_buffer_type_t, size_t size) {
                return guarded("allocating a buffer", ggml_backend_buffer_t{},
                               [&] { return KvBuffer::allocate(size, g_context.config, false); });
            };
            iface.alloc_buffer_n = [](ggml_backend_buffer_type_t, ggml_tensor** tensors, int n) {
                return guarded("allocating a buffer", ggml_backend_buffer_t{},
                               [&] { return KvBuffer::allocate(tensors, n, g_context.config); });
            };
            iface.get_alloc_size_n = [](ggml_backend_buffer_type_t, ggml_tensor** tensors, int n) {
                return guarded("sizing a buffer", size_t{0},
                               [&] { return KvBuffer::alloc_size(tensors, n, g_context.config); });
            };
        }
    }

    static void fill_buffer_type() {
        buffer_type.device = dev();
        buffer_type.iface.get_name = [](ggml_backend_buffer_type_t) { return kDeviceName; };
        buffer_type.iface.get_alignment = [](ggml_backend_buffer_type_t) { return KvBuffer::kAlignment; };
        fill_allocation();
        KvBuffer::set_type(buft());
    }

    // Says what the CPU device says, so that weights are mapped into memory as they are for it.
    static void get_props(ggml_backend_dev_t, ggml_backend_dev_props* props) {
        ggml_backend_dev_get_props(cpu_device(), props);
        props->name = kDeviceName;
        props->description = g_context.description.c_str();
        props->type = kDeviceType;
        props->device_id = nullptr;
    }

    static void fill_device() {
        device.reg = reg();
        auto& iface = device.iface;
        iface.get_name = [](ggml_backend_dev_t) { return kDeviceName; };
        iface.get_description = [](ggml_backend_dev_t) { return g_context.description.c_str(); };
        iface.get_memory = [](ggml_backend_dev_t, size_t* free, size_t* total) {
            ggml_backend_dev_memory(cpu_device(), free, total);
        };
        iface.get_type = [](ggml_backend_dev_t) { return kDeviceType; };
        iface.get_props = get_props;
        iface.init_backend = [](ggml_backend_dev_t self, const char*) {
            return guarded("starting the device", ggml_backend_t{}, [&] { return make_backend(self); });
        };
        iface.get_buffer_type = [](ggml_backend_dev_t) { return buft(); };
        iface.buffer_from_host_ptr = [](ggml_backend_dev_t, void* memory, size_t size, size_t max_tensor_size) {
            return ggml_backend_dev_buffer_from_host_ptr(cpu_device(), memory, size, max_tensor_size);
        };
        iface.supports_op = [](ggml_backend_dev_t, const ggml_tensor* op) {
            return guarded("looking at a graph", false, [&] { return supports_op(op); });
        };
        iface.supports_buft = [](ggml_backend_dev_t, ggml_backend_buffer_type_t type) {
            return type == buft() || ggml_backend_dev_supports_buft(cpu_device(), type);
        };
    }

    static void* proc_address(ggml_backend_reg_t, const char* name) {
        if (std::strcmp(name, "turboquant_configure_cache") == 0) return reinterpret_cast<void*>(&configure);
        if (std::strcmp(name, "ggml_backend_set_n_threads") == 0) {
            ggml_backend_set_n_threads_t set = [](ggml_backend_t b, int n) { Backend::of(b).set_n_threads(n); };
            return reinterpret_cast<void*>(set);
        }
        if (std::strcmp(name, "ggml_backend_set_abort_callback") == 0) {
            ggml_backend_set_abort_callback_t set = [](ggml_backend_t b, ggml_abort_callback callback, void* data) {
                Backend::of(b).set_abort_callback(callback, data);
            };
            return reinterpret_cast<void*>(set);
        }
        return nullptr;
    }

    static ggml_backend_reg_t make() {
        fill_buffer_type();
        fill_device();
        registry.api_version = api;
        registry.iface.get_name = [](ggml_backend_reg_t) { return kDeviceName; };
        registry.iface.get_device_count = [](ggml_backend_reg_t) { return size_t{1}; };
        registry.iface.get_device = [](ggml_backend_reg_t, size_t) { return dev(); };
        registry.iface.get_proc_address = proc_address;
        return reg();
    }
};

}  // namespace

namespace {

// Says whether a graph's use counts are where abi.h says, by a graph in which one tensor is used twice.
bool knows_graphs() {
    const ggml_context_ptr context(
        ggml_init({ggml_tensor_overhead() * 4 + ggml_graph_overhead(), nullptr, /*no_alloc=*/true}));
    if (!context) return false;
    ggml_tensor* used = ggml_new_tensor_1d(context.get(), GGML_TYPE_F32, 1);
    ggml_cgraph* graph = ggml_new_graph(context.get());
    ggml_build_forward_expand(graph, ggml_add(context.get(), used, used));
    const auto* known = reinterpret_cast<const abi::Graph*>(graph);
    if (known->n_nodes != 1 || known->n_leafs != 1 || known->nodes != ggml_graph_nodes(graph) ||
        known->leafs[0] != used)
        return false;
    const auto* key = std::find(known->visited.keys, known->visited.keys + known->visited.size, used);
    const size_t at = static_cast<size_t>(key - known->visited.keys);
    return at < known->visited.size && (known->visited.used[at / 32] >> at % 32 & 1) == 1 && known->use_counts[at] == 2;
}

}  // namespace

int host_api_version() {
    const ggml_backend_dev_t cpu = cpu_device();
    return cpu ? reinterpret_cast<const abi::Registry*>(ggml_backend_dev_backend_reg(cpu))->api_version : 0;
}

bool host_is_compatible() {
    return std::strcmp(ggml_op_name(GGML_OP_FLASH_ATTN_EXT), "FLASH_ATTN_EXT") == 0 &&
           std::strcmp(ggml_op_name(GGML_OP_SET_ROWS), "SET_ROWS") == 0 &&
           std::strcmp(ggml_op_name(GGML_OP_ROPE), "ROPE") == 0 &&
           std::strcmp(ggml_op_name(GGML_OP_PERMUTE), "PERMUTE") == 0 &&
           std::strcmp(ggml_op_name(GGML_OP_CUSTOM), "CUSTOM") == 0 &&
           std::strcmp(ggml_type_name(GGML_TYPE_BF16), "bf16") == 0 &&
           ggml_tensor_overhead() == sizeof(ggml_tensor) + abi::kObjectBytes && knows_graphs();
}

ggml_backend_reg_t make_registry(int api_version, const Config& config) {
    g_context = {config, describe(config)};
    return api_version == 2 ? Host<2>::make() : Host<3>::make();
}

}  // namespace tq::plugin
