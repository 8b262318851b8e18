// The functions of the CUDA driver that torch_utils/ops/backend/driver.py calls, for one GPU that is this host. Compiled
// together with runner.cpp; checks what it is given as the real one would, and more strictly.
#include "runner.cpp"

namespace {

constexpr int INVALID_VALUE = 1, INVALID_CONTEXT = 201, NOT_FOUND = 500, LAUNCH_FAILED = 719;

int context_of_gpu = 0, current_image = 0;
void* current = nullptr;
int depth = 0;

}  // namespace

extern "C" {

int cuInit(unsigned flags) { return flags == 0 ? 0 : INVALID_VALUE; }

int cuGetErrorString(int code, const char** text) {
    *text = code == NOT_FOUND ? "named symbol not found" : code == INVALID_CONTEXT ? "invalid context" : "failure";
    return 0;
}

int cuDriverGetVersion(int* version) {
    *version = 13020;
    return 0;
}

int cuDeviceGet(int* device, int ordinal) {
    *device = ordinal;
    return ordinal == 0 ? 0 : INVALID_VALUE;
}

int cuDevicePrimaryCtxRetain(void** context, int) {
    *context = &context_of_gpu;
    return 0;
}

int cuCtxGetCurrent(void** context) {
    *context = current;
    return 0;
}

int cuCtxPushCurrent_v2(void* context) {
    current = context;
    ++depth;
    return 0;
}

int cuCtxPopCurrent_v2(void** context) {
    *context = current;
    current = nullptr;
    --depth;
    return 0;
}

int cuModuleLoadData(void** module, const void* image) {
    if (current != &context_of_gpu) return INVALID_CONTEXT;
    if (std::strcmp(static_cast<const char*>(image), "an image") != 0) return INVALID_VALUE;
    *module = &current_image;
    return 0;
}

int cuModuleGetFunction(void** function, void* module, const char* name) {
    if (module != &current_image) return INVALID_VALUE;
    for (int i = 0; i < num_entries; ++i) {
        if (std::strcmp(entries[i].name, name) == 0) {
            *function = const_cast<Entry*>(&entries[i]);
            return 0;
        }
    }
    return NOT_FOUND;
}

int cuLaunchKernel(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                   unsigned block_z, unsigned shared, void* stream, void** params, void** extra) {
    if (current != &context_of_gpu) return INVALID_CONTEXT;
    const bool fits = block_x == sg::THREADS && block_y == 1 && block_z == 1 && shared == 0 && !stream && !extra;
    if (!fits) return INVALID_VALUE;
    const int index = static_cast<const Entry*>(function) - entries;
    return sg_launch(index, grid_x, grid_y, grid_z, params[0], 0, nullptr) == 0 ? 0 : LAUNCH_FAILED;
}

int fake_contexts_left() { return depth; }

}  // extern "C"
