// Lets a host compiler build the CUDA kernels and run them, one thread at a time.
//
// A block's threads are fibers. They run in a random order, each until it reaches a barrier; when all have, the next
// round starts in another order. So whatever the kernel does right only by luck of timing between two barriers comes out
// wrong here sooner or later. A barrier that only some threads reach is an error.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#define SG_HOST_SHIM
#define __global__
#define __device__
#define __launch_bounds__(...)
#define __shared__ static
#define SG_TOUCH(address, bytes) shim::touch(address, bytes)

namespace shim {

struct Index {
    unsigned x, y, z;
};

extern Index thread, block, grid;

void barrier();
void touch(const void* address, int bytes);

}  // namespace shim

#define threadIdx shim::thread
#define blockIdx shim::block
#define gridDim shim::grid
#define __syncthreads shim::barrier

namespace sg {

struct Half;
struct BFloat;
inline float widen(Half v);
inline float widen(BFloat v);
inline void narrow(float v, Half& out);
inline void narrow(float v, BFloat& out);

}  // namespace sg
