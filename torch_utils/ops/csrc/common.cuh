// What the kernels share: storage types, conversion to the type that is computed in, reading and writing.
//
// The same text is compiled by nvcc, by NVRTC (so no header is included) and, for tests, by a host compiler.
#pragma once

// A host build that counts memory traffic defines this; on a GPU it is nothing.
#ifndef SG_TOUCH
#define SG_TOUCH(address, bytes)
#endif

namespace sg {

constexpr int THREADS = 256;  // of every block of every kernel

struct Half { unsigned short bits; };    // IEEE binary16
struct BFloat { unsigned short bits; };  // bfloat16

template <typename T> struct Accumulator { using type = float; };
template <> struct Accumulator<double> { using type = double; };
template <typename T> using Acc = typename Accumulator<T>::type;

// One 16-byte access to memory.
template <typename T> struct alignas(16) Pack {
    static constexpr int SIZE = 16 / sizeof(T);
    T item[SIZE];
};

__device__ inline float widen(float v) { return v; }
__device__ inline double widen(double v) { return v; }
__device__ inline void narrow(float v, float& out) { out = v; }
__device__ inline void narrow(double v, double& out) { out = v; }

#ifndef SG_HOST_SHIM  // a host compiler brings its own four conversions
__device__ inline float widen(Half v) {
    float out;
    asm("cvt.f32.f16 %0, %1;" : "=f"(out) : "h"(v.bits));
    return out;
}

__device__ inline void narrow(float v, Half& out) {
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(out.bits) : "f"(v));
}

__device__ inline float widen(BFloat v) { return __uint_as_float(static_cast<unsigned>(v.bits) << 16); }

// In integers, because the instruction for it exists only from sm_80 on. Ties go to even; a NaN stays one.
__device__ inline void narrow(float v, BFloat& out) {
    const unsigned bits = __float_as_uint(v);
    const unsigned rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    out.bits = static_cast<unsigned short>(v == v ? rounded : 0x7fffu);
}
#endif

template <typename T> __device__ inline Acc<T> read(const T* address) {
    SG_TOUCH(address, sizeof(T));
    return widen(*address);
}

template <typename T> __device__ inline void write(T* address, Acc<T> value) {
    SG_TOUCH(address, sizeof(T));
    T stored;
    narrow(value, stored);
    *address = stored;
}

template <typename T> __device__ inline Pack<T> read_pack(const T* address) {
    SG_TOUCH(address, sizeof(Pack<T>));
    return *reinterpret_cast<const Pack<T>*>(address);
}

template <typename T> __device__ inline void write_pack(T* address, const Pack<T>& value) {
    SG_TOUCH(address, sizeof(Pack<T>));
    *reinterpret_cast<Pack<T>*>(address) = value;
}

}  // namespace sg
