// The kernels as a shared library with a plain C interface: no header of PyTorch, so no version of it to fit to.
#include <cuda_runtime.h>

#include "kernels.cuh"

#ifdef _WIN32
#define SG_API extern "C" __declspec(dllexport)
#else
#define SG_API extern "C" __attribute__((visibility("default")))
#endif

namespace {

struct Entry {
    const char* name;
    const void* function;
    int params_size;
};

#define SG_ENTRY(NAME, PARAMS, ...) {#NAME, reinterpret_cast<const void*>(sg::NAME), sizeof(sg::PARAMS)},
const Entry entries[] = {SG_DTYPES(SG_ENTRY)};
constexpr int num_entries = sizeof(entries) / sizeof(entries[0]);

// Makes a device current for a while.
class OnDevice {
public:
    explicit OnDevice(int device) {
        error_ = cudaGetDevice(&before_);
        if (error_ != cudaSuccess || before_ == device) return;
        error_ = cudaSetDevice(device);
        changed_ = error_ == cudaSuccess;
    }
    ~OnDevice() {
        if (changed_) cudaSetDevice(before_);
    }
    cudaError_t error() const { return error_; }

private:
    int before_ = 0;
    bool changed_ = false;
    cudaError_t error_;
};

}  // namespace

SG_API int sg_num_kernels() { return num_entries; }

SG_API const char* sg_kernel_name(int index) { return entries[index].name; }

SG_API int sg_params_size(int index) { return entries[index].params_size; }

SG_API const char* sg_error_text(int code) { return cudaGetErrorString(static_cast<cudaError_t>(code)); }

// 0 if this library holds code that the device can run.
SG_API int sg_check(int device) {
    OnDevice on(device);
    cudaFuncAttributes attributes;
    const cudaError_t error = on.error() ? on.error() : cudaFuncGetAttributes(&attributes, entries[0].function);
    cudaGetLastError();  // leaves no error behind for whoever asks next
    return error;
}

// Queues one kernel on a stream of a device; `params` is copied before this returns.
SG_API int sg_launch(int index, unsigned grid_x, unsigned grid_y, unsigned grid_z, const void* params, int device,
                     void* stream) {
    OnDevice on(device);
    if (on.error()) return on.error();
    void* arguments[] = {const_cast<void*>(params)};
    const cudaError_t error = cudaLaunchKernel(entries[index].function, dim3(grid_x, grid_y, grid_z), dim3(sg::THREADS),
                                               arguments, 0, static_cast<cudaStream_t>(stream));
    cudaGetLastError();
    return error;
}
